"""Experiments at the gateway: arms tell answers apart, and what a change on its way made is not kept."""

from __future__ import annotations

from typing import Any

import pytest
from collegium_contracts.codec import encode
from collegium_contracts.envelope import Envelope
from collegium_contracts.experiments import NOTHING, Change, ExperimentSet, Running, Trial, set_key
from collegium_contracts.messages import TaskCompleted
from collegium_contracts.money import Usage
from collegium_contracts.parts import TaskRef
from collegium_contracts.routing import Route
from collegium_gateway.reuse.trials import KnownTrials, told

PROMPT = Change(instruction=Envelope("k", b"n", b"sealed"), instruction_bytes=40)
RUNNING = Running(id="exp_1", kind="prompt", control=NOTHING, candidate=PROMPT, tenant="acme", domain="law")


def task(name: str, **fields: Any) -> TaskRef:
    values: dict[str, Any] = {"tenant": "acme", "domain": "law"} | fields
    return TaskRef(id=name, created_at_ms=0, deadline_ms=1, model="auto", **values)


def settled(trial: Trial | None) -> TaskCompleted:
    return TaskCompleted(
        task=task("t"), plan="single", stop_reason="completed", usage=Usage(), attempts=[], settled_at_ms=1,
        output=Envelope("k", b"", b""), route=Route(model="m", rank="ta", trial=trial),
    )  # fmt: skip


@pytest.fixture
def known() -> KnownTrials:
    nobody: Any = None
    found = KnownTrials(nobody)
    found.use(set_key("acme"), encode(ExperimentSet(tenant="acme", version=1, at_ms=1, experiments=[RUNNING])))
    return found


def test_each_arm_has_a_name_and_what_is_outside_has_none(known: KnownTrials):
    arms = {known.arm_of(task(f"t{number}")) for number in range(40)}
    assert arms == {"exp_1/1/control", "exp_1/1/candidate"}
    assert known.arm_of(task("t1", domain="maths")) == known.arm_of(task("t1", tenant="beta")) == ""
    assert (known.added_bytes(task("t1")), known.added_bytes(task("t1", domain="maths"))) == (40, 0)


def test_the_routers_word_is_compared_with_the_gateways(known: KnownTrials):
    one = Trial(id="exp_1", arm="candidate", unit="u")
    assert told(settled(one)) == "exp_1/1/candidate"
    assert told(settled(None)) == told(settled(Trial(id="exp_1", arm="holdout"))) == ""


def test_what_the_operator_holds_out_of_everything_is_held_out_of_a_tenants_experiments(known: KnownTrials):
    known.use(set_key(""), encode(ExperimentSet(tenant="", version=1, at_ms=1, holdout=0.5)))
    arms = {known.arm_of(task(f"t{number}")) for number in range(40)}
    assert arms == {"exp_1/1/control", "exp_1/1/candidate", ""}
    known.use(set_key(""), encode(ExperimentSet(tenant="", version=2, at_ms=2)))
    assert {known.arm_of(task(f"t{number}")) for number in range(40)} == {"exp_1/1/control", "exp_1/1/candidate"}


def test_a_killed_set_and_one_that_cannot_be_read(known: KnownTrials):
    known.use(set_key("acme"), b"\xff")
    assert known.arm_of(task("t1"))
    known.use(set_key(""), encode(ExperimentSet(tenant="", version=1, at_ms=1, killed=True)))
    assert known.arm_of(task("t1")) == ""
