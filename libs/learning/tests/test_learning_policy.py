"""Confidence learned from settled answers: what is fitted holds on answers it never saw, and garbage is refused."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import msgspec
import pytest
from collegium_contracts.parts import Evidence, Said
from collegium_learning.confidence import Calibration
from collegium_learning.confidence.calibration import Curve
from collegium_learning.confidence.cases import Case, stated_confidence
from collegium_learning.confidence.fitting import LABELS_MIN, fit_policy, shares_of
from collegium_learning.confidence.learning import expected_calibration_error
from collegium_learning.confidence.policy import (
    EVERYWHERE,
    ConfidencePolicy,
    PolicyError,
    Promise,
    decode_policy,
    encode_policy,
)
from hypothesis import given
from hypothesis import strategies as st

RIGHT = {"a": 0.9, "b": 0.7, "c": 0.5}


def school(rows: int, seed: int, *, judged: float = 1.0, domain: str = "sums", shift: float = 0.0) -> list[Case]:
    """Panels of three whose members are right as often as RIGHT says, and wrong in one of nine ways each."""
    drawn = random.Random(seed)
    cases: list[Case] = []
    for _ in range(rows):
        keys = {
            name: "yes" if drawn.random() < share + shift else f"no{drawn.randrange(9)}"
            for name, share in RIGHT.items()
        }
        camps: dict[str, int] = {}
        for key in keys.values():
            camps.setdefault(key, len(camps) + 1)
        best = max(camps, key=lambda key: (sum(said == key for said in keys.values()), -camps[key]))
        said = [Said(model=name, rank="student", camp=camps[key]) for name, key in keys.items()]
        evidence = Evidence(answer_type="number", camp=camps[best], said=said, probability=0.5)
        right = best == "yes" if drawn.random() < judged else None
        cases.append(Case(domain, "cascade", evidence, right))
    return cases


def error_of(policy: ConfidencePolicy, cases: list[Case]) -> float:
    return expected_calibration_error(
        [stated_confidence(policy, case) for case in cases], [bool(case.right) for case in cases]
    )


def test_confidence_is_calibrated_on_answers_that_were_never_seen():
    policy = fit_policy(school(600, 1), 0.05)
    assert policy is not None
    assert error_of(policy, school(1_000, 2)) <= 0.06
    told = policy.measured[EVERYWHERE]
    assert (told.rows, told.error <= 0.08) == (600, True)
    assert abs(told.accuracy - sum(bool(case.right) for case in school(600, 1)) / 600) < 1e-3


def test_members_are_known_by_what_was_judged_and_by_how_they_agree():
    few = shares_of(school(2_000, 3, judged=0.02))
    for name, share in RIGHT.items():
        assert abs(few.right[EVERYWHERE][name] - share) < 0.12, few
    none = shares_of(school(2_000, 3, judged=0.0)).right[EVERYWHERE]
    assert none["a"] > none["b"] > none["c"]


def test_a_domain_in_which_they_err_is_known_as_such():
    policy = fit_policy([*school(400, 4), *school(400, 5, domain="law", shift=-0.4)], 0.05)
    assert policy is not None
    assert policy.right["law"]["a"] < 0.65 < policy.right["sums"]["a"]
    assert stated_confidence(policy, school(1, 6, domain="law")[0]) < stated_confidence(policy, school(1, 6)[0])


def test_a_cascade_stops_where_little_enough_is_lost_and_nowhere_where_that_is_not_proven():
    cases = school(900, 7)
    lax, strict = fit_policy(cases, 0.10), fit_policy(cases, 0.001)
    assert lax is not None
    assert strict is not None
    threshold = lax.threshold("sums")
    assert threshold is not None
    kept = 0
    for seed in range(20):
        fresh = school(900, 100 + seed)
        lost = sum(1 for case in fresh if stated_confidence(lax, case) >= threshold and not case.right)
        kept += lost / len(fresh) <= 0.10
    assert kept >= 19
    assert strict.threshold("sums") is None


def test_too_little_teaches_nothing_and_the_same_teaches_the_same():
    assert fit_policy([], 0.02) is None
    assert fit_policy(school(500, 8, judged=0.0), 0.02) is None
    assert fit_policy(school(LABELS_MIN - 1, 8), 0.02) is None
    assert fit_policy(school(200, 8), 0.02) == fit_policy(school(200, 8), 0.02)


def test_answers_of_one_model_teach_how_often_it_is_right_and_no_curve():
    alone = Evidence(answer_type="text", camp=1, said=[Said(model="a", rank="student", camp=1)], probability=1.0)
    policy = fit_policy([Case("sums", "single", alone, place % 10 < 7) for place in range(100)], 0.02)
    assert policy is not None
    assert abs(policy.right["sums"]["a"] - 0.7) < 0.05
    assert policy.calibration == Calibration()
    assert policy.measured == {}


def test_a_policy_reads_back_and_the_log_probabilities_of_an_answer_count():
    policy = fit_policy(school(300, 9), 0.05)
    assert policy is not None
    assert decode_policy(encode_policy(policy)) == policy
    drawn = random.Random(10)
    cases = []
    for _ in range(600):
        right = drawn.random() < 0.5
        said = Said(model="a", rank="student", camp=1, logprob=-0.1 if right == (drawn.random() < 0.8) else -1.5)
        cases.append(Case("", "cascade", Evidence(answer_type="text", camp=1, said=[said], probability=0.5), right))
    taught = fit_policy(cases, 0.05)
    assert taught is not None
    sure = {case.evidence.said[0].logprob: stated_confidence(taught, case) for case in cases}
    assert sure[-0.1] > 0.65
    assert sure[-1.5] < 0.35


GOOD = ConfidencePolicy(Calibration())


@pytest.mark.parametrize(
    "fields",
    [
        {"unknown": float("nan")},
        {"unknown": 1.5},
        {"right": {"": {"a": -0.1}}},
        {"promises": {"": Promise(2.0, 0.02, 0.05)}},
        {"calibration": Calibration(Curve(bias=float("inf")))},
        {"calibration": Calibration(domains={"x": Curve(weights={"agreement": float("nan")})})},
        {"calibration": Calibration(Curve(steps=((0.5, 0.5), (0.4, 0.6))))},
        {"calibration": Calibration(Curve(steps=((0.5, 0.5), (0.6, 0.4))))},
        {"calibration": Calibration(Curve(steps=((0.5, 1.5),)))},
    ],
)
def test_a_policy_with_numbers_that_cannot_be_applied_is_refused(fields: dict[str, Any]):
    with pytest.raises(PolicyError):
        decode_policy(encode_policy(msgspec.structs.replace(GOOD, **fields)))


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_else_is_raised(payload: bytes):
    with contextlib.suppress(PolicyError):
        decode_policy(payload)
