"""Budgets' alerts as values: which window counts now, which thresholds are passed, and what is told. Pure.

One rule: a threshold is told of once a window. A calendar's window is named by its first moment; a rolling one has no
name, so a threshold of it is told of again only after the use had fallen below it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from collegium_contracts.money import picos_to_usd
from collegium_contracts.state import BudgetRecord

from collegium_billing.books.sums import DAY_MS, HOUR_MS


class Window(NamedTuple):
    """The time over which a budget counts: [from, to); ``began_at_ms`` names it, 0 for a rolling one."""

    from_ms: int
    to_ms: int
    began_at_ms: int


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """That a budget's threshold was passed; the ``data`` of the webhook."""

    tenant: str
    budget: str
    scope: str
    of: str
    percent: int
    limit_usd: str
    used_usd: str
    window: str
    counted_from: str


def window_of(budget: BudgetRecord, now_ms: int) -> Window:
    """Returns a budget's window; a rolling one is counted from the full hour that its beginning lies in."""
    to_ms = now_ms + 1000
    if budget.window == "rolling":
        begins = now_ms - budget.window_seconds * 1000
        return Window(begins - begins % HOUR_MS, to_ms, 0)
    begins = now_ms - now_ms % DAY_MS
    if budget.window == "calendar_month":
        begins = int(datetime.fromtimestamp(now_ms / 1000, UTC).replace(day=1).timestamp() * 1000)
        begins -= begins % DAY_MS
    return Window(begins, to_ms, begins)


def passed(budget: BudgetRecord, used_picos: int) -> list[int]:
    """Returns the thresholds that a use has reached, in percent, the smallest first; nothing used reaches none."""
    if used_picos <= 0:
        return []
    return [
        percent for percent in sorted(set(budget.alert_percents)) if used_picos * 100 >= budget.limit_picos * percent
    ]


def ratio(budget: BudgetRecord, used_picos: int) -> float:
    """Returns the share of a budget that is used, for a gauge; of a budget of nothing, 0 or 1."""
    if budget.limit_picos <= 0:
        return float(used_picos > 0)
    return used_picos / budget.limit_picos


def alert(tenant: str, budget: BudgetRecord, percent: int, used_picos: int, window: Window) -> Alert:
    """Returns what is told."""
    return Alert(
        tenant=tenant,
        budget=budget.id,
        scope=budget.scope,
        of=budget.of or tenant,
        percent=percent,
        limit_usd=picos_to_usd(budget.limit_picos),
        used_usd=picos_to_usd(used_picos),
        window=budget.window,
        counted_from=_rfc3339(window.from_ms),
    )


def body(told: Alert, now_ms: int) -> bytes:
    """Writes the event that is posted."""
    return msgspec.json.encode({"type": "budget.threshold", "timestamp": _rfc3339(now_ms), "data": told})


def _rfc3339(at_ms: int) -> str:
    text = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
