"""What is to be submitted when a cron schedule is looked at: firings in time, firings that were missed.

A firing is missed when nobody was there within a minute of it (a platform that was down). ``skip`` lets missed ones
go, ``once`` submits one for all of them, ``all`` submits each, the oldest first, up to a hundred. One rule: the answer
names firings by their times, so that whoever asks twice, after a crash, submits nothing twice.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from collegium_calendar.cron import Cron

LATE_MS = 60_000
MAX_CAUGHT_UP = 100


class Firings(NamedTuple):
    """The times to submit now, in order, and the first firing after them (none: there is none)."""

    due_ms: tuple[int, ...]
    next_ms: int | None


def firings(cron: Cron, next_ms: int, now_ms: int, missed: Literal["skip", "once", "all"]) -> Firings:
    """Decides what a schedule whose next firing is ``next_ms`` has to submit at ``now_ms``."""
    if next_ms > now_ms:
        return Firings((), next_ms)
    late_ms = now_ms - LATE_MS
    due: list[int] = []
    if next_ms < late_ms:
        if missed == "once":
            due.append(next_ms)
        elif missed == "all":
            due.extend(_between(cron, next_ms, late_ms - 1))
        first = cron.next_after(late_ms - 1)
    else:
        first = next_ms
    if first is not None:
        due.extend(_between(cron, first, now_ms))
    return Firings(tuple(due), cron.next_after(now_ms))


def _between(cron: Cron, first_ms: int, last_ms: int) -> list[int]:
    found: list[int] = []
    at: int | None = first_ms
    while at is not None and at <= last_ms and len(found) < MAX_CAUGHT_UP:
        found.append(at)
        at = cron.next_after(at)
    return found
