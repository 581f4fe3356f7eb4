"""One budget as its owner keeps it: what was captured in its window, what is held, what is left. Pure.

One rule: left = limit − captured − held, and a hold is granted only out of what is left.
"""

from __future__ import annotations

from collegium_contracts.money import picos_to_usd
from collegium_contracts.requests import BudgetStanding
from collegium_contracts.state import BudgetRecord

from collegium_billing.holds.windows import Amounts, CalendarWindow, RollingWindow


class Budget:
    """A budget, its window and its holds' sum."""

    __slots__ = ("held", "record", "tenant", "window")

    def __init__(
        self, tenant: str, record: BudgetRecord, now_ms: int, *, amounts: Amounts | None = None, carried: int = 0
    ) -> None:
        self.tenant = tenant
        self.record = record
        self.held = 0
        self.window: RollingWindow | CalendarWindow
        if record.window == "rolling":
            self.window = RollingWindow(record.window_seconds * 1000, amounts or ())
        else:
            self.window = CalendarWindow(
                is_month=record.window == "calendar_month",
                limit=record.limit_picos,
                now_ms=now_ms,
                amounts=amounts or (),
                carried=carried,
            )

    def covers(self, project: str, lineage: str) -> bool:
        """Whether what is spent in the name of a project and a lineage of keys counts here."""
        scope, of = self.record.scope, self.record.of
        return scope == "tenant" or (scope == "project" and of == project) or (scope == "key" and of == lineage)

    def is_as(self, record: BudgetRecord) -> bool:
        """Whether a definition has the same window over the same things, so that what was counted still counts."""
        mine = self.record
        return (mine.scope, mine.of, mine.window, mine.window_seconds) == (
            record.scope,
            record.of,
            record.window,
            record.window_seconds,
        )

    def left(self, now_ms: int) -> int:
        """Returns what may still be held; negative where more was captured than the limit."""
        self.window.forget(now_ms)
        return self.record.limit_picos - self.window.total - self.held

    def renews_at(self, picos: int, now_ms: int) -> int:
        """Returns when (Unix ms) so much will be left if nothing more is asked; 0 where time alone does not help."""
        short = picos - self.left(now_ms)
        if short <= 0:
            return now_ms
        return 0 if picos > self.record.limit_picos else self.window.frees_at(min(short, self.window.total), now_ms)

    def describe(self) -> str:
        """Names the budget for whoever ran into it."""
        record = self.record
        of = f"{record.scope} {record.of}" if record.of else f"tenant {self.tenant}"
        length = f"{record.window_seconds} s" if record.window == "rolling" else record.window.replace("calendar_", "")
        return f"budget {record.id} of {of} ({picos_to_usd(record.limit_picos)} USD a {length})"

    def standing(self, now_ms: int) -> BudgetStanding:
        """Returns the budget as it stands."""
        left = self.left(now_ms)
        return BudgetStanding(
            budget=self.record.id,
            tenant=self.tenant,
            scope=self.record.scope,
            of=self.record.of,
            limit_picos=self.record.limit_picos,
            captured_picos=self.window.total,
            held_picos=self.held,
            renews_at_ms=self.renews_at(max(1, left + 1), now_ms),
        )
