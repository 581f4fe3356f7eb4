"""What models with a quota were asked for of late: rolling sums, as routers share them in the bucket ``quotas``.

One rule: every router comes to the same windows from the same events, so whose value stands there does not matter.
"""

from __future__ import annotations

import msgspec

from collegium_contracts.base import Message


class WindowState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rolling sum: ``slots`` are its steps, the oldest first, and ``newest`` is the last one's number since 1970."""

    window_ms: int
    limit: int
    used: int
    newest: int
    slots: list[int]


class QuotaWindow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one model's endpoint was asked for: tokens and calls, each where it has a limit."""

    model: str
    tokens: WindowState | None = None
    calls: WindowState | None = None


class QuotaWindows(Message, frozen=True, kw_only=True):
    """All limited models' windows; the value under ``windows`` in the bucket ``quotas``.

    Every router holds the same and any of them writes it now and then; who starts goes on from it. ``sequence`` is of
    EVENTS: what was counted last.
    """

    sequence: int
    at_ms: int
    models: list[QuotaWindow]
