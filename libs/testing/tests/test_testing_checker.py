"""Each law is broken once, by one change to facts that are good; nothing else complains."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from collegium_testing.faults.checker import Booked, Called, CallKey, Expected, Facts, Terminal, violations

A1 = CallKey("a", 1, 1)
B1 = CallKey("b", 1, 1)
LOST = CallKey("b", 1, 2)
GOOD = Facts(
    accepted=frozenset("ab"),
    terminal={"a": (Terminal("completed", 30),), "b": (Terminal("completed", 20),)},
    shown={"a": "completed", "b": "completed"},
    calls={A1: (Called("completed", 30),), B1: (Called("completed", 20),)},
    booked={A1: Booked(30, estimated=False, wasted=False), B1: Booked(20, estimated=False, wasted=False)},
    possible=frozenset(),
    charges={"a": (30,), "b": (20,)},
    queues={"INGRESS": 0, "WORK": 0},
    probes={"gateway": True},
    permits_in_use=0,
    running_attempts=0,
)
# A worker was killed in a call: a second delivery made the one that counts.
KILLED = msgspec.structs.replace(GOOD, calls={**GOOD.calls, LOST: (Called("aborted", 10),)}, possible=frozenset({LOST}))


def broken(facts: Facts, expected: Expected, **changes: Any) -> set[tuple[str, str]]:
    return {(one.law, one.task_id) for one in violations(msgspec.structs.replace(facts, **changes), expected)}


def test_good_facts_break_no_law():
    assert violations(GOOD, Expected(failures_are_dead=True)) == []
    assert violations(KILLED, Expected(killed_in_flight=True)) == []


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"shown": {"a": "completed", "b": "missing"}, "terminal": {"a": GOOD.terminal["a"]}, "charges": {"a": (30,)}},
         ("no accepted task is missing", "b")),
        ({"shown": {"a": "completed", "b": "working"}, "terminal": {"a": GOOD.terminal["a"]}, "charges": {"a": (30,)}},
         ("no accepted task is missing", "b")),
        ({"shown": {"a": "completed", "b": "failed"},
          "terminal": {"a": GOOD.terminal["a"], "b": (Terminal("failed", 20),)}},
         ("no accepted task is missing", "b")),
        ({"terminal": {**GOOD.terminal, "b": (Terminal("completed", 20), Terminal("failed", 0))}},
         ("exactly one terminal state", "b")),
        ({"terminal": {**GOOD.terminal, "b": (Terminal("canceled", 20),)}}, ("exactly one terminal state", "b")),
        ({"charges": {"a": (30,)}}, ("one charge a task", "b")),
        ({"charges": {"a": (30,), "b": (10,)}}, ("one charge a task", "b")),
        ({"charges": {**GOOD.charges, "c": (0,)}}, ("one charge a task", "c")),
        ({"queues": {"INGRESS": 0, "WORK": 3}}, ("queues drain to zero", "")),
        ({"probes": {"gateway": False}}, ("probes tell the truth", "")),
        ({"permits_in_use": 1}, ("permits = running attempts", "")),
    ],
)  # fmt: skip
def test_each_law_is_broken_by_itself(changes: dict[str, Any], law: tuple[str, str]):
    assert broken(GOOD, Expected(), **changes) == {law}


def test_a_task_charged_twice_breaks_both_laws_of_its_charge():
    found = broken(GOOD, Expected(), charges={"a": (30,), "b": (20, 20)})
    assert found == {("one charge a task", "b"), ("charged ≤ booked", "b")}


def test_what_was_never_called_is_not_booked():
    booked = {**GOOD.booked, LOST: Booked(5, estimated=False, wasted=True)}
    assert broken(GOOD, Expected(), booked=booked) == {("booked ≤ called", "b")}


def test_more_than_the_count_is_booked_only_as_an_estimate():
    dear = {**GOOD.booked, B1: Booked(25, estimated=True, wasted=False)}
    assert ("booked ≤ called", "b") in broken(GOOD, Expected(), booked=dear)
    assert broken(GOOD, Expected(estimates=True), booked=dear) == set()


def test_a_call_is_booked_or_listed_and_made_once():
    law = ("called ≤ booked + possible", "b")
    killed = Expected(killed_in_flight=True)
    assert broken(KILLED, killed, possible=frozenset()) == {law}
    twice = {**GOOD.calls, B1: (Called("completed", 20), Called("aborted", 0))}
    assert broken(GOOD, killed, calls=twice) == {law}


def test_where_nothing_was_killed_a_listed_call_is_not_enough():
    assert broken(KILLED, Expected()) == {("called ≤ booked + possible", "b")}


def test_failures_need_dead_letters_where_that_is_promised():
    failed = {
        "terminal": {**GOOD.terminal, "b": (Terminal("failed", 20),)},
        "shown": {"a": "completed", "b": "failed"},
    }
    expected = Expected(states=frozenset(("completed", "failed")), failures_are_dead=True)
    assert broken(GOOD, expected, **failed) == {("every terminal failure is a dead letter", "b")}
    assert broken(GOOD, expected, **failed, dead_tasks=frozenset("b")) == set()


def test_permits_are_left_out_where_the_platform_does_not_tell():
    assert broken(GOOD, Expected(), permits_in_use=None, running_attempts=5) == set()
