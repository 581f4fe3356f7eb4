"""The laws that hold after every fault, over the facts that a run leaves. Pure.

Each law returns its violations; none is left out because another failed, so that one report shows all that a fault
broke. One rule: a law speaks of what an outsider can see (answers, stored events, books, the simulator's own count),
never of how the platform came there.

The chain of money, call by call: what is booked was called, what was called is booked or listed as possible spend, and
no task is charged for more than is booked. Where nothing was killed in flight, booked and called are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

Outcome = str


class CallKey(NamedTuple):
    """One upstream call: its task, the attempt's number, and which delivery of it made the call."""

    task_id: str
    attempt: int
    delivery: int


class Called(NamedTuple):
    """What the simulator says of a call: how it ended (open, completed, failed, aborted), and what it is worth."""

    outcome: Outcome
    picos: int


class Booked(NamedTuple):
    """What the books say of a call: cost, whether it was estimated, and whether it was waste."""

    picos: int
    estimated: bool
    wasted: bool


class Terminal(NamedTuple):
    """A terminal message as it stands in EVENTS: the state it names, the charge in it, and its task's age by then."""

    state: str
    charge_picos: int
    age_ms: int = 0


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What was collected after a run.

    ``shown`` is the state of each accepted task over HTTP (``missing``: 404); ``charges`` are the rows of charged
    tasks; ``queues`` count what is left in streams and of consumers, by name; ``permits_in_use`` and
    ``running_attempts`` are none where the platform does not tell; ``dead_tasks`` are those a dead letter speaks of.
    """

    accepted: frozenset[str]
    terminal: Mapping[str, tuple[Terminal, ...]]
    shown: Mapping[str, str]
    calls: Mapping[CallKey, tuple[Called, ...]]
    booked: Mapping[CallKey, Booked]
    possible: frozenset[CallKey]
    charges: Mapping[str, tuple[int, ...]]
    queues: Mapping[str, int]
    probes: Mapping[str, bool]
    dead_tasks: frozenset[str] = frozenset()
    permits_in_use: int | None = None
    running_attempts: int | None = None


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What a fault allows: ``states`` an accepted task may end in, and whether calls may have been lost in flight.

    ``failures_are_dead``: every failed task has a dead letter. ``estimates``: usage that the endpoint did not tell is
    estimated from bytes, and may then differ from the count.
    """

    states: frozenset[str] = frozenset(("completed",))
    killed_in_flight: bool = False
    failures_are_dead: bool = False
    estimates: bool = False


class Violation(NamedTuple):
    """A law that does not hold, for which task (empty: for none in particular), and what was found."""

    law: str
    task_id: str
    text: str


Law = Callable[[Facts, Expected], list[Violation]]


def violations(facts: Facts, expected: Expected) -> list[Violation]:
    """Returns everything that is not as it must be; empty is good."""
    return [found for law in LAWS for found in law(facts, expected)]


def _nothing_is_missing(facts: Facts, expected: Expected) -> list[Violation]:
    law = "no accepted task is missing"
    found: list[Violation] = []
    for task_id in sorted(facts.accepted):
        shown = facts.shown.get(task_id, "missing")
        if shown == "missing":
            found.append(Violation(law, task_id, "was accepted and is not found"))
        elif not facts.terminal.get(task_id):
            found.append(Violation(law, task_id, f"has no terminal message and is shown as {shown}"))
        elif shown not in expected.states:
            found.append(Violation(law, task_id, f"ended as {shown}, not as {' or '.join(sorted(expected.states))}"))
    return found


def _one_terminal_state(facts: Facts, _expected: Expected) -> list[Violation]:
    law = "exactly one terminal state"
    found: list[Violation] = []
    for task_id, messages in sorted(facts.terminal.items()):
        if len(messages) > 1:
            states = ", ".join(message.state for message in messages)
            found.append(Violation(law, task_id, f"has {len(messages)} terminal messages: {states}"))
        shown = facts.shown.get(task_id)
        if shown is not None and messages and shown != messages[0].state:
            found.append(Violation(law, task_id, f"is stored as {messages[0].state} and shown as {shown}"))
    return found


def _one_charge(facts: Facts, _expected: Expected) -> list[Violation]:
    law = "one charge a task"
    found: list[Violation] = []
    for task_id, messages in sorted(facts.terminal.items()):
        rows = facts.charges.get(task_id, ())
        if len(rows) != 1:
            found.append(Violation(law, task_id, f"has {len(rows)} charges"))
        elif rows[0] != messages[0].charge_picos:
            found.append(Violation(law, task_id, f"is charged {rows[0]}, its message says {messages[0].charge_picos}"))
    for task_id in sorted(facts.charges.keys() - facts.terminal.keys()):
        found.append(Violation(law, task_id, "is charged and has not ended"))
    return found


def _charged_at_most_booked(facts: Facts, _expected: Expected) -> list[Violation]:
    booked: dict[str, int] = {}
    for key, row in facts.booked.items():
        booked[key.task_id] = booked.get(key.task_id, 0) + row.picos
    return [
        Violation("charged ≤ booked", task_id, f"is charged {sum(rows)} and {booked.get(task_id, 0)} is booked")
        for task_id, rows in sorted(facts.charges.items())
        if sum(rows) > booked.get(task_id, 0)
    ]


def _booked_was_called(facts: Facts, expected: Expected) -> list[Violation]:
    law = "booked ≤ called"
    found: list[Violation] = []
    for key, row in sorted(facts.booked.items()):
        called = facts.calls.get(key, ())
        worth = sum(call.picos for call in called)
        if row.picos and not called:
            found.append(Violation(law, key.task_id, f"{_name(key)} is booked and was never called"))
        elif row.picos > worth and not (expected.estimates and row.estimated):
            found.append(Violation(law, key.task_id, f"{_name(key)} is booked at {row.picos}, and worth {worth}"))
    return found


def _called_is_accounted_for(facts: Facts, expected: Expected) -> list[Violation]:
    law = "called ≤ booked + possible"
    found: list[Violation] = []
    for key, called in sorted(facts.calls.items()):
        if len(called) > 1:
            found.append(Violation(law, key.task_id, f"{_name(key)} was called {len(called)} times"))
        booked = facts.booked.get(key)
        if booked is None and key not in facts.possible:
            found.append(Violation(law, key.task_id, f"{_name(key)} was called, and is neither booked nor listed"))
        if expected.killed_in_flight:
            continue
        worth = sum(call.picos for call in called)
        if worth and (booked is None or (booked.picos != worth and not (expected.estimates and booked.estimated))):
            text = (
                f"{_name(key)} is worth {worth}, booked {booked.picos if booked else 'not at all'}; nothing was killed"
            )
            found.append(Violation(law, key.task_id, text))
    return found


def _queues_are_empty(facts: Facts, _expected: Expected) -> list[Violation]:
    return [
        Violation("queues drain to zero", "", f"{name}: {count} left") for name, count in facts.queues.items() if count
    ]


def _permits_match(facts: Facts, _expected: Expected) -> list[Violation]:
    if facts.permits_in_use is None or facts.running_attempts is None:
        return []
    if facts.permits_in_use == facts.running_attempts:
        return []
    text = f"{facts.permits_in_use} permits are held, {facts.running_attempts} attempts run"
    return [Violation("permits = running attempts", "", text)]


def _failures_are_dead_letters(facts: Facts, expected: Expected) -> list[Violation]:
    if not expected.failures_are_dead:
        return []
    return [
        Violation("every terminal failure is a dead letter", task_id, "failed, and no dead letter speaks of it")
        for task_id, messages in sorted(facts.terminal.items())
        if any(message.state == "failed" for message in messages) and task_id not in facts.dead_tasks
    ]


def _probes_tell_the_truth(facts: Facts, _expected: Expected) -> list[Violation]:
    return [
        Violation("probes tell the truth", "", f"{name} is healed and says that it is not ready")
        for name, ready in sorted(facts.probes.items())
        if not ready
    ]


def _name(key: CallKey) -> str:
    return f"call {key.attempt}.{key.delivery}"


LAWS: Final[tuple[Law, ...]] = (
    _nothing_is_missing,
    _one_terminal_state,
    _one_charge,
    _charged_at_most_booked,
    _booked_was_called,
    _called_is_accounted_for,
    _queues_are_empty,
    _permits_match,
    _failures_are_dead_letters,
    _probes_tell_the_truth,
)
