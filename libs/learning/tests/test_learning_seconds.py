"""Second answers: what they tell of differences, how unsure that is, and who is tried because of it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from collegium_contracts.policies import RoutingPolicy
from collegium_learning.routing.choosing import Candidate, Draw, Wants, decide
from collegium_learning.routing.fitting import Shape, fit_shape
from collegium_learning.routing.lessons import Lessons
from collegium_learning.routing.predicting import Predictor
from collegium_learning.routing.seconds import Second, completed
from collegium_learning.routing.trying import RISK, caution, in_play, trials

MODELS = ("cheap", "dear")
MERIT = (1.0, 0.0)
COSTS = {"cheap": 1.0, "dear": 10.0}
CANDIDATES = [Candidate("cheap", "student", 1.0), Candidate("dear", "teacher", 10.0)]
BLANK = RoutingPolicy(version=1, tenant="acme", created_at_ms=0, models=[], everywhere=[], tolerance=0.04)


def lessons(words: np.ndarray) -> Lessons:
    count = len(words)
    nothing = np.full(words.shape, np.nan)
    rows = np.zeros((count, 1), np.float32)
    return Lessons(MODELS, ("",) * count, rows, np.zeros(count, bool), words, nothing, nothing)


def world(seed: int, count: int, *, worse: float, told: float = 0.3, lower_served: float = 0.0):
    """Both are right in most questions; of those in which they differ the dear one is right more often by ``worse``."""
    drawn = np.random.default_rng(seed)
    differ = drawn.random(count) < 0.12
    right = drawn.random(count) < 0.85
    who = drawn.random(count) < 0.5 + worse / 0.24
    truth = np.column_stack([np.where(differ, ~who, right), np.where(differ, who, right)]).astype(float)
    served = np.where(drawn.random(count) < lower_served, 0, 1)
    words = np.full((count, 2), np.nan)
    heard = drawn.random(count) < told
    words[heard, served[heard]] = truth[heard, served[heard]]
    seconds = [Second(at, int(served[at]), int(1 - served[at]), not differ[at]) for at in range(count)]
    return lessons(words), seconds, truth


def policy_of(known: Lessons) -> RoutingPolicy:
    return fit_shape(known, Shape(shrink=100.0), 1, BLANK)


def test_who_says_the_same_is_worth_the_same_whoever_is_judged():
    words = np.array([[np.nan, 1.0], [np.nan, 0.0], [np.nan, np.nan]])
    filled = completed(lessons(words), [Second(at, 1, 0, True) for at in range(3)], MERIT, 1)
    assert filled.scores[:, 0].tolist() == filled.scores[:, 1].tolist()
    assert filled.scores[:2, 0].tolist() == [1.0, 0.0]
    assert filled.told is not None
    assert filled.told.tolist() == [[False, True], [False, True], [False, False]]


def test_of_two_that_differ_only_one_is_right():
    words = np.array([[np.nan, 1.0], [0.0, np.nan], [1.0, np.nan]])
    filled = completed(
        lessons(words), [Second(0, 1, 0, False), Second(1, 0, 1, False), Second(2, 0, 1, False)], MERIT, 1
    )
    assert filled.scores[0, 0] == pytest.approx(0.0)
    assert filled.scores[2, 1] == pytest.approx(0.0)
    # Where who answered was wrong the other one was perhaps right, and perhaps not.
    assert 0.0 < filled.scores[1, 1] < 1.0


def test_a_word_of_its_own_is_not_overwritten():
    words = np.array([[0.4, 1.0]])
    assert completed(lessons(words), [Second(0, 1, 0, False)], MERIT, 1).scores.tolist() == [[0.4, 1.0]]


@pytest.mark.parametrize("worse", [0.0, 0.06])
def test_the_difference_is_found_and_its_doubt_is_true_to_size(worse):
    errors, doubts = [], []
    for seed in range(60):
        words, seconds, truth = world(seed, 300, worse=worse, lower_served=0.2)
        filled = completed(words, seconds, MERIT, 1)
        assert filled.beside is not None
        gain = float((filled.scores[:, 1] - filled.scores[:, 0]).mean())
        errors.append(gain - float((truth[:, 1] - truth[:, 0]).mean()))
        doubts.append(filled.beside.sd[0])
    assert abs(np.mean(errors)) < 0.02
    # The prior holds the estimates together, so that they err less than they say, but not more.
    assert np.std(errors) < np.mean(doubts) < 0.06


def test_second_answers_tell_much_more_than_words_alone():
    words, seconds, _ = world(1, 300, worse=0.0, lower_served=0.1)
    alone = policy_of(words).everywhere
    beside = completed(words, seconds, MERIT, 1).beside
    assert beside is not None
    assert beside.sd[0] < 0.5 * np.hypot(alone[0].sd, alone[1].sd)


def test_an_equal_cheaper_one_is_preferred_and_a_worse_one_is_not():
    def preferred(worse: float) -> float:
        times = 0
        for seed in range(20):
            words, seconds, _ = world(seed, 600, worse=worse, lower_served=0.15)
            standing = policy_of(completed(words, seconds, MERIT, 1))
            predictor = Predictor(standing)
            choice = decide(predictor, predictor.expect("", None), CANDIDATES, Wants(), Draw(1.0, 0.0))
            times += choice.order[0] == "cheap"
        return times / 20

    assert preferred(0.0) >= 0.7
    assert preferred(0.12) <= 0.05


def test_trials_are_given_to_who_may_be_good_enough_and_may_lose_little():
    words, seconds, _ = world(3, 60, worse=0.03)
    known = completed(words, seconds, MERIT, 1)
    standing = policy_of(known)
    assert known.beside is not None
    assert in_play(standing, known.beside, COSTS) == ["cheap"]
    found = trials(standing, known.beside, COSTS, 0.2)
    gain = standing.everywhere[1].mean - standing.everywhere[0].mean
    assert list(found) == ["cheap"]
    assert 0.0 < found["cheap"] * gain <= RISK
    assert trials(standing, known.beside, COSTS, 0.0) == {}
    # Who saves next to nothing is not tried, and who is gone is not either.
    assert trials(standing, known.beside, {"cheap": 9.5, "dear": 10.0}, 0.2) == {}
    assert trials(standing, known.beside, {"dear": 10.0}, 0.2) == {}


def test_who_is_surely_much_worse_is_neither_tried_nor_in_play():
    words, seconds, _ = world(4, 400, worse=0.12, lower_served=0.1)
    known = completed(words, seconds, MERIT, 1)
    assert known.beside is not None
    standing = policy_of(known)
    assert in_play(standing, known.beside, COSTS) == []
    assert trials(standing, known.beside, COSTS, 0.2) == {}


def test_a_trial_is_drawn_as_often_as_it_says_and_only_for_who_costs_less():
    words, seconds, _ = world(3, 60, worse=0.03)
    standing = msgspec.structs.replace(
        policy_of(completed(words, seconds, MERIT, 1)), tolerance=0.0, trials={"cheap": 0.1, "dear": 0.1}
    )
    predictor = Predictor(standing)
    expected = predictor.expect("", None)
    numbers = (np.arange(2_000) + 0.5) / 2_000
    drawn = [decide(predictor, expected, CANDIDATES, Wants(), Draw(float(one), 0.02)) for one in numbers]
    tried = [choice for choice in drawn if choice.order[0] == "cheap"]
    assert len(tried) / 2_000 == pytest.approx(0.11, abs=0.002)
    assert {round(choice.propensity, 6) for choice in tried} == {0.11}
    assert sum("trial" in choice.reasons for choice in tried) / 2_000 == pytest.approx(0.1, abs=0.002)
    assert not any("trial" in choice.reasons for choice in drawn if choice.order[0] == "dear")


def test_more_candidates_ask_for_more_caution():
    assert caution(0) == caution(1) == pytest.approx(0.67, abs=0.01)
    assert caution(1) < caution(2) < caution(8) < 2.0
