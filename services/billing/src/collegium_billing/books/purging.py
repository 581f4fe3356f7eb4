"""Removing rows that are older than the request log is kept (starts, calls and tasks, in small batches), and the days
of the archive that are older than it.

The sums hold every row since it was booked, so reports of full hours and invoices stay as they are; invoices and sums
are never removed. One rule: the horizon is written before the first row goes, so that a report never counts rows that
are half gone.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
import structlog
from collegium_settings import Settings
from collegium_store import archive
from collegium_store.alone import Job, Rounds

from collegium_billing.books.sums import DAY_MS, HOUR_MS

log = structlog.get_logger(__name__)

ROUND_SECONDS = 600.0
BATCH_ROWS = 2_000
PAUSE_SECONDS = 0.05

_HORIZON = """
INSERT INTO billing.purges AS standing (horizon)
VALUES (timestamptz 'epoch' + $1::int8 * interval '1 millisecond')
ON CONFLICT (one) DO UPDATE SET horizon = greatest(standing.horizon, excluded.horizon)
"""
_TIMES = {"starts": "at", "attempts": "at", "tasks": "settled_at"}


def horizon_ms(now_ms: int, retention_days: int) -> int:
    """Returns before which time rows go: a full hour, and an hour more than asked for.

    So a report of as many days up to now finds the rows of the hour that its beginning cuts.
    """
    kept = now_ms - retention_days * DAY_MS
    return kept - kept % HOUR_MS - HOUR_MS


class Purging:
    """The job; its ``rounds`` are started and stopped."""

    def __init__(self, pool: asyncpg.Pool, now_ms: Callable[[], int], settings: Callable[[], Settings]) -> None:
        self._pool = pool
        self._now_ms = now_ms
        self._settings = settings
        self.rounds = Rounds(pool, Job.PURGE_REQUEST_LOG, self._round, every_seconds=ROUND_SECONDS)

    async def _round(self) -> None:
        await self.purge()
        await self.purge_archive()

    async def purge(self) -> int:
        """Removes what is older than the horizon and returns how many rows that was."""
        horizon = horizon_ms(self._now_ms(), self._settings().requests.retention_days)
        await self._pool.execute(_HORIZON, horizon)
        removed = 0
        for table, column in _TIMES.items():
            while (count := await self._batch(table, column, horizon)) > 0:
                removed += count
                await asyncio.sleep(PAUSE_SECONDS)
        if removed:
            log.info("request log purged", rows=removed)
        return removed

    async def purge_archive(self) -> int:
        """Drops the days of the archive that are older than it is kept, whole, and returns how many that were."""
        kept_days = self._settings().archive.retention_days
        if kept_days is None:
            return 0
        first = datetime.fromtimestamp((self._now_ms() - kept_days * DAY_MS) / 1000, UTC).date()
        async with self._pool.acquire() as connection:
            dropped = await archive.drop_before(connection, first)
        if dropped:
            log.info("archive purged", days=len(dropped), before=first.isoformat())
        return len(dropped)

    async def _batch(self, table: str, column: str, horizon: int) -> int:
        status: str = await self._pool.execute(
            f"""
            DELETE FROM billing.{table} WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM billing.{table}
                WHERE {column} < timestamptz 'epoch' + $1::int8 * interval '1 millisecond' LIMIT {BATCH_ROWS}
            ))
            """,  # noqa: S608 - made of this module's constants alone
            horizon,
        )
        return int(status.rpartition(" ")[2])
