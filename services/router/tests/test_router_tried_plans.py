"""Experiments and flags whose arms are plans: who takes part, what each arm makes, and what its attempts say."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from collegium_contracts.codec import encode
from collegium_contracts.experiments import NOTHING, Change, ExperimentSet, Running, RunningFlag, set_key
from collegium_contracts.openplans import opened
from collegium_contracts.routing import Route
from collegium_contracts.trials import assigned, plans_of
from collegium_router.choosing.members import decide
from collegium_router.choosing.opening import given
from collegium_router.choosing.plan import Fleet, Planned
from collegium_router.choosing.policies import Aims, Policies
from collegium_router.choosing.trials import Trials
from collegium_router.roster.fleet_models import Models

NOW_MS = 1_767_225_600_000
PANEL, CASCADE = Change(plan="panel", members=3), Change(plan="cascade")


def running(candidate: Change = PANEL, control: Change = NOTHING, **fields: Any) -> Running:
    return Running(**({"id": "exp_1", "kind": "plan", "control": control, "candidate": candidate} | fields))


def sets(*experiments: Running, tenant: str = "acme", **fields: Any) -> ExperimentSet:
    return ExperimentSet(tenant=tenant, version=1, at_ms=1, experiments=list(experiments), **fields)


@pytest.fixture
def models(model):
    return [model("large", rank="teacher"), model("middle", rank="ta"), model("small", rank="student")]


class Novel(Policies):
    """Policies to which every question is novel."""

    def order(self, submitted, models, seen, now_ms, *, predictor=None):
        best = models[0]
        return models, Route(model=best.name, rank=best.rank, policy_version=1, reasons=["novel"])


def planned(submitted, models, known: ExperimentSet, policies: Policies | None = None) -> Planned:
    by = Trials(policies or Policies(Aims()))
    by.use(set_key(known.tenant), encode(known))
    order = lambda one, among: by._policies.order(one, among, None, NOW_MS)  # noqa: E731
    trying = by.trying(lambda _task: None, NOW_MS)
    found = decide(submitted, Fleet(Models(models), {}, {}, lambda *_: True, NOW_MS, None, order, trying))
    assert isinstance(found, Planned), found
    return found


def tasks(submission, count: int, plans=("single", "panel"), members: int = 3):
    for number in range(count):
        one = submission(id=f"tsk_{number}")
        yield opened(one, plans, members) if plans else one


def test_half_of_the_units_get_a_panel_and_each_of_its_attempts_says_in_which_arm(models, submission):
    found = [planned(one, models, sets(running())) for one in tasks(submission, 200)]
    arms = Counter((one.plan, one.reason) for one in found)
    assert set(arms) == {("single", ""), ("panel", "experiment")}
    assert 70 <= arms["panel", "experiment"] <= 130
    for one in found:
        told = one.routes or (one.route,)
        assert {route.trial.arm for route in told} == {"candidate" if one.plan == "panel" else "control"}
    panel = next(one for one in found if one.plan == "panel")
    assert ([one.model for one in panel.attempts], panel.of) == (["large", "small"], 3)
    assert panel.routes[0].reasons == ["member", "experiment"]


def test_only_tasks_that_are_held_for_all_that_is_tried_take_part(submission):
    known = {"acme": sets(running(PANEL, CASCADE))}
    for plans in ((), ("single", "panel"), ("cascade",)):
        assert not any(assigned(one.task, known) for one in tasks(submission, 20, plans))
    assert all(assigned(one.task, known) for one in tasks(submission, 20, ("single", "cascade", "panel")))
    assert plans_of(submission().task, known) == (["cascade", "panel"], 3)
    assert plans_of(submission(plan="panel").task, known) == ([], 0)
    assert plans_of(submission().task, {"acme": sets(running(), killed=True)}) == ([], 0)
    assert plans_of(submission().task, {"": sets(running(tenant="globex"), tenant="")}) == ([], 0)


def test_a_panel_is_no_larger_than_what_is_held(models, submission):
    large = sets(running(Change(plan="panel", members=9)))
    found = [planned(one, models, large) for one in tasks(submission, 20, members=2)]
    assert {one.of for one in found if one.plan == "panel"} == {2}


def test_arms_of_other_kinds_stay_of_one_attempt_and_what_is_as_ever_does_not(models, submission):
    novel = Novel(Aims())
    other = sets(running(Change(model="small"), kind="model"))
    assert {planned(one, models, other, novel).plan for one in tasks(submission, 20, ("panel",))} == {"single"}
    held_out = sets(running(Change(model="small"), kind="model"), holdout=1.0)
    assert {planned(one, models, held_out, novel).plan for one in tasks(submission, 20, ("panel",))} == {"panel"}
    # A novel question of the control is what it would be without the experiment, and counts in its arm.
    control = running(CASCADE, NOTHING)
    found = [planned(one, models, sets(control), novel) for one in tasks(submission, 40, ("panel", "cascade"))]
    assert {(one.plan, one.routes[0].trial.arm, one.reason) for one in found} == {
        ("panel", "control", "novel"), ("cascade", "candidate", "experiment"),
    }  # fmt: skip
    single = running(PANEL, Change(plan="single"))
    found = [planned(one, models, sets(single), novel) for one in tasks(submission, 40, ("panel",))]
    assert {(one.plan, (one.routes or (one.route,))[0].trial.arm) for one in found} == {
        ("single", "control"), ("panel", "candidate"),
    }  # fmt: skip


def test_a_flag_gives_a_plan_and_a_lone_model_makes_no_panel(models, submission):
    flag = RunningFlag(name="panels", kind="plan", change=PANEL)
    known = ExperimentSet(tenant="acme", version=1, at_ms=1, flags=[flag])
    found = planned(next(tasks(submission, 1)), models, known)
    assert (found.plan, found.reason, found.routes[0].trial.arm) == ("panel", "flag", "flag")
    task = given(next(tasks(submission, 1)), found).task
    assert (task.plan, task.plan_reason, task.open_to) == ("panel", "flag", [])
    alone = [planned(one, models[:1], sets(running())) for one in tasks(submission, 20)]
    assert {(one.plan, one.route.trial) for one in alone} == {("single", None)}, "neither arm could do the other's"
