"""Routing: what is seen of a question, what is expected, who is chosen and why, and what is proven of it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from collegium_contracts.policies import Cell, Proof, RoutingPolicy
from collegium_learning.routing import comparing
from collegium_learning.routing.certifying import prove
from collegium_learning.routing.choosing import Candidate, Draw, Wants, cheapest_within, decide
from collegium_learning.routing.features import TRAITS, directions, pack, row_of, traits, unpack
from collegium_learning.routing.fitting import fit
from collegium_learning.routing.lessons import Lessons
from collegium_learning.routing.predicting import Predictor, UnknownLayoutError
from collegium_learning.routing.shares import Shares
from collegium_learning.routing.trading import traded
from hypothesis import given
from hypothesis import strategies as st

STUDENT, TA, TEACHER = (
    Candidate("s", "student", 1.0),
    Candidate("a", "ta", 3.0),
    Candidate("t", "teacher", 9.0),
)
ALL = (STUDENT, TA, TEACHER)
NO_DRAW = Draw(1.0, 0.0)
WIDTH = 16


def cells(*means: float, sd: float = 0.01, rows: int = 100, seconds: float = 1.0) -> list[Cell]:
    return [Cell(rows, mean, sd, 0.0, seconds) for mean in means]


def policy(everywhere: list[Cell], **fields: object) -> RoutingPolicy:
    names = ["s", "a", "t"][: len(everywhere)]
    return RoutingPolicy(version=3, tenant="acme", created_at_ms=0, models=names, everywhere=everywhere, **fields)


def choose(
    standing: RoutingPolicy, *, domain: str = "", among=ALL, draw: Draw = NO_DRAW, penalties=None, **wants: float
):
    predictor = Predictor(standing)
    return decide(predictor, predictor.expect(domain, None), among, Wants(**wants), draw, penalties)


def lessons(seed: int, count: int = 400, *, partial: bool = False) -> Lessons:
    """Two models: the strong one gains in domain ``hard`` alone, and there where a question points one way."""
    drawn = np.random.default_rng(seed)
    domains = drawn.choice(["easy", "hard"], count)
    embeddings = drawn.normal(size=(count, WIDTH))
    rows = np.array([row_of(one.astype(np.float32), np.zeros(len(TRAITS), np.float32)) for one in embeddings])
    needs = (domains == "hard") & (embeddings[:, 0] > 0)
    scores = np.column_stack([drawn.random(count) < np.where(needs, 0.2, 0.85), drawn.random(count) < 0.85]).astype(
        float
    )
    if partial:
        scores[np.arange(count), drawn.integers(0, 2, count)] = np.nan
    costs = np.tile([1.0, 10.0], (count, 1))
    nothing = np.full(scores.shape, np.nan)
    return Lessons(("w", "s"), tuple(domains), rows, np.ones(count, bool), scores, costs, nothing)


def gains(standing: RoutingPolicy, of: Lessons) -> np.ndarray:
    expected = Predictor(standing).expect_many(of.domains, of.rows)
    return expected[:, 1] - expected[:, 0]


def test_a_row_survives_its_packing_and_another_layout_is_none():
    row = row_of(np.linspace(-1, 1, WIDTH, dtype=np.float32), traits("What is 3 + 4? A. 7\nB. 8\n"))
    packed = pack(row)
    assert len(packed) == 8 + len(row)
    assert np.abs(unpack(packed) - row).max() <= np.abs(row).max() / 127
    assert np.linalg.norm(directions(row)) == pytest.approx(1.0, rel=1e-5)
    assert unpack(b"") is None
    assert unpack(packed[:-1]) is None
    assert unpack(bytes([9]) + packed[1:]) is None


@given(st.text(max_size=300))
def test_any_text_has_traits_of_ordinary_size(text):
    found = traits(text)
    assert len(found) == len(TRAITS)
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 100


@pytest.mark.parametrize("partial", [False, True])
def test_the_gain_is_foretold_by_domain_and_by_question(partial):
    fitted = fit(lessons(1, 800, partial=partial), seed=1)
    unseen = lessons(2, 400)
    expected = gains(fitted.policy, unseen)
    hard = np.array([domain == "hard" for domain in unseen.domains])
    towards = unseen.rows[:, 0] > 0
    assert expected[hard & towards].mean() > expected[hard & ~towards].mean() + 0.02
    assert expected[hard].mean() > expected[~hard].mean() + 0.1
    one = Predictor(fitted.policy).expect(unseen.domains[0], unseen.rows[0])
    assert one.quality[1] - one.quality[0] == pytest.approx(expected[0], abs=1e-5)
    without = Predictor(fitted.policy).expect(unseen.domains[0], None)
    assert without.nearest is None
    assert without.quality[1] > 0.5


def test_held_out_expectations_know_nothing_of_their_own_rows():
    drawn = np.random.default_rng(3)
    known = lessons(3, 300)
    noise = known._replace(scores=(drawn.random((300, 2)) < 0.5).astype(float))
    fitted = fit(noise, seed=3)
    held = fitted.held_out["full"]
    lost = noise.scores[:, 1] - noise.scores[:, 0]
    assert abs(np.corrcoef(held[:, 1] - held[:, 0], lost)[0, 1]) < 0.2


def test_what_is_certified_holds_on_unseen_rows_in_95_of_100_splits():
    drawn = np.random.default_rng(5)
    held = certified = 0
    for _ in range(100):
        sides = []
        for _side in range(2):
            true = drawn.beta(1, 4, 1_500) - 0.05
            lost = (drawn.random(1_500) < np.maximum(true, 0)).astype(float) - (drawn.random(1_500) < 0.03)
            sides.append((true + drawn.normal(0, 0.1, 1_500), lost))
        (known, known_lost), (unseen, unseen_lost) = sides
        proof = prove("w", "s", known, known_lost, 0.03)
        to_weak = unseen <= (proof.gain_max if proof is not None else -1.0)
        certified += to_weak.mean() > 0.1
        held += np.where(to_weak, unseen_lost, 0.0).mean() <= 0.03
    assert held >= 95
    assert certified >= 95


def test_what_is_not_proven_is_not_certified():
    assert prove("w", "s", np.zeros(20), np.ones(20), 0.05) is None
    assert prove("w", "s", np.zeros(0), np.zeros(0), 0.05) is None
    assert prove("w", "s", np.zeros(5), np.zeros(5), 0.01) is None


CASES = {
    "the cheapest that is as good": ({}, (0.90, 0.91, 0.92), "s", "good_enough"),
    "the best where others are worse": ({}, (0.5, 0.6, 0.92), "t", "expected_best"),
    "a cheap one that is better": ({}, (0.95, 0.6, 0.9), "s", "expected_best"),
    "who surely reaches what is wanted": ({"quality": 0.7}, (0.5, 0.8, 0.95), "a", "good_enough"),
    "the best where nobody does": ({"quality": 0.99}, (0.5, 0.8, 0.95), "t", "quality_floor"),
    "what is affordable": ({"cost_usd_max": 4.0}, (0.5, 0.8, 0.95), "a", "budget"),
    "the dearest of what nobody can afford": ({"cost_usd_max": 0.1}, (0.5, 0.6, 0.95), "t", "expected_best"),
}


@pytest.mark.parametrize("case", CASES)
def test_chosen_is(case):
    wants, means, who, why = CASES[case]
    choice = choose(policy(cells(*means)), **wants)
    assert choice.order[0] == who
    assert why in choice.reasons
    assert sorted(choice.order) == ["a", "s", "t"]
    assert choice.propensity == 1.0


def test_what_is_not_known_well_is_no_reason_to_leave_the_highest_rank():
    few = policy([Cell(5, 0.99, 0.1), *cells(0.9, 0.9)])
    assert choose(few).order[0] == "a"
    unknown = policy([*cells(0.99, 0.99), Cell(3, 0.1, 0.3)])
    assert choose(unknown).order[0] == "t"
    assert choose(unknown).reasons == ("cold_start",)
    assert choose(unknown, quality=0.9).order[0] == "s"
    unsure = policy(cells(0.99, 0.95, 0.9, sd=0.2))
    assert choose(unsure).order[0] == "t"
    assert choose(policy(cells(0.85, 0.85, 0.9, sd=0.2))).order[0] == "t"
    newcomer = choose(policy(cells(0.9, 0.9)), among=ALL)
    assert newcomer.order[0] == "t"
    assert newcomer.reasons == ("cold_start",)


def test_a_domain_goes_its_own_way_and_a_slow_model_misses_a_deadline():
    standing = policy(cells(0.5, 0.6, 0.9), domains={"law": cells(0.9, 0.9, 0.9)})
    assert (choose(standing).order[0], choose(standing, domain="law").order[0]) == ("t", "s")
    slow = policy([Cell(100, 0.9, 0.01, 0.0, 30.0), *cells(0.9, 0.9)])
    choice = choose(slow, seconds_max=10.0)
    assert choice.order == ("a", "t", "s")
    assert "deadline" in choice.reasons


def test_what_is_unlike_anything_known_goes_to_the_highest_rank():
    standing = policy(cells(0.9, 0.9, 0.9), novel_below=0.4)
    predictor = Predictor(standing)
    expected = predictor.expect("", None)
    for nearest, who in ((0.3, "t"), (0.5, "s"), (None, "s")):
        seen = expected._replace(nearest=nearest)
        assert decide(predictor, seen, ALL, Wants(), NO_DRAW).order[0] == who


def test_a_proven_use_goes_beyond_caution():
    unsure = policy(cells(0.87, 0.5, 0.9, sd=0.2))
    proof = Proof(weak="s", strong="t", loss_max=0.02, gain_max=0.04, weak_share=0.3, rows=900, level=0.01)
    assert choose(unsure).order[0] == "t"
    proven = choose(msgspec.structs.replace(unsure, proofs=[proof]))
    assert (proven.order[0], proven.reasons) == ("s", ("certified",))
    bolder = msgspec.structs.replace(proof, loss_max=0.2)
    assert choose(msgspec.structs.replace(unsure, proofs=[bolder])).order[0] == "t"


@given(st.floats(0, 1, exclude_max=True), st.floats(0.01, 0.5))
def test_a_draw_is_logged_with_its_chance(number, share):
    standing = policy(cells(0.85, 0.85, 0.95))
    choice = choose(standing, draw=Draw(number, share))
    assert choice.explored == (number < share)
    expected = share / 3 + (1 - share if choice.order[0] == "t" else 0)
    assert choice.propensity == pytest.approx(expected)
    assert ("explored" in choice.reasons) == (choice.order[0] != "t")


def test_draws_come_out_as_often_as_their_chances_say():
    standing = policy(cells(0.85, 0.85, 0.95))
    numbers = (np.arange(3_000) + 0.5) / 3_000
    drawn = [choose(standing, draw=Draw(float(number), 0.3)) for number in numbers]
    for who in "sat":
        times = [choice.propensity for choice in drawn if choice.order[0] == who]
        assert len(times) / 3_000 == pytest.approx(times[0], abs=0.002)


def test_ranks_come_near_their_shares_as_far_as_quality_allows():
    shares = Shares({"student": 0.6, "teacher": 0.4})
    near = policy(cells(0.80, 0.2, 0.88))
    times = {"s": 0, "a": 0, "t": 0}
    for _ in range(1_500):
        first = choose(near, penalties=shares.penalties).order[0]
        times[first] += 1
        shares.chose({"s": "student", "a": "ta", "t": "teacher"}[first])
    assert times["s"] / 1_500 == pytest.approx(0.6, abs=0.1)
    far = Shares({"student": 0.9, "teacher": 0.1})
    for _ in range(600):
        first = choose(policy(cells(0.2, 0.2, 0.95)), penalties=far.penalties).order[0]
        far.chose({"s": "student", "a": "ta", "t": "teacher"}[first])
    assert choose(policy(cells(0.2, 0.2, 0.95)), penalties=far.penalties).order[0] == "t"


def test_a_trade_gives_quality_away_only_as_far_as_it_may():
    known = lessons(7, 1_500)
    fitted = fit(known, seed=7)
    strict, loose = traded(fitted, known, 0.01), traded(fitted, known, 0.5)
    unseen = lessons(8, 1_500)
    lost, cost = [], []
    for trade in (strict, loose):
        places = trade.choose(fitted.policy, unseen.domains, unseen.rows)
        lost.append(float((unseen.scores[:, 1] - unseen.scores[np.arange(1_500), places]).mean()))
        cost.append(float(unseen.costs_usd[np.arange(1_500), places].mean()))
    assert strict.baseline == "s"
    assert lost[0] < 0.04
    assert cost[1] < cost[0] < 6.0


def test_where_nothing_is_better_the_best_single_model_answers():
    drawn = np.random.default_rng(9)
    known = lessons(9, 200)
    # The cheap one is never right: nothing is to be saved.
    known = known._replace(scores=np.column_stack([np.zeros(200), drawn.random(200) < 0.8]).astype(float))
    trade = traded(fit(known, seed=9), known, 0.0)
    assert set(trade.choose(fit(known, seed=9).policy, known.domains, known.rows)) == {1}


def test_the_cheapest_within_a_tolerance_is_the_best_of_equally_cheap():
    quality = np.array([[0.5, 0.58, 0.6], [0.9, 0.1, 0.2]])
    costs = np.array([[1.0, 1.0, 5.0], [2.0, 1.0, 1.0]])
    assert cheapest_within(quality, costs, 0.15).tolist() == [1, 0]
    assert cheapest_within(quality, costs, 0.0).tolist() == [2, 0]
    assert cheapest_within(quality, np.zeros((2, 3)), 0.05).tolist() == [2, 0]


def test_logged_choices_tell_what_another_policy_would_have_reached():
    drawn = np.random.default_rng(11)
    rows = 4_000
    true = np.column_stack([np.full(rows, 0.3), np.where(drawn.random(rows) < 0.5, 0.9, 0.5)])
    chances = np.array([0.8, 0.2])
    chosen = drawn.choice(2, rows, p=chances)
    scores = (drawn.random(rows) < true[np.arange(rows), chosen]).astype(float)
    wrong = np.full((rows, 2), 0.5)
    logged = comparing.Logged(chosen, chances[chosen], scores, wrong)
    always = np.tile([0.0, 1.0], (rows, 1))
    before = np.tile([1.0, 0.0], (rows, 1))
    for estimate in (comparing.snips(logged, always, 1), comparing.robust(logged, always, 1)):
        assert estimate.low < 0.7 < estimate.high
        assert estimate.high - estimate.low < 0.12
    more = comparing.gained(logged, always, before, 1)
    assert more.low < 0.4 < more.high
    assert more.low > 0


def corrupted():
    good = fit(lessons(1, 200), seed=1).policy
    yield "layout", msgspec.structs.replace(good, layout=9)
    yield "models", msgspec.structs.replace(good, models=["w"])
    yield "cells", msgspec.structs.replace(good, domains={"x": good.everywhere[:1]})
    yield "linear", msgspec.structs.replace(good, linear=good.linear[:-3])
    yield "numbers", msgspec.structs.replace(good, linear=b"\xff" * len(good.linear))
    yield "bank", msgspec.structs.replace(good, bank=good.bank[:-1])
    yield "outcomes", msgspec.structs.replace(good, bank_rest=good.bank_rest[:-2])
    yield "projection", msgspec.structs.replace(good, projection=b"abc")
    yield "row width", msgspec.structs.replace(good, projection=good.projection[: -4 * good.near_dimensions])
    yield "directions", msgspec.structs.replace(good, projection=b"\xff" * len(good.projection))
    yield "rest", msgspec.structs.replace(good, bank_rest=b"\x00\x7c" * (len(good.bank_rest) // 2))
    yield "scale", msgspec.structs.replace(good, bank_scale=float("nan"))
    yield "stack", msgspec.structs.replace(good, stack=(float("inf"), 0.0))
    broken = [msgspec.structs.replace(good.everywhere[0], mean=float("nan")), *good.everywhere[1:]]
    yield "everywhere", msgspec.structs.replace(good, everywhere=broken)
    yield "domain", msgspec.structs.replace(good, domains={"x": broken})


@pytest.mark.parametrize("what", [name for name, _ in corrupted()])
def test_arrays_that_do_not_fit_are_refused(what):
    with pytest.raises(UnknownLayoutError):
        Predictor(dict(corrupted())[what])


def test_a_row_of_another_length_is_no_row_without_a_linear_part_too():
    of = lessons(1, 200)
    near = msgspec.structs.replace(fit(of, seed=1).policy, family="full", linear=b"", stack=(0.0, 1.0))
    predictor = Predictor(near)
    assert predictor.expect("hard", of.rows[0]).nearest is not None
    assert predictor.expect("hard", of.rows[0][:-1]).nearest is None


def test_without_outcomes_there_is_no_policy():
    with pytest.raises(ValueError, match="nothing"):
        fit(lessons(1, 10).at(np.zeros(0, np.int64)), seed=1)


def test_nobody_is_asked_to_learn_what_is_known_or_of_no_use():
    numbers = (np.arange(300) + 0.5) / 300

    def drawn(standing: RoutingPolicy, among=ALL) -> set[str]:
        return {choose(standing, among=among, draw=Draw(float(one), 0.9)).order[0] for one in numbers}

    assert drawn(policy(cells(0.5, 0.85, 0.95))) == {"a", "t"}
    assert drawn(policy([*cells(0.5, 0.85, sd=0.4), *cells(0.95)])) == {"s", "a", "t"}
    dear = Candidate("dear", "ta", 9.0)
    assert drawn(policy(cells(0.5, 0.85, 0.95)), among=(*ALL, dear)) == {"a", "t"}
    cheap = Candidate("new", "ta", 2.0)
    assert drawn(policy(cells(0.5, 0.85, 0.95)), among=(*ALL, cheap)) == {"a", "t", "new"}
