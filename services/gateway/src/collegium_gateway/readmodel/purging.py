"""Removing tasks that settled longer ago than they are kept, with their callbacks, in small batches.

One rule: a task that has not settled is never removed, nor one whose callback is still to be told.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import asyncpg
import structlog
from collegium_store.alone import Job, Rounds

log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 600.0
BATCH_ROWS: Final = 1_000
PAUSE_SECONDS: Final = 0.05
DAY_MS: Final = 86_400_000

_PURGE = f"""
WITH gone AS (
    DELETE FROM gateway.tasks WHERE task_id = ANY (ARRAY(
        SELECT task_id FROM gateway.tasks AS old
        WHERE settled_at_ms < $1 AND NOT EXISTS (
            SELECT FROM gateway.webhooks WHERE webhooks.task_id = old.task_id AND state = 'due'
        )
        ORDER BY settled_at_ms LIMIT {BATCH_ROWS}
    )) RETURNING task_id
), told AS (
    DELETE FROM gateway.webhooks USING gone WHERE webhooks.task_id = ANY(
        ARRAY[gone.task_id, gone.task_id || '.request', gone.task_id || '.answer']
    )
), asked AS (
    DELETE FROM gateway.questions USING gone WHERE questions.task_id = gone.task_id
)
SELECT count(*) FROM gone
"""  # noqa: S608 - made of this module's constants alone


class Purging:
    """The job; its ``rounds`` are started and stopped."""

    def __init__(self, pool: asyncpg.Pool, now_ms: Callable[[], int], kept_days: Callable[[], int]) -> None:
        self._pool = pool
        self._now_ms = now_ms
        self._kept_days = kept_days
        self.rounds = Rounds(pool, Job.PURGE_TASKS, self.purge, every_seconds=ROUND_SECONDS)

    async def purge(self) -> int:
        """Removes what settled longer ago than it is kept, and returns how many tasks that was."""
        before_ms = self._now_ms() - self._kept_days() * DAY_MS
        removed = 0
        while count := await self._pool.fetchval(_PURGE, before_ms):
            removed += count
            await asyncio.sleep(PAUSE_SECONDS)
        if removed:
            log.info("tasks purged", tasks=removed)
        return removed
