"""What a shard's owner keeps of money that was spent to learn, and beside targets: a value of the bucket ``spending``.

One rule: nothing that anybody said stands here; names are those of the configuration, ids those of probes.
"""

from __future__ import annotations

import msgspec

from collegium_contracts.base import Message


class Debt(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent over a target (below zero: what was not), as a share of a period's target of ``picos`` in
    ``period_ms``, at a time."""

    share: float
    at_ms: int
    picos: int
    period_ms: int


class ProbeOut(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe that was not heard to have ended may cost at most; from a time on (Unix ms) it counts as spent."""

    picos: int
    until_ms: int


class SpendingKept(Message, frozen=True, kw_only=True):
    """What the owner of a ``shard`` counted: what probes earned and may have cost (pico-dollars), those that are
    ``out`` by their ids, and debts by the name of their target."""

    shard: int
    at_ms: int
    earned_picos: float = 0.0
    spent_picos: int = 0
    out: dict[str, ProbeOut] = {}
    debts: dict[str, Debt] = {}
