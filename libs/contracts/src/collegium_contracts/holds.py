"""Holding money before it is spent: the journal of a shard's owner.

A gateway asks the billing replica that owns the tenant's shard; that one decides from memory, writes what it promised
to LEDGER (one subject a shard, by expected sequence, so that a former owner's write is refused) and answers behind it.
The journal alone makes the state again: a snapshot, the records after it, and the settled messages after the last that
a record speaks of. One rule: nothing is promised before its record is on its way.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.base import Message


class HoldPlaced(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A hold was granted against these budgets."""

    task: str
    tenant: str
    picos: int
    expires_at_ms: int
    budgets: list[str]
    at_ms: int


class HoldEnded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task settled, or its hold was given back (``why``): ``picos`` were captured in the name of project and key.

    ``sequence`` is the settled message's in EVENTS (0: none, or told by an earlier version): a snapshot that has read
    further holds it already, though the record that tells of it came after the snapshot.
    """

    task: str
    tenant: str
    picos: int
    at_ms: int
    project: str = "default"
    key_id: str = ""
    why: Literal["settled", "released"] = "settled"
    sequence: int = 0


class HoldCaptured(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of a task's attempts ended, and its charge was captured before the task settled.

    ``sequence`` is of EVENTS, as in :class:`HoldEnded`.
    """

    task: str
    tenant: str
    attempt: int
    picos: int
    at_ms: int
    project: str = "default"
    key_id: str = ""
    sequence: int = 0


class BudgetOpened(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A budget is kept from now on; ``spent`` is what the books knew then: [time (Unix ms), pico-dollars].

    ``after_ended`` is how many of the record's ends are among it; ``at_ms`` (0: told by an earlier version) is when.
    """

    tenant: str
    budget: str
    spent: list[tuple[int, int]]
    after_ended: int = 0
    at_ms: int = 0


class HoldsJournaled(Message, frozen=True, kw_only=True):
    """One record of a shard's journal (hop 11). ``events_sequence``: settled messages up to it are in the journal."""

    shard: int
    at_ms: int
    events_sequence: int
    opened: list[BudgetOpened] = []
    placed: list[HoldPlaced] = []
    ended: list[HoldEnded] = []
    captured: list[HoldCaptured] = []


class WindowState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a budget's window holds: [time (Unix ms), pico-dollars], oldest first, and the last period's excess."""

    tenant: str
    budget: str
    spent: list[tuple[int, int]]
    carried_picos: int = 0


class RateState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the slow rate windows of a tenant or key had counted: [time (Unix ms), count], oldest first."""

    tenant: str
    key_id: str = ""
    day_requests: list[tuple[int, int]] = []
    window_tokens: list[tuple[int, int]] = []


class HoldsSnapshot(Message, frozen=True, kw_only=True):
    """A shard's whole state after the journal's record ``journal_sequence`` (hop 11).

    ``captured`` is of tasks that did not settle yet; the windows hold it.
    """

    shard: int
    at_ms: int
    journal_sequence: int
    events_sequence: int
    windows: list[WindowState]
    holds: list[HoldPlaced]
    rates: list[RateState] = []
    captured: list[HoldCaptured] = []


class Billed(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of a settled message says, or of an attempt's end where a plan has several, so that whoever only
    counts need not read its content."""

    picos: int
    tokens: int
    project: str
    key_id: str


def billed_header(billed: Billed) -> str:
    """Writes the header's value."""
    return f"{billed.picos} {billed.tokens} {billed.project} {billed.key_id}"


def parse_billed(text: str) -> Billed | None:
    """Reads the header's value; none where it is absent or none of ours."""
    parts = text.split(" ")
    if len(parts) < 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return None
    key_id = parts[3] if len(parts) > 3 else ""
    return Billed(picos=int(parts[0]), tokens=int(parts[1]), project=parts[2], key_id=key_id)
