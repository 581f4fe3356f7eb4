"""Ranks: evidence is evidence, decisions hold their numbers, one tenant decides for nobody else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from collegium_learning.ranks import bounds, superiority, tenants, together
from collegium_learning.ranks.decisions import DEFAULT, Evidence, demotion, promotion
from collegium_learning.ranks.falling import detector
from collegium_learning.ranks.pairs import Pairs, pair, total
from collegium_learning.ranks.simulation import exactly, trials, wins_needed
from hypothesis import given
from hypothesis import strategies as st

counts = st.integers(0, 60)
some_pairs = st.builds(Pairs, wins=counts, losses=counts, ties=counts, score_sum=st.just(0.0))


def spread(pairs: Pairs, names: int) -> dict[str, Pairs]:
    """Deals pairs to tenants as evenly as they go."""
    dealt = {f"t{number}": Pairs() for number in range(names)}
    for field in ("wins", "losses", "ties"):
        for number in range(getattr(pairs, field)):
            name = f"t{number % names}"
            dealt[name] = dealt[name].plus(Pairs(**{field: 1}, score_sum=pairs.score_sum / max(1, pairs.count)))
    return dealt


@given(counts, counts)
def test_the_odds_of_being_better_are_a_martingale_between_equals(wins: int, losses: int) -> None:
    # What is expected after the next pair is what stands: exactly so at one half, less below it, more above it.
    here = math.exp(superiority.log_evidence(wins, losses))
    won, lost = (
        math.exp(superiority.log_evidence(wins + 1, losses)),
        math.exp(superiority.log_evidence(wins, losses + 1)),
    )
    assert (won + lost) / 2 == pytest.approx(here, rel=1e-9)
    assert 0.4 * won + 0.6 * lost <= here * (1 + 1e-9)


@given(some_pairs, st.floats(-0.3, 0.3), st.floats(0, 1))
def test_bets_on_a_mean_gain_nothing_at_their_edge(pairs: Pairs, edge: float, ties: float) -> None:
    won = (1 - ties + edge) / 2
    lost = (1 - ties - edge) / 2
    if min(won, lost) < 0:
        return
    here = bounds.log_evidence(pairs, edge)
    after = [
        (won, bounds.log_evidence(pairs.plus(Pairs(wins=1)), edge)),
        (lost, bounds.log_evidence(pairs.plus(Pairs(losses=1)), edge)),
        (ties, bounds.log_evidence(pairs.plus(Pairs(ties=1)), edge)),
    ]
    assert math.fsum(chance * math.exp(one - here) for chance, one in after) == pytest.approx(1, rel=1e-9)


def test_equal_students_are_promoted_in_less_than_one_of_a_hundred_trials_however_often_one_looks() -> None:
    share, _ = exactly(0.5, wins_needed(1_000))
    assert share < 0.01
    assert trials(0.5, runs=10_000).share == pytest.approx(share, abs=0.003)


@pytest.mark.parametrize(("win_rate", "pairs", "share_min"), [(0.7, 60, 0.999), (0.6, 160, 0.6)])
def test_better_students_are_found_soon(win_rate: float, pairs: int, share_min: float) -> None:
    share, mean = exactly(win_rate, wins_needed(300))
    assert mean is not None
    assert mean <= pairs
    assert share >= share_min


def test_the_wins_that_are_asked_for_are_what_the_decision_asks_for() -> None:
    needed = wins_needed(80)
    assert needed[:30] == [pairs + 1 for pairs in range(30)]
    for discordant in (30, 47, 80):
        for wins, is_enough in ((needed[discordant], True), (needed[discordant] - 1, False)):
            told = {"t": Pairs(wins=wins, losses=discordant - wins, score_sum=discordant)}
            known = Evidence(model="m", domain="", rank="student", tenant="t", above=told)
            assert (promotion(known).verdict == "promote") is is_enough


@given(st.integers(1, 9))
def test_what_one_tenant_tells_promotes_nobody_for_all(names: int) -> None:
    honest = spread(Pairs(wins=5, losses=5, ties=10), names)
    lie = Pairs(wins=5_000, score_sum=5_000)
    known = Evidence(model="m", domain="d", rank="student", above={**honest, "liar": lie}, price=1, price_above=10)
    alone = Evidence(model="m", domain="d", rank="student", above=honest, price=1, price_above=10)
    assert promotion(alone).verdict == promotion(known).verdict == "stay"


def test_what_one_tenant_tells_keeps_no_model_from_its_rank() -> None:
    good = spread(Pairs(wins=160, losses=60, score_sum=200), 5)
    known = Evidence(model="m", domain="d", rank="student", above={**good, "liar": Pairs(losses=2_000)})
    decision = promotion(Evidence(model="m", domain="d", rank="student", above=good))
    assert decision.verdict == "promote"
    assert decision.ground == "better"
    odds = tenants.log_for_all(known.above, lambda one: superiority.log_evidence(one.wins, one.losses))
    assert math.exp(odds) >= DEFAULT.odds


def test_a_tenant_alone_decides_for_itself() -> None:
    mine = {"acme": Pairs(wins=45, losses=8, score_sum=50)}
    assert promotion(Evidence(model="m", domain="", rank="student", above=mine)).verdict == "stay"
    decided = promotion(Evidence(model="m", domain="", rank="student", tenant="acme", above=mine))
    assert (decided.verdict, decided.after, decided.tenants) == ("promote", "ta", 1)
    assert "45 won, 8 lost" in decided.reason


def test_as_good_and_cheaper_is_promoted_and_as_good_at_the_same_price_is_not() -> None:
    told = spread(Pairs(wins=30, losses=30, ties=840, score_sum=880), 10)
    known: dict[str, Any] = {"model": "m", "domain": "d", "rank": "student", "above": told}
    cheap = promotion(Evidence(**known, price=1, price_above=5))
    assert (cheap.verdict, cheap.ground, cheap.price_ratio) == ("promote", "as_good_and_cheaper", 0.2)
    same = promotion(Evidence(**known, price=5, price_above=5))
    assert same.verdict == "stay"
    assert any("price" in text for text in same.missing)


def test_necessary_conditions_keep_back_what_evidence_alone_would_promote() -> None:
    few = {"t": Pairs(wins=20, score_sum=20)}
    decided = promotion(Evidence(model="m", domain="", rank="student", tenant="t", above=few))
    assert decided.odds > decided.needed
    assert decided.missing == ("20 of 30 pairs that differ",)
    poor = {"t": Pairs(wins=60, losses=10, score_sum=40)}
    assert promotion(Evidence(model="m", domain="", rank="ta", tenant="t", above=poor)).verdict == "stay"
    assert promotion(Evidence(model="m", domain="", rank="teacher", tenant="t", above=poor)).verdict == "stay"


def test_worse_is_demoted_and_as_good_is_not() -> None:
    told = {"beside": spread(Pairs(wins=10, losses=70, ties=40, score_sum=50), 3)}
    decided = demotion(Evidence(model="m", domain="d", rank="teacher", **told))
    assert (decided.verdict, decided.after, decided.ground) == ("demote", "ta", "worse")
    level = spread(Pairs(wins=40, losses=42, ties=40, score_sum=90), 3)
    assert demotion(Evidence(model="m", domain="d", rank="teacher", beside=level)).verdict == "stay"
    assert demotion(Evidence(model="m", domain="d", rank="student", **told)).verdict == "stay"


def test_a_late_fall_is_seen_although_the_sum_is_good() -> None:
    good, bad = [0] * 400 + [1] * 40, [-1] * 25
    assert detector(good, DEFAULT.margin) < DEFAULT.lately_odds
    lately = detector([*good, *bad], DEFAULT.margin)
    told = {"t": Pairs(wins=40, losses=25, ties=400, score_sum=430)}
    decided = demotion(Evidence(model="m", domain="", rank="ta", tenant="t", beside=told, lately=lately))
    assert (decided.verdict, decided.ground) == ("demote", "worse_lately")


def test_the_detector_seldom_cries_over_equals() -> None:
    rng = np.random.default_rng(7)
    cries = 0
    for _ in range(60):
        outcomes = rng.choice([-1, 0, 1], size=400, p=[0.2, 0.6, 0.2]).tolist()
        cries += any(
            detector(outcomes[:length], DEFAULT.margin) >= DEFAULT.lately_odds for length in (100, 200, 300, 400)
        )
    assert cries <= 3


@given(st.lists(st.floats(-3, 8), max_size=30))
def test_of_many_comparisons_those_that_stand_would_stand_alone_and_no_weaker_one_stands(logs: list[float]) -> None:
    kept = together.standing(logs, 0.05)
    standing = [one for one, stands in zip(logs, kept, strict=True) if stands]
    fallen = [one for one, stands in zip(logs, kept, strict=True) if not stands]
    assert all(one >= math.log(20) for one in standing)
    assert not standing or not fallen or min(standing) >= max(fallen)
    if logs and max(logs) >= math.log(together.threshold(len(logs), 0.05)):
        assert standing


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=20))
def test_pairs_add_up_in_any_order(scores: list[tuple[float, float]]) -> None:
    one = total(pair(*both) for both in scores)
    other = total(pair(*both) for both in reversed(scores))
    assert (one.wins, one.losses, one.ties) == (other.wins, other.losses, other.ties)
    assert one.count == len(scores)
    assert one.reversed().reversed() == one
