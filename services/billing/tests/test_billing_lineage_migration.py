"""The lineages' migration: what stood before becomes one budget of each lineage, with the charges of all its keys."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from collegium_billing.holds.spending import Spending
from collegium_billing.migrations import MIGRATIONS
from collegium_contracts.state import BudgetRecord
from collegium_store import migrate, open_pool
from collegium_store.archive import ARCHIVE_MIGRATIONS
from collegium_store.migrations import Migrations

FIRST, SECOND, THIRD = "firstkey0001", "secondkey002", "thirdkey0003"


@pytest.fixture(scope="module")
def database_migrations() -> None:
    """The test migrates by itself."""


async def test_copies_of_a_budget_become_one(database_url: str, tmp_path: Path) -> None:
    before = Migrations("billing", tmp_path)
    for file in MIGRATIONS.location.glob("000[1-7]_*.py"):
        shutil.copy(file, tmp_path)
    await migrate(database_url, [ARCHIVE_MIGRATIONS, before])
    pool = await open_pool(database_url, application_name="test")
    try:
        await pool.execute("INSERT INTO billing.tenants (id, tier, created_at) VALUES ('acme', 'pro', now())")
        ages = ((FIRST, 3), (SECOND, 2), (THIRD, 1), ("alonekey0001", 1))
        for key_id, age in ages:
            await pool.execute(
                "INSERT INTO billing.keys (id, tenant, secret_sha256, project, scopes, name, created_at)"
                " VALUES ($1, 'acme', '', 'default', '{chat}', '', now() - $2 * interval '1 day')",
                key_id,
                age,
            )
        for key_id, successor in ((FIRST, SECOND), (SECOND, THIRD)):
            await pool.execute("UPDATE billing.keys SET rotated_to = $2 WHERE id = $1", key_id, successor)
        for key_id, picos in ((FIRST, 7), (SECOND, 7), (THIRD, 9), ("alonekey0001", 5)):
            await pool.execute(
                "INSERT INTO billing.budgets VALUES ('acme', 'key-' || $1, 'key', $1, $2, 'rolling', 60, '{}',"
                " now(), now())",
                key_id,
                picos,
            )
        await migrate(database_url, [MIGRATIONS])
        rows = await pool.fetch("SELECT id, of_id, limit_picos::int FROM billing.budgets ORDER BY 1")
        assert [tuple(row) for row in rows] == [
            ("key-alonekey0001", "alonekey0001", 5),
            (f"key-{FIRST}", FIRST, 9),
        ]
        rows = await pool.fetch("SELECT id, lineage FROM billing.keys WHERE lineage <> '' ORDER BY 1")
        assert [tuple(row) for row in rows] == [(SECOND, FIRST), (THIRD, FIRST)]
        now = time.time_ns() // 1_000_000
        for number, key_id in enumerate((FIRST, THIRD, "alonekey0001")):
            await pool.execute(
                "INSERT INTO billing.tasks (task_id, tenant, project, key_id, state, model, rank, plan, tags,"
                " settled_at, input_tokens, output_tokens, cached_input_tokens, charge_picos,"
                " stop_reason, reasoning_tokens, estimated)"
                " VALUES ($1, 'acme', 'default', $2, 'completed', 'm', 'student', 'single', '{}', now(), 0, 0, 0,"
                " 10, 'completed', 0, false)",
                f"t{number}",
                key_id,
            )
        budget = BudgetRecord(id="k", scope="key", of=FIRST, limit_picos=100, window_seconds=3600)
        spent = await Spending(pool).spent("acme", budget, now, now + 1_000)
        assert sum(picos for _, picos in spent) == 20, "of all keys of the lineage"
    finally:
        await pool.close()
