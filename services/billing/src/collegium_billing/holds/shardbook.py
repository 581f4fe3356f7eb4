"""The state of one shard: its tenants' books, made again from a snapshot and the journal's records. Pure.

One rule: applying what the journal tells gives the state that its writer had when it wrote the last of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from collegium_contracts.holds import (
    Billed,
    BudgetOpened,
    HoldCaptured,
    HoldEnded,
    HoldPlaced,
    HoldsJournaled,
    HoldsSnapshot,
    RateState,
    WindowState,
)
from collegium_contracts.requests import BudgetStanding, HoldAnswer, HoldAsk, OpenHold
from collegium_contracts.state import TenantRecord

from collegium_billing.holds.tenantbook import TenantBook
from collegium_billing.holds.windows import Amounts

# What settled of late is remembered for as long as the books may be behind.
RECENT_MS = 30_000
NOT_YET = HoldAnswer(
    code="billing_unavailable", message="the tenant's budgets are not read yet; ask again", retry_after_ms=100
)


class Recent(NamedTuple):
    """A settled task, remembered for budgets that are opened soon."""

    at_ms: int
    tenant: str
    project: str
    key_id: str
    picos: int


class ShardBook:
    """All tenants of one shard."""

    def __init__(self, shard: int, tier_day: Callable[[str], int | None]) -> None:
        self.shard = shard
        self.events_sequence = 0
        self.tenants: dict[str, TenantBook] = {}
        self._tier_day = tier_day
        self._recent: deque[Recent] = deque()
        # What the snapshot holds that this state began with: events up to a sequence, and budgets open at its time.
        self._held_to = 0
        self._held_at_ms = 0
        self._held_budgets: frozenset[tuple[str, str]] = frozenset()

    def learn(self, record: TenantRecord) -> None:
        """Takes a tenant's newest definition."""
        book = self.tenants.get(record.id)
        if book is None:
            self.tenants[record.id] = TenantBook(record, self._tier_day(record.tier))
        else:
            book.learn(record, self._tier_day(record.tier))

    def restore(self, snapshot: HoldsSnapshot, now_ms: int) -> None:
        """Takes over a snapshot; tenants must be known."""
        self.events_sequence = self._held_to = snapshot.events_sequence
        self._held_at_ms = snapshot.at_ms
        self._held_budgets = frozenset((window.tenant, window.budget) for window in snapshot.windows)
        for window in snapshot.windows:
            self._open(window, now_ms)
        for hold in snapshot.holds:
            if (book := self.tenants.get(hold.tenant)) is not None:
                book.place(hold)
        for captured in snapshot.captured:
            if (book := self.tenants.get(captured.tenant)) is not None:
                book.recall(captured)
        for rates in snapshot.rates:
            if (book := self.tenants.get(rates.tenant)) is not None:
                book.take_rates(rates)

    def apply(self, record: HoldsJournaled, now_ms: int) -> None:
        """Takes over one record; what of it the snapshot held already is not counted again."""
        for hold in record.placed:
            if (book := self.tenants.get(hold.tenant)) is not None:
                book.place(hold)
        for captured in record.captured:
            if (book := self.tenants.get(captured.tenant)) is not None:
                if self._is_held(captured.sequence):
                    book.recall(captured)
                else:
                    book.capture(captured)
        # What a budget was opened with has the ends before it.
        opening = sorted(
            (opened for opened in record.opened if not self._was_open(opened)), key=lambda opened: opened.after_ended
        )
        for index, ended in enumerate(record.ended):
            while opening and opening[0].after_ended <= index:
                self.open(opening.pop(0), now_ms)
            if (book := self.tenants.get(ended.tenant)) is not None:
                if self._is_held(ended.sequence):
                    book.drop(ended.task)
                else:
                    book.end(ended)
        for opened in opening:
            self.open(opened, now_ms)
        self.events_sequence = max(self.events_sequence, record.events_sequence)

    def ask(self, ask: HoldAsk, now_ms: int) -> tuple[HoldAnswer, HoldPlaced | None]:
        """Decides on one task; what it grants against budgets must be journaled before it is told."""
        book = self.tenants.get(ask.tenant)
        if book is not None and ask.hits:
            return book.count(ask, now_ms), None
        if book is None or book.unopened():
            return NOT_YET, None
        return book.ask(ask, now_ms)

    def is_open(self, ask: HoldAsk) -> bool:
        """Whether a task was let in and has not ended."""
        book = self.tenants.get(ask.tenant)
        return book is not None and ask.task in book.tasks

    def settled(self, task: str, tenant: str, billed: Billed, at_ms: int, sequence: int) -> HoldEnded | None:
        """Takes a settled message; returns what the journal must tell of it, if anything."""
        if sequence <= self.events_sequence:
            return None
        self.events_sequence = sequence
        book = self.tenants.get(tenant)
        if book is None:
            return None
        self._remember(Recent(at_ms, tenant, billed.project, billed.key_id, billed.picos))
        ended = HoldEnded(
            task=task,
            tenant=tenant,
            picos=billed.picos,
            at_ms=at_ms,
            project=billed.project,
            key_id=billed.key_id,
            sequence=sequence,
        )
        return ended if book.end(ended, billed.tokens) else None

    def attempt_ended(
        self, task: str, tenant: str, attempt: int, billed: Billed, at_ms: int, sequence: int
    ) -> HoldCaptured | None:
        """Takes the end of one of a task's attempts; returns what the journal must tell of it, if anything."""
        if sequence <= self.events_sequence:
            return None
        self.events_sequence = sequence
        book = self.tenants.get(tenant)
        captured = HoldCaptured(
            task=task,
            tenant=tenant,
            attempt=attempt,
            picos=billed.picos,
            at_ms=at_ms,
            project=billed.project,
            key_id=billed.key_id,
            sequence=sequence,
        )
        return captured if book is not None and book.capture(captured) else None

    def paused(self, task: str, tenant: str, until_ms: int, at_ms: int, sequence: int) -> HoldPlaced | None:
        """Takes a task's pause for people: its hold stands longer; returns what the journal must tell of."""
        if sequence <= self.events_sequence:
            return None
        self.events_sequence = sequence
        book = self.tenants.get(tenant)
        return book.renew(task, until_ms, at_ms) if book is not None else None

    def release(self, tenant: str, tasks: Iterable[str], now_ms: int) -> list[HoldEnded]:
        """Gives back holds of tasks that were not submitted; returns what the journal must tell of."""
        book = self.tenants.get(tenant)
        if book is None:
            return []
        given_back = [
            HoldEnded(task=task, tenant=tenant, picos=0, at_ms=now_ms, why="released")
            for task in tasks
            if task in book.tasks
        ]
        return [ended for ended in given_back if book.end(ended)]

    def expire(self, now_ms: int) -> list[str]:
        """Forgets what is over."""
        return [task for book in self.tenants.values() for task in book.expire(now_ms)]

    def unopened(self) -> list[tuple[str, str]]:
        """Names the budgets, by tenant, of which it is not known yet what was spent."""
        return [(name, budget) for name, book in self.tenants.items() for budget in book.unopened()]

    def recent_of(self, tenant: str, budget_id: str, since_ms: int) -> Amounts:
        """Returns what settled since then and counts in a budget."""
        book = self.tenants.get(tenant)
        record = next((one for one in book.record.budgets if one.id == budget_id), None) if book is not None else None
        if book is None or record is None:
            return []
        of = record.of
        return [
            (one.at_ms, one.picos)
            for one in self._recent
            if one.tenant == tenant
            and one.at_ms >= since_ms
            and (
                record.scope == "tenant"
                or (record.scope == "project" and one.project == of)
                or (record.scope == "key" and book.first(one.key_id) == of)
            )
        ]

    def open(self, opened: BudgetOpened, now_ms: int) -> None:
        """Begins to keep a budget with what was spent before."""
        self._open(WindowState(tenant=opened.tenant, budget=opened.budget, spent=opened.spent), now_ms)

    def snapshot(self, journal_sequence: int, now_ms: int) -> HoldsSnapshot:
        """Returns the whole state."""
        rates: list[RateState] = []
        for book in self.tenants.values():
            rates += book.rate_states()
        return HoldsSnapshot(
            shard=self.shard,
            at_ms=now_ms,
            journal_sequence=journal_sequence,
            events_sequence=self.events_sequence,
            windows=[window for book in self.tenants.values() for window in book.windows()],
            holds=[
                task.hold for book in self.tenants.values() for task in book.tasks.values() if task.hold is not None
            ],
            rates=rates,
            captured=[captured for book in self.tenants.values() for captured in book.captured()],
        )

    def standings(self, tenant: str | None, now_ms: int) -> list[BudgetStanding]:
        """Returns the budgets, of one tenant or of all."""
        return [
            budget.standing(now_ms)
            for name, book in self.tenants.items()
            if tenant is None or name == tenant
            for budget in book.budgets.values()
        ]

    def holds(self, tenant: str | None) -> list[OpenHold]:
        """Returns the open holds, of one tenant or of all."""
        return [
            hold for name, book in self.tenants.items() if tenant is None or name == tenant for hold in book.holds()
        ]

    @property
    def over_hold(self) -> int:
        """How often more was captured than was held."""
        return sum(book.over_hold for book in self.tenants.values())

    def _is_held(self, sequence: int) -> bool:
        return 0 < sequence <= self._held_to

    def _was_open(self, opened: BudgetOpened) -> bool:
        return 0 < opened.at_ms <= self._held_at_ms and (opened.tenant, opened.budget) in self._held_budgets

    def _open(self, window: WindowState, now_ms: int) -> None:
        if (book := self.tenants.get(window.tenant)) is not None:
            book.open(window.budget, window.spent, now_ms, window.carried_picos)

    def _remember(self, one: Recent) -> None:
        self._recent.append(one)
        while self._recent and self._recent[0].at_ms < one.at_ms - RECENT_MS:
            self._recent.popleft()
