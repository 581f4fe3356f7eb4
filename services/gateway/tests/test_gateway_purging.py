"""Tasks and callbacks are removed once they have been kept for long enough, and never before."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from collegium_gateway.readmodel import purging
from collegium_gateway.readmodel.purging import DAY_MS, Purging
from collegium_store import open_pool

NOW_MS = 100 * DAY_MS
OLD_MS, YOUNG_MS = NOW_MS - 30 * DAY_MS - 1, NOW_MS - 30 * DAY_MS


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await open_pool(database_url, application_name="purging-test")
    yield pool
    await pool.close()


async def add(pool: asyncpg.Pool, name: str, settled_at_ms: int | None, callback: str | None = None) -> None:
    await pool.execute(
        "INSERT INTO gateway.tasks VALUES ($1, 'acme', 'completed', 9, 1, $2, 'ref', NULL)", name, settled_at_ms
    )
    if callback is not None:
        await pool.execute(
            "INSERT INTO gateway.webhooks (task_id, tenant, receiver, callback, state)"
            " VALUES ($1, 'acme', 'r', '', $2)",
            name,
            callback,
        )


async def test_what_was_kept_long_enough_goes_and_the_rest_stays(pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(purging, "PAUSE_SECONDS", 0)
    await add(pool, "old", OLD_MS)
    await add(pool, "old and told", OLD_MS, "delivered")
    await add(pool, "old, given up", OLD_MS, "failed")
    await add(pool, "old, still to be told", OLD_MS, "due")
    await add(pool, "young", YOUNG_MS, "delivered")
    await add(pool, "never settled", None, "waiting")
    purge = Purging(pool, lambda: NOW_MS, lambda: 30)
    assert await purge.purge() == 3
    assert await purge.purge() == 0
    kept = [row[0] for row in await pool.fetch("SELECT task_id FROM gateway.tasks ORDER BY 1")]
    assert kept == ["never settled", "old, still to be told", "young"]
    told = [row[0] for row in await pool.fetch("SELECT task_id FROM gateway.webhooks ORDER BY 1")]
    assert told == kept


async def test_more_than_a_batch_goes_in_one_round(pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(purging, "PAUSE_SECONDS", 0)
    await pool.execute(
        "INSERT INTO gateway.tasks SELECT 't' || n, 'acme', 'completed', 9, 1, $1, 'ref', NULL"
        " FROM generate_series(1, $2) AS n",
        OLD_MS,
        2 * purging.BATCH_ROWS + 1,
    )
    assert await Purging(pool, lambda: NOW_MS, lambda: 30).purge() == 2 * purging.BATCH_ROWS + 1
