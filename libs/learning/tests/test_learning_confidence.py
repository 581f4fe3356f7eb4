"""How probably an answer is right, and thresholds with a promise."""

from __future__ import annotations

import math
import random

import msgspec
import numpy as np
import pytest
from collegium_learning.confidence import UNCALIBRATED, Calibration, Features, confidence
from collegium_learning.confidence.escalation import Escalation, fit_escalation, fit_gains
from collegium_learning.confidence.learning import Known, expected_calibration_error, fit_calibration, isotonic
from collegium_learning.confidence.neighbours import Neighbours, held_out_shares
from collegium_learning.confidence.thresholds import (
    GAIN_LEVEL,
    GAIN_STEPS,
    binomial_tail,
    learn_then_test,
    p_value,
    proven_gain,
)
from hypothesis import given
from hypothesis import strategies as st

shares = st.none() | st.floats(0, 1)
some = st.builds(
    Features,
    st.sampled_from(["", "d"]),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 9),
    probability=shares,
    logprob=st.none() | st.floats(-1e6, 0),
    judge=shares,
    gates=shares,
    history=shares,
    nearby=shares,
)


def seen(rows: int, seed: int, domain: str, tilt: float) -> list[Known]:
    """Answers whose stated probability is wrong by a tilt of its logarithm of odds."""
    drawn = random.Random(seed)
    made = []
    for _ in range(rows):
        stated = drawn.uniform(0.05, 0.95)
        odds = stated / (1 - stated) * np.exp(tilt)
        made.append(Known(Features(domain, 2, 3, 3, probability=stated), drawn.random() < odds / (1 + odds)))
    return made


def error(calibration: Calibration, known: list[Known]) -> float:
    return expected_calibration_error(
        [confidence(one.features, calibration) for one in known], [one.right for one in known]
    )


@given(features=some)
def test_a_confidence_is_a_probability_and_never_a_certainty(features: Features) -> None:
    assert 0.0 < confidence(features) < 1.0


def test_more_that_agree_are_believed_more() -> None:
    stated = [confidence(Features(agreeing=agreeing, votes=5, asked=5)) for agreeing in range(1, 6)]
    assert stated == sorted(stated)
    assert stated[0] < 0.5 < stated[-1]


@pytest.mark.parametrize("rows", [300, 1_500])
def test_a_calibration_holds_for_answers_it_has_not_seen(rows: int) -> None:
    calibration = fit_calibration([*seen(rows, 1, "proud", -1.5), *seen(rows, 2, "modest", 1.0)])
    assert bool(calibration.domains["proud"].steps) == (rows >= 1_000)
    unseen = [*seen(2_000, 3, "proud", -1.5), *seen(2_000, 4, "modest", 1.0)]
    assert error(calibration, unseen) < 0.04 < error(Calibration(), unseen)


def test_a_small_domain_goes_by_all_the_others() -> None:
    calibration = fit_calibration([*seen(400, 1, "large", -1.0), *seen(20, 2, "small", 3.0)])
    assert set(calibration.domains) == {"large"}
    assert confidence(Features("small", probability=0.5), calibration) < 0.5


def test_a_calibration_is_data_and_nothing_gives_the_prior() -> None:
    calibration = fit_calibration(seen(1_200, 5, "d", 0.5))
    assert msgspec.json.decode(msgspec.json.encode(calibration), type=Calibration) == calibration
    assert fit_calibration([]) == UNCALIBRATED


def test_one_answer_calibrates_without_certainty() -> None:
    calibration = fit_calibration(seen(1, 6, "d", 0.0))
    assert 0.0 < confidence(Features("d", probability=0.5), calibration) < 1.0


def test_expected_calibration_error_by_hand() -> None:
    assert expected_calibration_error([], []) == 0.0
    assert expected_calibration_error([0.9, 0.9], [True, False]) == pytest.approx(0.4)
    assert expected_calibration_error([0.05, 0.95, 1.0], [False, True, True]) == pytest.approx(0.1 / 3)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40))
def test_isotonic_steps_rise_and_keep_the_mean(points: list[tuple[float, float]]) -> None:
    scores, values = np.array(points).T
    steps = isotonic(scores, values, np.ones(len(points)))
    assert [value for _, value in steps] == sorted(value for _, value in steps)
    assert min(values) - 1e-9 <= steps[0][1] <= steps[-1][1] <= max(values) + 1e-9


@pytest.mark.parametrize(("events", "trials", "share"), [(0, 10, 0.3), (3, 10, 0.3), (40, 1_000, 0.05), (10, 10, 0.5)])
def test_binomial_tail(events: int, trials: int, share: float) -> None:
    drawn = np.random.default_rng(1).binomial(trials, share, 200_000)
    assert binomial_tail(events, trials, share) == pytest.approx(float((drawn <= events).mean()), abs=0.005)


@pytest.mark.parametrize("method", ["hoeffding_bentkus", "binomial", "score"])
def test_a_bound_that_does_not_hold_is_seldom_proven(method: str) -> None:
    drawn = np.random.default_rng(2)
    proven = [p_value((drawn.random(400) < 0.1).astype(float).tolist(), 0.1, method) <= 0.05 for _ in range(1_000)]  # type: ignore[arg-type]
    assert sum(proven) / 1_000 <= 0.06
    assert p_value([0.0] * 400, 0.1, method) <= 0.05  # type: ignore[arg-type]
    assert p_value([0.0] * 3, 0.1, method) > 0.05  # type: ignore[arg-type]
    assert p_value([], 0.1, method) == 1.0  # type: ignore[arg-type]


def test_the_last_threshold_that_holds_in_sequence_is_chosen() -> None:
    rows = 500
    candidates = [
        (share / 10, [1.0] * int(rows * share / 100) + [0.0] * (rows - int(rows * share / 100))) for share in range(9)
    ]
    chosen = learn_then_test(candidates, 0.05)
    assert chosen.value is not None
    assert 0.0 < chosen.value < 0.5
    assert chosen.loss < 0.05
    assert learn_then_test([(0.1, [1.0] * 100)], 0.05).value is None
    assert learn_then_test([], 0.05).value is None


def test_an_escalation_keeps_its_promise_and_saves() -> None:
    drawn = np.random.default_rng(3)
    kept, asked = 0, []
    for _ in range(40):
        gain = drawn.beta(0.6, 3.0, 4_000)
        strong, weak = np.ones(4_000), (drawn.random(4_000) > gain).astype(float)
        fitted = fit_escalation(gain[:2_000], weak[:2_000], strong[:2_000], 0.02)
        asks = np.array([fitted.asks(one) for one in gain[2_000:].tolist()])
        kept += bool(np.where(asks, 0.0, 1.0 - weak[2_000:]).mean() <= 0.02)
        asked.append(asks.mean())
    assert kept >= 36
    assert np.mean(asked) < 0.75


def test_a_gain_is_proven_step_by_step_as_any_threshold_is() -> None:
    drawn = np.random.default_rng(5)
    gains = drawn.normal(0.1, 0.1, 1_500).round(3)
    lost = drawn.choice([-1.0, 0.0, 1.0], 1_500, p=[0.04, 0.86, 0.1])
    steps = np.unique(np.quantile(gains, np.arange(1, GAIN_STEPS + 1) / GAIN_STEPS, method="lower"))
    for loss_max in (0.005, 0.02, 0.04, 0.2):
        candidates = ((float(step), np.where(gains <= step, lost, 0.0).tolist()) for step in steps)
        assert proven_gain(gains, lost, loss_max) == learn_then_test(candidates, loss_max, GAIN_LEVEL, "score").value
    assert proven_gain(gains, lost, 0.2) == gains.max()
    assert proven_gain(gains, lost, -1.0) is None
    assert proven_gain(gains[:0], lost[:0], 0.02) is None
    # Equal gains are given away together or not at all.
    assert proven_gain(np.zeros(2_000), np.r_[np.zeros(1_000), np.ones(1_000)], 0.02) is None


@pytest.mark.parametrize("wins", [0.0, 0.003, 0.03])
@pytest.mark.parametrize(
    ("rows", "loss_max"),
    [(140, 0.02), (140, 0.05), (300, 0.01), (300, 0.02), (1_000, 0.01), (1_000, 0.05), (4_000, 0.02)],
)
def test_a_gain_is_proven_falsely_no_more_often_than_its_level_says(rows: int, loss_max: float, wins: float) -> None:
    """Exactly: the chance of all counts of losses and wins that are a proof, where the loss is just the bound."""
    chance, losses = 0.0, (loss_max + wins) / (1 - wins)
    for won in likely(rows, wins):
        bound = most_proven(rows, won, loss_max)
        beside = (lost for lost in likely(rows - won, losses) if lost <= bound)
        share = sum(binomial_chance(lost, rows - won, losses) for lost in beside)
        chance += binomial_chance(won, rows, wins) * share
    assert chance <= GAIN_LEVEL


def likely(trials: int, share: float) -> range:
    reach = 5 * math.sqrt(trials * share * (1 - share)) + bool(share)
    return range(max(0, int(trials * share - reach)), min(trials, int(trials * share + reach)) + 1)


def binomial_chance(events: int, trials: int, share: float) -> float:
    if not share:
        return float(not events)
    ways = math.lgamma(trials + 1) - math.lgamma(events + 1) - math.lgamma(trials - events + 1)
    return math.exp(ways + events * math.log(share) + (trials - events) * math.log1p(-share))


def most_proven(rows: int, won: int, loss_max: float) -> int:
    """Returns with how many losses beside so many wins the bound is proven; -1 where with none."""
    gains, low, high = np.zeros(rows), -1, rows - won
    while low < high:
        tried = (low + high + 1) // 2
        lost = np.r_[np.full(won, -1.0), np.ones(tried), np.zeros(rows - won - tried)]
        low, high = (tried, high) if proven_gain(gains, lost, loss_max) is not None else (low, tried - 1)
    return low


def test_what_is_not_proven_is_asked() -> None:
    assert Escalation().asks(-1.0)
    assert fit_escalation(np.zeros(0), np.zeros(0), np.zeros(0), 0.02).asks(0.0)
    assert fit_escalation(np.full(50, 0.5), np.zeros(50), np.ones(50), 0.02).asks(0.1)


def test_gains_are_held_to_the_prior_without_data_to_say_otherwise() -> None:
    drawn = np.random.default_rng(4)
    estimates = drawn.normal(size=(20_000, 2))
    fitted = fit_gains(estimates, estimates @ [0.5, -0.2] + 0.1, (0.0, 1.0, 0.0))
    assert fitted.weights == pytest.approx((0.1, 0.5, -0.2), abs=0.01)
    assert fit_gains(estimates[:0], np.zeros(0), (0.0, 1.0, 0.0)).weights == (0.0, 1.0, 0.0)


def test_neighbours_know_more_than_their_domain() -> None:
    vectors = np.repeat(np.eye(2, dtype=np.float32), 100, axis=0)
    right = np.repeat([1.0, 0.0], 100)
    near = Neighbours(["d"] * 200, vectors, right)
    easy, hard = near.shares(["d", "d"], np.eye(2, dtype=np.float32))[:, 0]
    assert easy > 0.6
    assert hard < 0.4
    assert near.shares(["unheard of"], np.eye(2, dtype=np.float32)[:1])[0, 0] > 0.6
    one = held_out_shares(["d"], vectors[:1], right[:1], [[0]])
    assert one.tolist() == [[1.0]]


def test_what_is_expected_of_a_question_does_not_know_its_own_outcome() -> None:
    vectors = np.eye(8, dtype=np.float32)
    right, folds = np.array([0.0, 1.0] * 4), [[0, 2, 4], [1, 3], [5, 6, 7]]
    before = held_out_shares(["d"] * 8, vectors, right, folds)
    right[2] = 1.0
    after = held_out_shares(["d"] * 8, vectors, right, folds)
    assert after[folds[0]].tolist() == before[folds[0]].tolist()
    assert (after[folds[1]] > before[folds[1]]).all()
