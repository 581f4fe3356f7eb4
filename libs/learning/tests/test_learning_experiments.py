"""Experiments: what two arms' outcomes prove, and how often that is wrong, looked at after every unit."""

from __future__ import annotations

import numpy as np
import pytest
from collegium_contracts.experiments import Guardrails
from collegium_learning.experiments import effects, looking, splitting
from collegium_learning.experiments.looking import Terms, Unit, Word
from collegium_learning.experiments.simulation import trials

TERMS = Terms(0.05, 0.02, Guardrails())


def units(count: int, seed: int, *, failing: float = 0.0, slower: float = 1.0, dearer: float = 1.0) -> list[Unit]:
    rng = np.random.default_rng(seed)
    found: list[Unit] = []
    for _ in range(count):
        given = bool(rng.random() < 0.5)
        took = float(rng.lognormal(6, 0.4)) * (slower if given else 1.0)
        cost = float(rng.lognormal(15, 0.5)) * (dearer if given else 1.0)
        found.append(Unit(given, bool(rng.random() < (failing if given else 0.01)), False, took, cost))
    return found


def words(count: int, control: float, candidate: float, seed: int) -> list[Word]:
    rng = np.random.default_rng(seed)
    given = rng.random(count) < 0.5
    right = rng.random(count) < np.where(given, candidate, control)
    return [Word(bool(one), float(word)) for one, word in zip(given, right, strict=True)]


def metric(found: looking.Found, name: str):
    return next(one for one in found.effects if one.metric == name)


def test_equal_arms_are_told_apart_as_seldom_as_promised_however_often_one_looks():
    found = trials(0.8, 0.8, runs=400, units_max=400, seed=3)
    assert found.better + found.worse <= 0.05
    assert found.rolled_back <= 0.01
    assert found.mismatched <= 0.01


def test_a_true_difference_is_found_and_a_harmful_candidate_is_taken_back():
    better = trials(0.6, 0.8, runs=60, units_max=800, seed=4)
    assert better.better >= 0.9
    assert better.worse == 0.0
    harmful = trials(0.9, 0.6, runs=60, units_max=600, seed=5)
    assert harmful.rolled_back >= 0.9


def test_an_interval_holds_the_truth_and_narrows():
    few = looking.look([], words(200, 0.7, 0.8, 1), TERMS)
    many = looking.look([], words(6_000, 0.7, 0.8, 1), TERMS)
    for found in (few, many):
        quality = metric(found, "quality")
        assert quality.low <= 0.1 <= quality.high
    assert metric(many, "quality").high - metric(many, "quality").low < 0.1
    assert many.verdict == "better"
    assert looking.look([], words(6_000, 0.8, 0.7, 1), TERMS).verdict == "worse"


def test_nothing_is_known_of_nothing():
    found = looking.look([], [], TERMS)
    assert found.verdict == "open"
    assert not found.breached
    assert (metric(found, "quality").low, metric(found, "quality").high) == (-1.0, 1.0)


def test_what_is_as_good_within_a_wide_margin_is_said_to_be():
    assert looking.look([], words(3_000, 0.9, 0.9, 2), Terms(0.05, 0.1, Guardrails())).verdict == "as_good"


@pytest.mark.parametrize(
    ("name", "changed"), [("errors", {"failing": 0.3}), ("slow", {"slower": 3.0}), ("cost", {"dearer": 4.0})]
)
def test_a_guardrail_is_breached_by_its_own_harm_alone(name: str, changed: dict[str, float]):
    assert [one.metric for one in looking.look(units(900, 6, **changed), [], TERMS).breached] == [name]
    assert not looking.look(units(900, 6, failing=0.01), [], TERMS).breached


def test_a_guardrail_above_one_is_off():
    assert not looking.look(units(900, 6, dearer=30.0), [], Terms(0.05, 0.02, Guardrails(cost=1.5))).breached


def test_a_breach_is_not_taken_back_by_what_comes_later():
    early = units(600, 7, failing=0.4)
    late = units(3_000, 8, failing=0.0)
    assert metric(looking.look([*early, *late], [], TERMS), "errors").breached


def test_an_uneven_split_spoils_the_verdict():
    told = words(2_000, 0.5, 0.9, 9)
    lost = [Unit(one.is_candidate, False, False, 1.0, 1.0) for one in told if one.is_candidate or one.score]
    found = looking.look(lost, told, TERMS)
    assert found.is_mismatched
    assert found.verdict == "open"
    assert splitting.log_evidence(500, 500) < 0


def test_evidence_depends_on_no_later_outcome():
    some = words(50, 0.5, 0.5, 10)
    scores = np.array([one.score for one in some])
    given = np.array([one.is_candidate for one in some])
    whole = effects.paths(effects.differences(scores, given), 0.0)
    part = effects.paths(effects.differences(scores[:20], given[:20]), 0.0)
    assert whole[:20] == pytest.approx(part)


def test_interleaved_answers_speak_by_who_was_right_where_they_differ():
    assert looking.interleaved(100, 60, 30, 5).odds > 100
    assert looking.interleaved(100, 60, 18, 17).odds < 1
