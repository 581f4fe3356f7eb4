"""What a subject of EVENTS says, read back, and where all of one task's are. Pure; subjects are made in subjects.py.

One rule: what is none of ours reads as none, whatever it is.
"""

from __future__ import annotations

from typing import NamedTuple

from collegium_contracts.ids import tenant_token


class EventSubject(NamedTuple):
    """What a subject of EVENTS says about its message: its kind, tenant, task, and attempt (0 where none).

    ``last`` is the number at its end (the delivery or the try), 0 where there is none.
    """

    kind: str
    tenant: str
    task: str
    attempt: int
    last: int = 0


def parse_event(subject: str) -> EventSubject | None:
    """Reads a subject of EVENTS; none where it is not one of ours."""
    match subject.split("."):
        case ["task", kind, tenant, task, _]:
            # A pause's stage, or the question that an answer is to.
            return EventSubject(kind, tenant, task, 0)
        case ["task" | "ctl", kind, tenant, task]:
            return EventSubject(kind, tenant, task, 0)
        case ["feedback" | "probe" as kind, tenant, task]:
            return EventSubject(kind, tenant, task, 0)
        case ["attempt", tenant, task, number, kind, *rest] if number.isascii() and number.isdigit():
            last = int(rest[0]) if rest and rest[0].isascii() and rest[0].isdigit() else 0
            return EventSubject(kind, tenant, task, int(number), last)
        case _:
            return None


def events_of_task(task: str, tenant: str = "") -> tuple[str, ...]:
    """Filters of everything in EVENTS about one task; without ``tenant`` whosever it is."""
    whose = tenant_token(tenant) if tenant else "*"
    return (
        f"task.changed.{whose}.{task}",
        f"task.changed.{whose}.{task}.*",
        f"task.input.{whose}.{task}.*",
        f"attempt.{whose}.{task}.>",
        f"task.settled.{whose}.{task}",
        f"ctl.cancel.{whose}.{task}",
        f"feedback.{whose}.{task}",
        f"probe.{whose}.{task}",
    )
