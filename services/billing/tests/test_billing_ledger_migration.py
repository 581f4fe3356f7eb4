"""The ledger's migration: what was booked before is posted as it would have been, and the service may only add."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from collegium_billing.books.auditing import Auditor
from collegium_billing.books.booking import book
from collegium_billing.books.ledger_store import LedgerStore
from collegium_billing.books.store import Store
from collegium_billing.migrations import MIGRATIONS
from collegium_store import migrate, open_pool
from collegium_store.archive import ARCHIVE_MIGRATIONS
from collegium_store.migrations import Migrations

BOOKS = ("starts", "attempts", "tasks")


@pytest.fixture(scope="module")
def database_migrations() -> None:
    """Each test migrates by itself."""


async def absent(_sequence: int) -> str | None:
    return None


async def test_what_was_booked_before_is_posted(
    database_url: str, tmp_path: Path, make: Any, rng: random.Random
) -> None:
    before = Migrations("billing", tmp_path)
    shutil.copy(MIGRATIONS.location / "0001_books.py", tmp_path)
    await migrate(database_url, [ARCHIVE_MIGRATIONS, before])
    pool = await open_pool(database_url, application_name="test")
    await pool.execute("INSERT INTO billing.tenants VALUES ('t0', 'free', now()), ('t1', 'free', now())")
    books = book(event for number in range(20) for event in make.a_history(number, rng))
    await pool.executemany(
        """
        INSERT INTO billing.attempts VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::jsonb,
            to_timestamp($11::int8 / 1000.0), $12, $13, $14, $15, $16, $17::text::numeric, $18, $19, $20, $21)
        """,
        [row[:21] for row in books.attempts],
    )
    await pool.executemany(
        """
        INSERT INTO billing.tasks VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb,
            to_timestamp($9::int8 / 1000.0), $10, $11, $12, $13, $14, $15, $16, $17::text::numeric)
        """,
        [row[:17] for row in books.tasks],
    )
    await migrate(database_url, [MIGRATIONS])
    posted = await pool.fetchval("SELECT count(*) FROM billing.transactions")
    found = await Auditor(LedgerStore(pool), absent).audit(make.now_ms - 10**9, make.now_ms + 10**9)
    assert {one.law.name: one.examples for one in found if one.violations} == {}
    reasoned = sum(task.reasoning_tokens for task in books.tasks)
    for seconds in (3600, 86_400):
        summed = "SELECT sum(reasoning_tokens) FROM billing.usage_sums WHERE seconds = $1"
        assert await pool.fetchval(summed, seconds) == reasoned > 0
    bare = "SELECT count(*) FROM billing.transactions WHERE kind IN ('call', 'charge') AND output_tokens IS NULL"
    assert await pool.fetchval(bare) == 0, "what made an amount stands with it"
    await Store(pool).book(books, [])
    assert await pool.fetchval("SELECT count(*) FROM billing.transactions") == posted > 0, (
        "told again, nothing is added"
    )
    await pool.close()


async def test_the_services_role_may_add_to_the_ledger_and_not_change_it(database_url: str) -> None:
    await migrate(database_url, [ARCHIVE_MIGRATIONS, MIGRATIONS], roles=True)
    pool = await open_pool(database_url, application_name="test")
    try:
        for table in ("transactions", "entries", "corrections", "prices"):
            may = [
                await pool.fetchval("SELECT has_table_privilege('collegium_billing', $1, $2)", f"billing.{table}", what)
                for what in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
            ]
            assert may == [True, True, False, False, False], table
        assert await pool.fetchval("SELECT has_table_privilege('collegium_billing', 'billing.attempts', 'UPDATE')")
        assert await pool.fetchval("SELECT has_table_privilege('collegium_billing', 'billing.sums_moved', 'INSERT')")
    finally:
        for schema in ("billing", "archive"):
            role = f"collegium_{schema}"
            await pool.execute(f"GRANT {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}")
        await pool.close()
