"""Holds of open plans: all of what may be charged where that is covered, the least where only that is."""

from __future__ import annotations

from collegium_billing.holds.shardbook import ShardBook
from collegium_contracts.holds import Billed, BudgetOpened, HoldsJournaled
from collegium_contracts.requests import HoldAnswer, HoldAsk
from collegium_contracts.state import BudgetRecord, TenantRecord

NOW = 1_767_225_600_000


def book_of(limit: int | None) -> ShardBook:
    book = ShardBook(0, lambda _tier: None)
    budgets = [BudgetRecord(id="b", scope="tenant", limit_picos=limit, window_seconds=3600)] if limit else []
    book.learn(TenantRecord(id="acme", tier="pro", budgets=budgets))
    for name, budget_id in book.unopened():
        book.open(BudgetOpened(tenant=name, budget=budget_id, spent=[]), NOW)
    return book


def asked(book: ShardBook, number: int, picos: int = 30, least: int = 10) -> HoldAnswer:
    ask = HoldAsk(task=f"t{number}", tenant="acme", picos=picos, picos_least=least, expires_at_ms=NOW + 3_600_000)
    return book.ask(ask, NOW)[0]


def held(book: ShardBook) -> int:
    return book.standings("acme", NOW)[0].held_picos


def test_all_is_held_where_it_is_covered_then_the_least_then_nothing():
    book = book_of(45)
    assert [(one.code, one.is_least) for one in (asked(book, number) for number in range(3))] == [
        ("", False), ("", True), ("insufficient_quota", False),
    ]  # fmt: skip
    assert held(book) == 40
    # Asked again, as after a lost answer, each is told what it has.
    assert [asked(book, number).is_least for number in range(2)] == [False, True]
    assert held(book) == 40


def test_what_was_held_for_the_least_stays_the_least_after_prices_rose():
    book = book_of(15)
    assert asked(book, 1).is_least
    assert asked(book, 1, picos=36, least=12).is_least
    assert not asked(book, 1, picos=36, least=0).is_least, "it has one plan"


def test_a_task_with_no_least_is_refused_as_ever():
    refused = asked(book_of(25), 1, least=0)
    assert (refused.code, "0.00000000003" in refused.message) == ("insufficient_quota", True)
    assert "0.00000000001 USD;" in asked(book_of(5), 1).message, "what would do is the least"


def test_what_no_budget_covers_is_not_held_and_not_the_least():
    assert asked(book_of(None), 1) == HoldAnswer()


def test_the_journal_gives_the_same_hold_and_settling_frees_what_was_not_charged():
    book = book_of(15)
    ask = HoldAsk(task="t1", tenant="acme", picos=30, picos_least=10, expires_at_ms=NOW + 3_600_000)
    answer, placed = book.ask(ask, NOW)
    assert (answer.is_least, placed.picos) == (True, 10)
    after = book_of(15)
    after.apply(HoldsJournaled(shard=0, at_ms=NOW, events_sequence=0, placed=[placed]), NOW)
    assert (held(after), after.ask(ask, NOW)[0].is_least) == (10, True)
    for one in (book, after):
        one.settled("t1", "acme", Billed(picos=4, tokens=0, project="default", key_id=""), NOW, 1)
        (standing,) = one.standings("acme", NOW)
        assert (standing.captured_picos, standing.held_picos) == (4, 0)
