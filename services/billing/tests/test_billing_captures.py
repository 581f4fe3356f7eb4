"""Partial captures: what ended attempts cost is captured at once, and every settled task exactly once as a whole."""

from __future__ import annotations

import random
from typing import Any

import pytest
from collegium_billing.holds.shardbook import ShardBook
from collegium_contracts.charging import billed_of
from collegium_contracts.holds import Billed, BudgetOpened, HoldsJournaled
from collegium_contracts.messages import AttemptUsage
from collegium_contracts.money import Usage
from collegium_contracts.requests import HoldAsk
from collegium_contracts.state import BudgetRecord, TenantRecord
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z
HOUR = 3_600_000
KEY = "panelkey0001"


def tenant(*budgets: BudgetRecord) -> TenantRecord:
    return TenantRecord(id="acme", tier="pro", budgets=list(budgets))


def budget(limit: int = 100, name: str = "b", **fields: Any) -> BudgetRecord:
    return BudgetRecord(**{"id": name, "scope": "tenant", "limit_picos": limit, "window_seconds": 3600} | fields)


def shard(*budgets: BudgetRecord) -> ShardBook:
    book = ShardBook(0, lambda _tier: None)
    book.learn(tenant(*budgets))
    opened(book)
    return book


def opened(book: ShardBook, **fields: Any) -> list[BudgetOpened]:
    made = [BudgetOpened(tenant=name, budget=one, spent=[], **fields) for name, one in book.unopened()]
    for one in made:
        book.open(one, NOW)
    return made


def ask(number: int, picos: int = 30, expires_at_ms: int = NOW + HOUR) -> HoldAsk:
    return HoldAsk(task=f"t{number}", tenant="acme", picos=picos, key_id=KEY, expires_at_ms=expires_at_ms)


def billed(picos: int) -> Billed:
    return Billed(picos=picos, tokens=0, project="default", key_id=KEY)


def standing(book: ShardBook, now_ms: int = NOW) -> tuple[int, int]:
    """What is captured and what is held."""
    (one,) = book.standings("acme", now_ms)
    return one.captured_picos, one.held_picos


def test_a_hold_shrinks_by_what_ended_attempts_cost_and_settlement_captures_the_rest() -> None:
    book = shard(budget())
    book.ask(ask(1), NOW)
    assert book.attempt_ended("t1", "acme", 1, billed(7), NOW, 1) is not None
    assert standing(book) == (7, 23)
    assert [hold.picos for hold in book.holds("acme")] == [23]
    assert book.attempt_ended("t1", "acme", 1, billed(7), NOW, 2) is None, "told again"
    assert book.attempt_ended("t1", "acme", 2, billed(0), NOW, 3) is None, "it failed, and costs the tenant nothing"
    book.attempt_ended("t1", "acme", 3, billed(8), NOW, 4)
    book.settled("t1", "acme", billed(20), NOW, 5)
    assert standing(book) == (20, 0)
    assert book.over_hold == 0


def test_an_attempt_that_ends_after_its_task_has_settled_captures_nothing() -> None:
    book = shard(budget())
    book.ask(ask(1), NOW)
    book.settled("t1", "acme", billed(20), NOW, 1)
    assert book.attempt_ended("t1", "acme", 2, billed(9), NOW, 2) is None
    assert standing(book) == (20, 0)


def test_a_task_that_dies_keeps_what_was_captured_and_settles_late_for_the_rest_alone() -> None:
    book = shard(budget())
    book.ask(ask(1, expires_at_ms=NOW + 5), NOW)
    book.attempt_ended("t1", "acme", 1, billed(7), NOW, 1)
    assert book.expire(NOW + 6) == ["t1"]
    assert standing(book) == (7, 0)
    again = ShardBook(0, lambda _tier: None)
    again.learn(tenant(budget()))
    again.restore(book.snapshot(1, NOW), NOW)
    for one in (book, again):
        one.settled("t1", "acme", billed(20), NOW + 7, 2)
        assert standing(one) == (20, 0)
    assert book.snapshot(2, NOW).captured == []


def test_what_is_captured_of_the_dead_is_forgotten_when_nothing_can_settle_it_any_more() -> None:
    book = shard(budget())
    book.ask(ask(1, expires_at_ms=NOW + 5), NOW)
    book.attempt_ended("t1", "acme", 1, billed(7), NOW, 1)
    book.expire(NOW + 6)
    assert len(book.snapshot(1, NOW).captured) == 1
    book.expire(NOW + 73 * HOUR)
    assert book.snapshot(1, NOW).captured == []


def test_a_settlement_below_what_was_captured_takes_the_excess_back_where_it_was_counted() -> None:
    book = shard(budget())
    book.ask(ask(1), NOW)
    book.attempt_ended("t1", "acme", 1, billed(7), NOW, 1)
    book.attempt_ended("t1", "acme", 2, billed(8), NOW + 60_000, 2)
    book.settled("t1", "acme", billed(5), NOW + 120_000, 3)
    assert standing(book, NOW + 120_000) == (5, 0)
    assert standing(book, NOW + HOUR + 10_000) == (0, 0), "the step of the first capture left with what stayed of it"
    assert standing(book, NOW + 2 * HOUR) == (0, 0)


def test_captures_beyond_the_hold_are_counted_and_told_once() -> None:
    book = shard(budget())
    book.ask(ask(1, 10), NOW)
    book.attempt_ended("t1", "acme", 1, billed(25), NOW, 1)
    assert standing(book) == (25, 0)
    book.settled("t1", "acme", billed(30), NOW, 2)
    assert standing(book) == (30, 0)
    assert book.over_hold == 1


def test_a_budget_that_is_opened_meanwhile_counts_what_open_tasks_had_captured() -> None:
    book = shard(budget())
    book.ask(ask(1), NOW)
    book.attempt_ended("t1", "acme", 1, billed(7), NOW, 1)
    book.learn(
        tenant(budget(), budget(50, "k", scope="key", of=KEY), budget(50, "other", scope="key", of="otherkey0001"))
    )
    opened(book)
    captured = {one.budget: one.captured_picos for one in book.standings("acme", NOW)}
    assert captured == {"b": 7, "k": 7, "other": 0}
    book.settled("t1", "acme", billed(20), NOW, 2)
    captured = {one.budget: one.captured_picos for one in book.standings("acme", NOW)}
    assert captured == {"b": 20, "k": 20, "other": 0}


def test_a_record_that_opens_a_budget_between_two_ends_counts_each_of_them_once() -> None:
    book = shard(budget())
    placed = [book.ask(ask(number), NOW)[1] for number in (1, 2)]
    ends = [book.settled("t1", "acme", billed(9), NOW, 1)]
    book.learn(tenant(budget(), budget(50, "k", scope="key", of=KEY)))
    new = BudgetOpened(tenant="acme", budget="k", spent=book.recent_of("acme", "k", NOW), after_ended=1)
    book.open(new, NOW)
    ends.append(book.settled("t2", "acme", billed(4), NOW, 2))
    record = HoldsJournaled(
        shard=0,
        at_ms=NOW,
        events_sequence=2,
        opened=[BudgetOpened(tenant="acme", budget="b", spent=[]), new],
        placed=[one for one in placed if one is not None],
        ended=[one for one in ends if one is not None],
    )
    again = ShardBook(0, lambda _tier: None)
    again.learn(tenant(budget(), budget(50, "k", scope="key", of=KEY)))
    again.apply(record, NOW)
    assert {one.budget: one.captured_picos for one in book.standings("acme", NOW)} == {"b": 13, "k": 13}
    assert again.standings("acme", NOW) == book.standings("acme", NOW)


def test_what_an_attempt_adds_to_the_charge_is_what_its_task_is_charged_for_it(make: Any) -> None:
    def call(charge: int, **fields: Any) -> AttemptUsage:
        return make.call(usage=Usage(charge_usd_picos=charge), **fields)

    task = make.task("1")
    answered = make.answered(task, call(5))
    assert billed_of(answered).picos == 5
    assert billed_of(answered).key_id == task.key_id
    assert billed_of(make.failed(task, call(5, succeeded=False, error_code="upstream_timeout"))).picos == 0
    assert billed_of(make.failed(task, call(5, succeeded=False, error_code="canceled"))).picos == 5
    assert billed_of(make.answered(task, call(5, wasted=True))).picos == 0


# Panels of three attempts, each with its charge; anything may be told twice, in any order, over any number of owners.
charges = st.lists(st.integers(0, 10), min_size=3, max_size=3)
panels = st.lists(charges, min_size=1, max_size=4)


class Owners:
    """One owner after the other of a shard: what is decided waits, is journaled, or is lost with its owner."""

    def __init__(self, record: TenantRecord, told: list[list[int]]) -> None:
        self.record = record
        self.told = told
        self.journal: list[HoldsJournaled] = []
        self.events: list[tuple[int, int, int]] = []
        self.now = NOW
        self._snapshot: tuple[Any, int] | None = None
        self.book = ShardBook(0, lambda _tier: None)
        self.book.learn(record)
        self._waiting: dict[str, list[Any]] = {}
        for name, one in self.book.unopened():
            made = BudgetOpened(tenant=name, budget=one, spent=[], at_ms=NOW)
            self.book.open(made, NOW)
            self._wait("opened", made)

    def place(self, number: int, expires_at_ms: int) -> None:
        _, hold = self.book.ask(ask(number, 30, expires_at_ms), self.now)
        assert hold is not None
        self._wait("placed", hold)

    def tell(self, task: int, number: int) -> None:
        """An event stands: the end of an attempt, or with 0 the settlement."""
        self.events.append((len(self.events) + 1, task, number))
        self._hear(*self.events[-1])

    def write(self) -> None:
        if self._waiting:
            sequence = self.book.events_sequence
            self.journal.append(HoldsJournaled(shard=0, at_ms=self.now, events_sequence=sequence, **self._waiting))
            self._waiting = {}

    def snapshot(self) -> None:
        self._snapshot = (self.book.snapshot(len(self.journal), self.now), len(self.journal))

    def die(self) -> None:
        """The next one has the snapshot, the records after it, and the events after those."""
        self._waiting = {}
        self.book = ShardBook(0, lambda _tier: None)
        self.book.learn(self.record)
        if self._snapshot is not None:
            self.book.restore(self._snapshot[0], self.now)
        for one in self.journal[self._snapshot[1] if self._snapshot is not None else 0 :]:
            self.book.apply(one, self.now)
        for event in self.events:
            self._hear(*event)
        self.book.expire(self.now)

    def _hear(self, sequence: int, task: int, number: int) -> None:
        charges, at_ms = self.told[task], NOW + sequence
        if number:
            amount = billed(charges[number - 1])
            captured = self.book.attempt_ended(f"t{task}", "acme", number, amount, at_ms, sequence)
            self._wait("captured", captured)
        else:
            self._wait("ended", self.book.settled(f"t{task}", "acme", billed(sum(charges)), at_ms, sequence))

    def _wait(self, kind: str, what: Any) -> None:
        if what is not None:
            self._waiting.setdefault(kind, []).append(what)


@given(panels, st.randoms(use_true_random=False), st.booleans())
def test_whatever_the_order_every_settled_task_is_captured_once(
    told: list[list[int]], rng: random.Random, expires: bool
) -> None:
    owners = Owners(tenant(budget(1_000), budget(900, "day", window="calendar_day")), told)
    for task in range(len(told)):
        owners.place(task, NOW + (30 if expires else HOUR))
    # What was promised is journaled before it is told.
    owners.write()
    events = [(task, number) for task in range(len(told)) for number in (1, 2, 3)] * 2
    events += [(task, 0) for task in range(len(told))]
    rng.shuffle(events)
    for task, number in events:
        owners.now += 10
        owners.tell(task, number)
        act = rng.choice([owners.write, owners.snapshot, owners.die, lambda: owners.book.expire(owners.now), None])
        if act is not None:
            act()
    expected = sum(sum(charges) for charges in told)
    for _ in range(2):
        assert {(one.captured_picos, one.held_picos) for one in owners.book.standings("acme", owners.now)} == {
            (expected, 0)
        }
        owners.die()


def test_a_budget_that_a_snapshot_has_open_is_not_opened_again_by_a_later_record() -> None:
    owners = Owners(tenant(budget(1_000)), [[5, 6, 7], [4, 0, 0]])
    owners.place(0, NOW + HOUR)
    owners.place(1, NOW + HOUR)
    owners.tell(0, 1)
    owners.tell(1, 0)
    owners.snapshot()
    owners.write()
    owners.die()
    assert standing(owners.book) == (9, 25)
    owners.tell(0, 0)
    assert standing(owners.book) == (22, 0)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_captured_and_held_never_exceeds_the_budget(seed: int) -> None:
    rng = random.Random(seed)
    book = shard(budget(200))
    open_tasks: dict[int, int] = {}
    sequence = 0
    for number in range(400):
        if not book.ask(ask(number), NOW)[0].code:
            open_tasks[number] = 0
        if open_tasks and rng.random() < 0.8:
            task = rng.choice(list(open_tasks))
            sequence += 1
            charge = rng.randint(0, 30 - open_tasks[task])
            open_tasks[task] += charge
            book.attempt_ended(f"t{task}", "acme", sequence, billed(charge), NOW, sequence)
            if rng.random() < 0.3:
                sequence += 1
                book.settled(f"t{task}", "acme", billed(open_tasks.pop(task)), NOW, sequence)
        captured, held = standing(book)
        assert captured + held <= 200
