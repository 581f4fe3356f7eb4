"""Policies in the router: the last good one of each tenant, who is asked by it, and what is told of why."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.money import Price
from collegium_contracts.policies import OPERATOR, Cell, RoutingPolicy, routing_key
from collegium_contracts.routing import Route
from collegium_contracts.state import Scoreboard
from collegium_learning.routing.predicting import Predictor
from collegium_learning.routing.spending import Target
from collegium_router.choosing.plan import Busy, Fleet, Planned, make_plan, plan_again
from collegium_router.choosing.policies import Aims, Policies, drawn
from collegium_router.choosing.seen import Seen
from collegium_router.roster.fleet_models import Models

NOW_MS = 1_767_225_600_000
SEALED = Envelope("k", b"n", b"row")


def policy(
    tenant: str = "acme", *, version: int = 3, small: float = 0.9, large: float = 0.91, **fields: Any
) -> RoutingPolicy:
    cells = [Cell(100, large, 0.01), Cell(100, small, 0.01)]
    return RoutingPolicy(
        version=version, tenant=tenant, created_at_ms=0, models=["large", "small"], everywhere=cells, **fields
    )


@pytest.fixture
def models(model):
    dear = Price(input_picos=90, output_picos=90)
    return [model("large", rank="teacher", price=dear), model("small", rank="student")]


def policies(*standing: RoutingPolicy, **aims: Any) -> Policies:
    found = Policies(Aims(**aims))
    for one in standing:
        found.use(routing_key(one.tenant), encode(one))
    return found


def fleet(models, by: Policies | None, *, open_until_ms=None, full=(), seen: Seen | None = None) -> Fleet:
    route = None
    if by is not None:
        route = lambda submitted, among: by.order(submitted, among, seen, NOW_MS)  # noqa: E731
    return Fleet(
        Models(models),
        {},
        open_until_ms or {},
        lambda one, _pool: one.name not in full,
        NOW_MS,
        None,
        route,
    )


def planned(submitted, models, by: Policies | None, **more: Any) -> tuple[str, Route | None]:
    found = make_plan(submitted, fleet(models, by, **more))
    assert isinstance(found, Planned), found
    assert found.route is None or found.route.model == found.attempts[0].model
    return found.attempts[0].model, found.route


def test_auto_goes_by_its_tenants_policy_and_says_so(models, submission):
    who, why = planned(submission(domain="law"), models, policies(policy()))
    assert who == "small"
    assert why == Route(
        model="small",
        rank="student",
        domain="law",
        policy_version=3,
        policy_of="tenant",
        reasons=["good_enough"],
        quality=0.9,
        gain=0.01,
        candidates=["large", "small"],
    )


def test_without_a_policy_it_is_as_before_and_a_named_model_has_no_route(models, submission):
    for by in (None, policies(), policies(policy("other"))):
        assert planned(submission(), models, by)[0] == "large"
    why = planned(submission(), models, policies())[1]
    assert (why.reasons, why.policy_version, why.propensity) == (["no_policy"], 0, 1.0)
    assert planned(submission("large"), models, policies(policy())) == ("large", None)


def test_models_of_equal_merit_still_share_the_work_where_there_is_no_policy(models, submission):
    twin = msgspec.structs.replace(models[0], name="twin")
    busy = fleet([*models, twin], policies())._replace(outstanding={"large": 3})
    found = make_plan(submission(), busy)
    assert (found.attempts[0].model, found.route.model, found.route.reasons) == ("twin", "twin", ["no_policy"])


def test_a_tenant_without_its_own_goes_by_the_operators_unless_it_wants_none(models, submission):
    shared = policy(OPERATOR)
    assert planned(submission(), models, policies(shared))[1].policy_of == "operator"
    own = policies(shared, policy(small=0.1))
    assert planned(submission(), models, own)[0] == "large"
    none = msgspec.structs.replace(policy(), models=[], everywhere=[])
    assert planned(submission(), models, policies(shared, none))[1].reasons == ["no_policy"]


GARBAGE = {
    "no message": b"\xff\x00",
    "another message": encode(Scoreboard(folded_sequence=1, at_ms=1, scores=[])),
    "another tenant's": encode(policy("other")),
    "of a later layout": encode(policy(version=9, layout=9)),
    "with cells that do not fit": encode(policy(version=9, domains={"x": []})),
    "with weights that are none": encode(policy(version=9, linear=b"abc")),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_in_the_bucket_leaves_the_last_good_one(what, models, submission):
    by = policies(policy())
    by.use(routing_key("acme"), GARBAGE[what])
    assert by.refused == 1
    assert planned(submission(), models, by)[1].policy_version == 3
    by.use(s.SCOREBOARD_KEY, b"whatever")
    assert by.refused == 1
    by.use(routing_key("acme"), encode(policy(version=4)))
    assert planned(submission(), models, by)[1].policy_version == 4


def test_what_stands_is_read_once_a_revision():
    by = policies()
    for _ in range(2):
        by.use(routing_key("acme"), b"\xff", 7)
    assert by.refused == 1
    by.use(routing_key("acme"), encode(policy()), 8)
    first = by._predictors["acme"]
    by.use(routing_key("acme"), encode(policy()), 8)
    assert by._predictors["acme"] is first
    by.use(routing_key("acme"), encode(policy(version=4)), 9)
    assert by._predictors["acme"].policy.version == 4


@pytest.mark.parametrize("error", [ValueError("shapes"), FloatingPointError("overflow")])
def test_a_policy_that_fails_on_a_question_is_none_for_it(error, models, submission, monkeypatch):
    def failing(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(Predictor, "expect", failing)
    who, why = planned(submission(), models, policies(policy()))
    assert (who, why.reasons, why.policy_version) == ("large", ["no_policy"], 0)


def test_a_deleted_policy_is_forgotten_and_the_operators_holds_again(models, submission):
    by = policies(policy(OPERATOR), policy(version=7))
    by.forget(s.SCOREBOARD_KEY)
    assert planned(submission(), models, by)[1].policy_of == "tenant"
    by.forget(routing_key("acme"))
    assert (by.count, planned(submission(), models, by)[1].policy_of) == (1, "operator")
    by.forget(routing_key("acme"))
    by.forget(routing_key(OPERATOR))
    assert planned(submission(), models, by)[1].reasons == ["no_policy"]


def test_who_cannot_be_asked_is_told_and_no_draw_of_anybodys(models, submission):
    who, why = planned(submission(), models, policies(policy()), open_until_ms={"small": NOW_MS + 1})
    assert who == "large"
    assert (why.reasons[0], why.propensity, why.quality) == ("not_available", 0.0, None)
    # A full one is waited for, as without a policy.
    assert isinstance(make_plan(submission(), fleet(models, policies(policy()), full=("small",))), Busy)


def test_another_try_on_another_model_says_so(models, again):
    more = again(model="small", failures=2)
    route = Route(model="small", rank="student", policy_version=3, policy_of="tenant", reasons=["good_enough"])
    more = msgspec.structs.replace(more, run=msgspec.structs.replace(more.run, route=route))
    error = TaskError(code="upstream_auth", message="refused")
    found = plan_again(more, error, fleet(models, None))
    assert (found.route.model, found.route.reasons) == ("large", ["another_try", "good_enough"])


def test_quality_floors_of_configuration_and_request(models, submission):
    standing = policy(small=0.8, large=0.95)
    assert planned(submission(), models, policies(standing))[0] == "large"
    assert planned(submission(), models, policies(standing, quality_floor=0.7))[0] == "small"
    who, why = planned(submission(quality_min=0.9), models, policies(standing, quality_floor=0.7))
    assert (who, why.reasons) == ("large", ["good_enough"])


def test_a_task_draws_the_same_whoever_asks_and_few_are_given_away(models, submission):
    by = policies(policy(), exploration=0.2)
    seen = {planned(submission(id=f"tsk_{number:026}"), models, by)[1].explored for number in range(60)}
    assert seen == {True, False}
    assert planned(submission(), models, by) == planned(submission(), models, by)
    numbers = [drawn(f"tsk_{number:026}") for number in range(2_000)]
    assert abs(np.mean(numbers) - 0.5) < 0.02
    assert abs(np.mean(np.array(numbers) < 0.03) - 0.03) < 0.012


def test_what_was_seen_travels_sealed_and_only_a_policy_that_knows_its_embedder_uses_it(models, submission):
    row = np.zeros(4, np.float32)
    linear = np.array([[0, 0, 0, 0, 0], [-0.5, 0, 0, 0, 0]], "<f4").tobytes()
    knowing = policy(family="full", linear=linear, stack=(1.0, 0.0), embedder="mini", embeds=True)
    by = policies(knowing)
    assert by.embeds("acme")
    assert not by.embeds("other")
    who, why = planned(submission(), models, by, seen=Seen("mini", row, SEALED))
    assert (who, why.features, why.embedder) == ("large", SEALED, "mini")
    who, why = planned(submission(), models, by, seen=Seen("another", row, SEALED))
    assert (who, why.reasons, why.features) == ("small", ["good_enough", "no_features"], SEALED)
    who, why = planned(submission(), models, by)
    assert (who, why.reasons[-1], why.features) == ("small", "no_features", None)


def test_shares_of_ranks_are_kept_over_tasks(models, submission):
    by = policies(policy(small=0.88, large=0.9), shares={"student": 0.2, "teacher": 0.8})
    times = 0
    for number in range(600):
        _, why = planned(submission(id=f"tsk_{number:026}"), models, by)
        by.chose("acme", why.rank)
        times += why.rank == "student"
    assert 0.1 < times / 600 < 0.35


def test_who_spent_more_than_was_to_be_is_given_cheaper_answers(models, submission):
    by = policies(policy(small=0.8), spend={"acme/default": Target(1_000_000, 86_400_000)})
    assert by.counts_spending
    assert planned(submission(), models, by)[0] == "large"
    by.spent("acme", "other", 10**9, NOW_MS)
    assert planned(submission(), models, by)[0] == "large"
    by.spent("acme", "default", 10**9, NOW_MS)
    who, why = planned(submission(), models, by)
    assert (who, why.reasons[0]) == ("small", "spending")
    by.aim(Aims())
    assert not by.counts_spending
    assert planned(submission(), models, by)[0] == "large"


def test_a_policy_tells_whom_shadows_are_asked_of():
    by = policies(policy(in_play=["small"]))
    assert (list(by.in_play("acme")), list(by.in_play("globex"))) == (["small"], [])
