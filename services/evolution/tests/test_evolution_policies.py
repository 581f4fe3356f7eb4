"""Policies in evolution: what events tell of choices, what is learned of a tenant, and what does not go live."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.messages import Feedback
from collegium_contracts.policies import OPERATOR, Cell, RoutingPolicy
from collegium_contracts.routing import FEATURES_PURPOSE, Route
from collegium_evolution.policies import fitting
from collegium_evolution.policies.decided import Decided, decided_in
from collegium_evolution.policies.decided_store import Judged, TenantMean
from collegium_evolution.policies.fitting import Priced, next_policy, operators_policy
from collegium_evolution.policies.gathering import Gathered, gathered
from collegium_evolution.policies.views import row_of
from collegium_learning.routing.choosing import Candidate, Draw, Wants, decide
from collegium_learning.routing.features import TRAITS, pack
from collegium_learning.routing.features import row_of as packed_row
from collegium_learning.routing.lessons import Lessons
from collegium_learning.routing.predicting import Predictor

ROSTER = {"large": Priced("teacher", 10.0), "small": Priced("student", 1.0)}
BLANK = RoutingPolicy(version=5, tenant="acme", created_at_ms=7, models=[], everywhere=[])
ROUTE = Route(
    model="m",
    rank="student",
    policy_version=4,
    propensity=0.015,
    explored=True,
    candidates=["m", "n"],
    embedder="mini",
    features=Envelope("k", b"n", b"row"),
)


def test_a_settled_plan_of_one_tells_how_its_answer_was_chosen(make: Any):
    task = make.task("1", domain="law\x00")
    settled = msgspec.structs.replace(make.settled(task, [make.call(cost=9)]), route=ROUTE)
    found = decided_in(settled)
    assert (found.tenant, found.task_id, found.model, found.domain) == ("acme", task.id, "m", "law")
    assert (found.cost_picos, found.policy_version, found.propensity, found.explored) == (9, 4, 0.015, True)
    assert (found.candidates, found.embedder, found.features) == (("m", "n"), "mini", ROUTE.features)


def test_a_head_that_answers_alone_is_told_of_though_it_is_sure(make: Any):
    settled = msgspec.structs.replace(make.settled(make.task("1"), [make.call(model="head.acme.x")]), confidence=0.97)
    assert decided_in(settled).model == "head.acme.x"
    assert decided_in(msgspec.structs.replace(settled, plan="cascade")) is None
    assert decided_in(msgspec.structs.replace(settled, plan="auto")) is None


def test_a_member_of_a_larger_plan_is_told_of_by_its_own_end(make: Any):
    task = make.task("1")
    call = make.call(2)
    assert decided_in(make.ended(task, call)).number == 2
    several = msgspec.structs.replace(make.settled(task, [call]), plan="panel", confidence=0.9)
    assert decided_in(several) is None
    assert decided_in(make.ended(task, make.call(2, error_code="upstream_error"))) is None


@pytest.mark.parametrize(
    "route", [None, msgspec.structs.replace(ROUTE, model="n"), msgspec.structs.replace(ROUTE, propensity=0.0)]
)
def test_what_nobody_drew_is_an_outcome_and_no_logged_choice(make: Any, route: Route | None):
    settled = msgspec.structs.replace(make.settled(make.task("1"), [make.call()]), route=route)
    found = decided_in(settled)
    assert (found.model, found.propensity, found.candidates) == ("m", 0.0, ())


def judged(
    count: int, *, quality: dict[str, float], seed: int = 1, explored: float = 0.2, domain: str = "law"
) -> list[Judged]:
    """Answers of a policy that prefers the large one and gives a share away to learn, with words about them."""
    drawn = random.Random(seed)
    found: list[Judged] = []
    for number in range(count):
        draws = drawn.random() < explored
        model = drawn.choice(["large", "small"]) if draws else "large"
        propensity = explored / 2 + (1 - explored) * (model == "large")
        of = Decided(
            "acme", f"tsk_{number}", 1, model, ROSTER[model].rank, domain, number, 5, 100, 1, propensity, draws,
            ("large", "small"),
        )  # fmt: skip
        found.append(Judged(of, float(drawn.random() < quality[model]), number))
    return found


async def fitted(of: list[Judged], standing: RoutingPolicy | None = None) -> fitting.Verdict:
    return next_policy(await gathered(IdentityKeyring(), "acme", of), ROSTER, standing, BLANK, 1)


async def test_a_policy_is_learned_compared_and_shown_without_its_weights():
    verdict = await fitted(judged(600, quality={"large": 0.9, "small": 0.9}))
    assert verdict.is_live
    assert verdict.policy.models == ["large", "small"]
    assert verdict.policy.domains["law"][1].mean > 0.8
    assert verdict.compared.rows == 600
    low, high = verdict.compared.robust[1:]
    assert low < 0.93
    assert high > 0.87
    row = row_of(verdict.policy, "live", verdict.why, compared=verdict.compared)
    assert {one.model for one in row.domains["law"]} == {"large", "small"}
    assert not any(isinstance(value, bytes) for value in msgspec.to_builtins(row).values())


async def test_what_logged_choices_speak_against_does_not_go_live(monkeypatch: pytest.MonkeyPatch):
    # Nothing was seen of the small one lately but by draws; a policy that would trust it all the same is refused.
    of = judged(800, quality={"large": 0.95, "small": 0.3})
    trusting = RoutingPolicy(version=6, tenant="acme", created_at_ms=7, models=["large", "small"],
                             everywhere=[Cell(100, 0.5, 0.01), Cell(100, 0.99, 0.01)])  # fmt: skip
    real = fitting.fit

    def credulous(*args: Any, **fields: Any) -> Any:
        return real(*args, **fields)._replace(policy=trusting)

    monkeypatch.setattr(fitting, "fit", credulous)
    verdict = await fitted(of)
    assert not verdict.is_live
    assert "would have lost" in verdict.why
    assert verdict.compared.gained[2] < 0


async def test_few_logged_choices_decide_nothing():
    verdict = await fitted(judged(30, quality={"large": 0.9, "small": 0.1}))
    assert (verdict.is_live, verdict.compared) == (True, None)


async def test_features_are_opened_where_they_can_be_and_left_out_otherwise():
    keyring = IdentityKeyring()
    row = packed_row(np.ones(8, np.float32), np.zeros(len(TRAITS), np.float32))
    sealed = keyring.seal("acme", pack(row), FEATURES_PURPOSE)
    of = judged(4, quality={"large": 1.0, "small": 1.0})
    seen = [
        one._replace(of=one.of._replace(embedder=embedder, features=features))
        for one, (embedder, features) in zip(
            of,
            [
                ("old", sealed),
                ("mini", Envelope("gone", b"", b"")),
                ("mini", Envelope("identity", b"", b"?")),
                ("mini", sealed),
            ],
            strict=True,
        )
    ]
    found = await gathered(keyring, "acme", seen)
    assert found.embedder == "mini"
    assert found.lessons.has_row.tolist() == [False, False, False, True]
    assert found.lessons.rows.shape == (4, len(row))


def means(tenants: int, **quality: float) -> list[TenantMean]:
    return [
        TenantMean(f"t{number}", model, 50, mean, 9.0, 1.0)
        for number in range(tenants)
        for model, mean in quality.items()
    ]


def test_what_all_tenants_share_is_a_median_that_one_of_them_cannot_move():
    assert operators_policy(means(2, large=0.9), BLANK) is None
    honest = operators_policy(means(5, large=0.9, small=0.4), BLANK)
    assert (honest.tenant, honest.family, honest.domains, honest.bank) == (OPERATOR, "mean", {}, b"")
    poisoned = operators_policy(
        [*means(5, large=0.9, small=0.4), TenantMean("bad", "small", 10**6, 1.0, 9.0, 1.0)], BLANK
    )
    assert poisoned.everywhere[1].mean == pytest.approx(0.4)
    assert operators_policy([TenantMean(f"t{number}", "large", 3, 1.0, 9.0, 1.0) for number in range(9)], BLANK) is None


def test_feedback_tells_of_no_choice(make: Any):
    word = Feedback(id="f", task=make.task("1"), source="client", score=1.0, at_ms=1, model="m")
    assert decided_in(word) is None


def test_shadows_make_a_cheaper_model_preferred_and_those_not_known_well_are_tried():
    drawn = random.Random(3)
    judged = []
    for number in range(400):
        word = float(drawn.random() < 0.9) if drawn.random() < 0.3 else None
        of = Decided("acme", f"t{number}", 1, "large", "teacher", "law", number, 1, 1)
        judged.append(Judged(of, word, 1, (("small", drawn.random() < 0.99),)))

    def made(count: int) -> RoutingPolicy:
        scores = np.array([[np.nan if one.score is None else one.score] for one in judged[:count]])
        nothing = np.full(scores.shape, np.nan)
        no_rows = np.zeros((count, 1), np.float32), np.zeros(count, bool)
        both = np.hstack([scores, nothing])
        lessons = Lessons(("large", "small"), ("law",) * count, *no_rows, both, both * np.nan, both * np.nan)
        return next_policy(Gathered(lessons, judged[:count], ""), ROSTER, None, BLANK, 1, 0.2).policy

    few, many = made(30), made(400)
    assert few.reference == many.reference == "large"
    assert few.in_play == ["small"]
    assert 0.0 < few.trials["small"] <= 0.2
    predictor = Predictor(many)
    candidates = [Candidate(name, one.rank, one.cost_usd) for name, one in ROSTER.items()]
    choice = decide(predictor, predictor.expect("law", None), candidates, Wants(), Draw(1.0, 0.0))
    assert choice.order[0] == "small"
    assert many.trials == {}
