"""Laws and invoices where the rows of tasks and calls were purged: they hold as before, and find what is planted."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from collegium_billing.books.auditing import Auditor
from collegium_billing.books.booking import book
from collegium_billing.books.ledger_store import Correction, LedgerStore
from collegium_billing.books.purging import Purging
from collegium_billing.books.store import Store
from collegium_billing.books.sums import HOUR_MS
from collegium_billing.reports import invoices
from collegium_billing.reports.invoice_store import InvoiceStore
from collegium_billing.reports.invoices import document, month_of
from collegium_contracts.messages import AttemptRef, AttemptStarted, JourneyMessage
from collegium_contracts.money import Price, Usage, cost_usd_picos
from collegium_settings import Settings
from collegium_settings.settings import ArchiveSettings
from collegium_store import archive, open_pool
from collegium_store.archive import ArchivedEvent

PRICE = Price(input_picos=7, output_picos=11, cached_input_picos=3, cache_write_picos=13, reasoning_picos=17)
LATER_MS = 1_800_000_000_000
USAGE = Usage(input_tokens=50, output_tokens=9, cached_input_tokens=20, cache_write_tokens=5, reasoning_tokens=4)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await open_pool(database_url, application_name="purged-test")
    for tenant in ("acme", "t0", "t1", "t2"):
        await pool.execute("INSERT INTO billing.tenants (id, tier, created_at) VALUES ($1, 'free', now())", tenant)
    yield pool
    await pool.close()


def priced(make: Any, name: str, at_ms: int, *, charge: int | None = None) -> list[JourneyMessage]:
    """The events of a task whose call has a pinned price; it is charged what it cost unless another amount is given."""
    cost = cost_usd_picos(PRICE, USAGE)
    usage = Usage(50, 9, 20, 4, False, cost, cost, 5)
    call = make.call(cost=cost, usage=usage, price_version=3)
    task = make.task(name, project="web")
    attempt = AttemptRef(
        number=1, of=1, model="m", rank="student", pool="general", price=PRICE, charge=PRICE, price_version=3
    )
    began = AttemptStarted(task=task, attempt=attempt, delivery=1, worker="w", at_ms=at_ms)
    settled = make.settled(task, [call], charge=cost if charge is None else charge, at_ms=at_ms)
    return [began, settled]


async def purged(pool: asyncpg.Pool) -> None:
    assert await Purging(pool, lambda: LATER_MS, Settings).purge() > 0
    for table in ("tasks", "attempts"):
        assert await pool.fetchval(f"SELECT count(*) FROM billing.{table}") == 0


async def broken(pool: asyncpg.Pool, make: Any) -> dict[str, int]:
    async def absent(_sequence: int) -> str | None:
        return None

    found = await Auditor(LedgerStore(pool), absent).audit(make.now_ms - 10**9, make.now_ms + 10**9)
    return {one.law.name: one.violations for one in found if one.violations}


FAULTS = {
    "charge_is_in_ledger": "UPDATE billing.entries SET amount_picos = 2 * amount_picos WHERE transaction IN"
    " (SELECT id FROM billing.transactions WHERE kind = 'charge' LIMIT 1)",
    "cost_is_in_ledger": "UPDATE billing.entries SET amount_picos = 2 * amount_picos WHERE transaction IN"
    " (SELECT id FROM billing.transactions WHERE kind = 'call' LIMIT 1)",
    "usage_times_price_is_cost": "UPDATE billing.transactions SET output_tokens = output_tokens + 1"
    " WHERE kind = 'call'",
    "transaction_sums_to_zero": "DELETE FROM billing.entries WHERE line = 2",
    "ledger_sums_to_zero": "UPDATE billing.entries SET amount_picos = amount_picos + 1 WHERE line = 1",
    "tenant_is_known": "DELETE FROM billing.tenants WHERE id = 'acme'",
}
LOST = {
    "charge_is_in_ledger": "DELETE FROM billing.entries WHERE transaction IN"
    " (SELECT id FROM billing.transactions WHERE kind = 'charge')",
    "cost_is_in_ledger": "DELETE FROM billing.entries WHERE transaction IN"
    " (SELECT id FROM billing.transactions WHERE kind = 'call')",
}


@pytest.mark.parametrize(("law", "fault"), [*FAULTS.items(), *LOST.items()])
async def test_a_fault_is_found_where_the_rows_are_gone(pool: asyncpg.Pool, make: Any, law: str, fault: str) -> None:
    await Store(pool).book(book(priced(make, "a", make.now_ms)), [])
    await purged(pool)
    assert await broken(pool, make) == {}
    for table in ("transactions", "entries"):
        await pool.execute(f"ALTER TABLE billing.{table} DISABLE TRIGGER USER")
    await pool.execute(fault)
    assert law in await broken(pool, make)


async def test_calls_that_moved_to_another_hour_or_became_waste_later_break_no_law(
    pool: asyncpg.Pool, make: Any, rng: random.Random
) -> None:
    store = Store(pool)
    events = [event for number in range(40) for event in make.a_history(number, rng)]
    rng.shuffle(events)
    for event in events:
        await store.book(book([event]), [])
    task = make.task("moved")
    for event in (
        make.settled(task, [make.call(cost=9)], at_ms=make.now_ms + 2 * HOUR_MS),
        make.answered(task, make.call(cost=9), at_ms=make.now_ms),
        make.discarded(task, make.call(cost=9), at_ms=make.now_ms + 4 * HOUR_MS),
    ):
        await store.book(book([event]), [])
    assert await broken(pool, make) == {}
    await purged(pool)
    assert await broken(pool, make) == {}
    await pool.execute("DELETE FROM billing.sums_moved")
    assert "cost_is_in_ledger" in await broken(pool, make), "they had moved"


async def test_an_invoice_is_of_entries_and_versions_alone_and_shows_corrections(pool: asyncpg.Pool, make: Any) -> None:
    month = month_of("2026-01", LATER_MS)
    store, ledger = Store(pool), LedgerStore(pool)
    for number in range(3):
        await store.book(book(priced(make, f"a{number}", make.now_ms + number)), [])
    await ledger.correct(Correction("refund-1", "acme", -(10**12), "an outage", make.now_ms))
    await ledger.correct(Correction("other-month", "acme", -(10**12), "an outage", LATER_MS))
    kept = InvoiceStore(pool)
    made = await kept.invoice("acme", month)
    (line,) = made.lines
    assert (line.project, line.model, line.requests, line.price_version) == ("web", "m", 3, 3)
    assert (line.input_tokens, line.cached_input_tokens, line.cache_write_tokens) == (150, 60, 15)
    assert (line.output_tokens, line.reasoning_tokens) == (27, 12)
    assert (line.prices["input"], line.prices["reasoning"]) == ("0.000007", "0.000017")
    assert [(one.id, one.reason, one.amount_usd) for one in made.corrections] == [("refund-1", "an outage", "-1")]
    total = 3 * cost_usd_picos(PRICE, USAGE) - 10**12
    assert invoices.total_cents(made) == invoices.cents(total)
    await purged(pool)
    await pool.execute("DELETE FROM billing.usage_sums")
    assert document(await kept.invoice("acme", month)) == document(made)
    assert invoices.page(await kept.invoice("acme", month)) == invoices.page(made)
    assert b"an outage" in invoices.page(made)


async def test_days_of_the_archive_go_when_they_are_older_than_it_is_kept(pool: asyncpg.Pool) -> None:
    now_ms = 1_800_000_000_000
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    kept, old = now - timedelta(days=90), now - timedelta(days=91)
    events = [ArchivedEvent("EVENTS", n, "s", "acme", "t", at, b"", b"") for n, at in enumerate((old, kept, now))]
    await archive.append(pool, events)

    async def standing() -> list[int]:
        return [event.sequence for event in await archive.read(pool)]

    forever = Settings(archive=ArchiveSettings(retention_days=None))
    assert await Purging(pool, lambda: now_ms, lambda: forever).purge_archive() == 0
    assert await standing() == [0, 1, 2]
    assert await Purging(pool, lambda: now_ms, Settings).purge_archive() == 1
    assert await standing() == [1, 2]
