"""Experiments and flags in the router: the same draw everywhere, symmetric arms, nothing where nothing runs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from collegium_contracts.codec import encode
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.experiments import NOTHING, Change, ExperimentSet, Running, RunningFlag, arm_key, set_key
from collegium_contracts.policies import Cell, RoutingPolicy
from collegium_contracts.trials import assigned, instruction_bytes, overlaps
from collegium_router.choosing.plan import Fleet, Planned, make_plan
from collegium_router.choosing.policies import Aims, Policies
from collegium_router.choosing.trials import Trials
from collegium_router.dispatching.settlement import expired, failed
from collegium_router.roster.fleet_models import Models

NOW_MS = 1_767_225_600_000
NONE = Cell(0, 0.0, 0.0)
TOLD = Envelope("k", b"n", b"be brief")
PROMPT = Change(instruction=TOLD, instruction_bytes=8, label="v2")


def running(**fields: Any) -> Running:
    return Running(
        **({"id": "exp_1", "kind": "model", "control": NOTHING, "candidate": Change(model="small")} | fields)
    )


def sets(*experiments: Running, tenant: str = "acme", **fields: Any) -> ExperimentSet:
    return ExperimentSet(tenant=tenant, version=1, at_ms=1, experiments=list(experiments), **fields)


def trials(*known: ExperimentSet) -> Trials:
    found = Trials(Policies(Aims()))
    for one in known:
        found.use(set_key(one.tenant), encode(one))
    return found


@pytest.fixture
def models(model):
    return [model("large", rank="teacher"), model("small", rank="student")]


def planned(submitted, models, by: Trials, full: tuple[str, ...] = ()) -> Planned:
    trying = by.trying(lambda _task: None, NOW_MS)
    order = lambda one, among: by._policies.order(one, among, None, NOW_MS)  # noqa: E731
    free = lambda one, _pool: one.name not in full  # noqa: E731
    found = make_plan(submitted, Fleet(Models(models), {}, {}, free, NOW_MS, None, order, trying))
    assert isinstance(found, Planned), found
    return found


def tasks(submission, count: int, **fields: Any):
    for number in range(count):
        one = submission()
        task = msgspec.structs.replace(one.task, id=f"tsk_{number}", **fields)
        yield msgspec.structs.replace(one, task=task)


def test_units_are_split_evenly_and_each_arm_does_what_it_says(models, submission):
    by = trials(sets(running()))
    found = [planned(one, models, by) for one in tasks(submission, 400)]
    arms = Counter((one.route.trial.arm, one.attempts[0].model) for one in found)
    assert set(arms) == {("control", "large"), ("candidate", "small")}
    assert 160 <= arms["candidate", "small"] <= 240
    again = trials(sets(running()))
    assert [planned(one, models, again).route.trial for one in tasks(submission, 400)] == [
        one.route.trial for one in found
    ]


def test_a_conversation_and_a_user_keep_their_arm_and_a_larger_share_moves_nobody(submission):
    known = {"acme": sets(running(share=0.1))}
    larger = {"acme": sets(running(share=0.6, revision=2))}
    drawn = {one.task.id: assigned(one.task, known) for one in tasks(submission, 300)}
    taken = {name: one.trial.arm for name, one in drawn.items() if one is not None}
    assert 10 <= len(taken) <= 60
    later = {one.task.id: assigned(one.task, larger) for one in tasks(submission, 300)}
    assert all(later[name].trial.arm == arm for name, arm in taken.items())
    assert sum(one is not None for one in later.values()) > 120
    everybody = {"acme": sets(running())}
    turns = {assigned(one.task, everybody).trial.arm for one in tasks(submission, 30, conversation="c1")}
    assert len(turns) == 1
    by_user = {"acme": sets(running(unit="user"))}
    assert len({assigned(one.task, by_user).trial for one in tasks(submission, 30, tags={"user": "ada"})}) == 1


def test_what_the_operator_holds_out_of_everything_is_held_out_of_a_tenants_experiments(models, submission):
    by = trials(sets(running()), sets(tenant="", holdout=0.5))
    arms = Counter(planned(one, models, by).route.trial.arm for one in tasks(submission, 60))
    assert set(arms) == {"control", "candidate", "holdout"}


def test_a_task_is_in_no_experiment_whose_arms_could_not_both_be_carried_out(models, submission):
    alone = models[:1]
    for one in tasks(submission, 20):
        assert planned(one, alone, trials(sets(running()))).route.trial is None
    unknown = running(kind="policy", candidate=Change(policy_version=4))
    assert planned(submission(), models, trials(sets(unknown))).route.trial is None


def test_a_version_of_a_policy_is_tried_once_it_is_known(models, submission):
    by = trials(sets(running(kind="policy", candidate=Change(policy_version=4))))
    cells = [Cell(100, 0.9, 0.01), Cell(100, 0.9, 0.01)]
    policy = RoutingPolicy(version=4, tenant="acme", created_at_ms=0, models=["large", "small"], everywhere=cells)
    by.use(arm_key("acme", 4), encode(policy))
    versions = {}
    for one in tasks(submission, 40):
        found = planned(one, models, by).route
        versions.setdefault(found.trial.arm, set()).add(found.policy_version)
    assert versions == {"control": {0}, "candidate": {4}}


def test_a_tried_policy_that_needs_features_has_questions_looked_at(model):
    policy = RoutingPolicy(version=4, tenant="acme", created_at_ms=0, models=["large"], everywhere=[NONE], embeds=True)
    by = trials()
    by.use(arm_key("acme", 4), encode(policy))
    assert not by.embeds("acme"), "nobody is given by it"
    by.use(set_key("acme"), encode(sets(running(kind="policy", candidate=Change(policy_version=4)))))
    assert by.embeds("acme")
    assert not by.embeds("globex")


def test_what_ends_before_anything_is_sent_says_which_arm_it_was_of(models, submission):
    by = trials(sets(running()))
    for one in tasks(submission, 20):
        route = by.route_of(one, Models(models), None, NOW_MS)
        assert route.trial == planned(one, models, by).route.trial
        for ended in (expired(one, NOW_MS, route), failed(one, TaskError(code="x", message="y"), NOW_MS, route=route)):
            assert ended.route.trial == route.trial
    alone = Models(models[:1])
    assert by.route_of(submission(), alone, None, NOW_MS) is None, "one arm alone is no experiment"
    assert by.route_of(submission(model="absent"), Models(models), None, NOW_MS) is None


def test_an_instruction_goes_to_its_arm_alone_also_where_the_model_was_named(models, submission):
    by = trials(sets(running(kind="prompt", model="large", candidate=PROMPT)))
    seen = Counter()
    for one in tasks(submission, 40, model="large"):
        found = planned(one, models, by)
        seen[found.route.trial.arm, found.instruction, found.attempts[0].model] += 1
        assert found.route.trial.instructed == (found.instruction is not None)
    assert set(seen) == {("control", None, "large"), ("candidate", TOLD, "large")}
    assert planned(submission(), models, by).route.trial is None
    for bound in ({"cost_max_picos": 10**12}, {"not_before_ms": 1}):
        known = {"acme": sets(running(kind="prompt", candidate=PROMPT))}
        assert all(assigned(one.task, known) is None for one in tasks(submission, 5, **bound))


def test_who_is_full_gives_way_and_the_task_stays_in_its_arm(models, submission):
    by = trials(sets(running(kind="prompt", candidate=PROMPT)))
    twin = msgspec.structs.replace(models[0], name="twin")
    for one in tasks(submission, 10):
        found = planned(one, [*models, twin], by, full=("large",))
        assert found.attempts[0].model == "twin"
        assert found.route.trial is not None


def test_killed_nothing_applies_and_the_operators_kill_switch_is_everybodys(models, submission):
    assert planned(submission(), models, trials(sets(running(), killed=True))).route.trial is None
    both = trials(sets(running()), sets(tenant="", killed=True))
    assert planned(submission(), models, both).route.trial is None
    both.forget(set_key(""))
    assert planned(submission(), models, both).route.trial is not None


def test_held_out_units_are_marked_and_touched_by_nothing(models, submission):
    by = trials(sets(running(), holdout=0.5))
    found = [planned(one, models, by) for one in tasks(submission, 200)]
    held = [one for one in found if one.route.trial.arm == "holdout"]
    assert 60 <= len(held) <= 140
    assert {one.attempts[0].model for one in held} == {"large"}


def test_flags_apply_to_their_share_where_no_experiment_does(models, submission):
    flag = RunningFlag(name="small-first", kind="model", change=Change(model="small"), share=0.5)
    by = trials(sets(flags=[flag]))
    found = Counter(planned(one, models, by).attempts[0].model for one in tasks(submission, 200))
    assert 60 <= found["small"] <= 140
    both = trials(sets(running(), flags=[flag]))
    assert {planned(one, models, both).route.trial.id for one in tasks(submission, 20)} == {"exp_1"}


def test_the_other_arm_is_asked_in_shadow_only_where_it_would_do_something_else(models, submission):
    found = planned(submission(), models, trials(sets(running(interleave=1.0))))
    other = found.other
    assert other is not None
    assert {other.model, found.attempts[0].model} == {"large", "small"}
    assert other.trial.arm != found.route.trial.arm
    same = running(candidate=Change(model="large"), interleave=1.0)
    assert planned(submission(), models, trials(sets(same))).other is None


def test_what_cannot_be_read_leaves_the_last_good_one_and_plans_and_probes_are_left_out(models, submission):
    by = trials(sets(running()))
    by.use(set_key("acme"), b"\xff")
    by.use(set_key("other"), encode(sets(running())))
    assert by.refused == 2
    assert planned(submission(), models, by).route.trial is not None
    panel = msgspec.structs.replace(submission().task, plan="panel")
    assert assigned(panel, {"acme": sets(running())}) is None
    assert by.trying(lambda _task: None, NOW_MS) is not None
    by.forget(set_key("acme"))
    assert by.trying(lambda _task: None, NOW_MS) is None


def test_surfaces_overlap_by_tenant_domain_and_model(submission):
    one = running()
    assert overlaps(one, running(id="exp_2", tenant="acme", domain="law"))
    assert not overlaps(running(domain="law"), running(domain="maths"))
    assert not overlaps(running(tenant="acme"), running(tenant="beta"))
    assert not overlaps(one, running(model="large"))
    known = {"acme": sets(running(kind="prompt", candidate=PROMPT))}
    assert instruction_bytes(submission().task, known) == 8
