"""What must hold of people: queues and times within bounds, and rules and gates that ask somebody there is."""

from __future__ import annotations

from collections.abc import Iterable

from collegium_settings.errors import Problem
from collegium_settings.people import CLAIM_SECONDS_MAX, CLIENT, EXPIRES_SECONDS_MAX, EXPIRES_SECONDS_MIN
from collegium_settings.settings import Settings


def check_people(settings: Settings) -> Iterable[Problem]:
    """Yields what is wrong with queues, rules and the gates that ask."""
    people = settings.people
    if not EXPIRES_SECONDS_MIN <= people.expires_seconds <= EXPIRES_SECONDS_MAX:
        yield Problem("people.expires", f"{people.expires_seconds} s", "at most 2 days")
    for name, queue in people.queues.items():
        path = f"people.queues.{name}"
        if name == CLIENT or not name or len(name) > 40 or not name.replace("-", "").isalnum() or not name.islower():
            yield Problem(path, repr(name), "a name of 1 to 40 of a-z, 0-9 and -, and not client")
        if queue.claim_seconds > CLAIM_SECONDS_MAX:
            yield Problem(f"{path}.claim", f"{queue.claim_seconds} s", "at most 1 day")
    accepted = "client or a queue: " + (", ".join(people.queues) or "there is none")
    for number, rule in enumerate(people.rules):
        path = f"people.rules[{number}]"
        if rule.ask != CLIENT and rule.ask not in people.queues:
            yield Problem(f"{path}.ask", repr(rule.ask), accepted)
        if rule.below is not None and rule.when != "unsure":
            yield Problem(f"{path}.below", str(rule.below), f"nothing: a rule of {rule.when} asks whatever the answer")
    for name, gate in settings.gates.items():
        if gate.action == "ask" and gate.ask is not None and gate.ask != CLIENT and gate.ask not in people.queues:
            yield Problem(f"gates.{name}.ask", repr(gate.ask), accepted)
        if gate.ask is not None and gate.action != "ask":
            yield Problem(f"gates.{name}.ask", repr(gate.ask), "nothing: the rule's action is not ask")
