"""Jobs that one replica does at a time, by an advisory lock of PostgreSQL.

One rule: a lock's number stands here and nowhere else, so that no two jobs share one.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import IntEnum

import asyncpg
import structlog

log = structlog.get_logger(__name__)


class Job(IntEnum):
    """What is done by one replica at a time; the numbers mean nothing but to be these."""

    BUDGET_ALERTS = 7_301_001
    PURGE_REQUEST_LOG = 7_301_002
    PURGE_TASKS = 7_301_003
    EVOLUTION_CYCLE = 7_301_004
    CALIBRATION = 7_301_020


@asynccontextmanager
async def alone(pool: asyncpg.Pool, job: Job) -> AsyncGenerator[bool]:
    """Yields whether no other replica is at the same job; the lock is given back at the end, or at death."""
    async with pool.acquire() as connection, connection.transaction():
        yield bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", int(job)))


class Rounds:
    """Does a job at once and then every ``every_seconds``, in whichever replica is alone at it; ``start`` and ``stop``
    bracket its life."""

    def __init__(
        self, pool: asyncpg.Pool, job: Job, work: Callable[[], Awaitable[object]], *, every_seconds: float
    ) -> None:
        self._pool = pool
        self._job = job
        self._work = work
        self._every_seconds = every_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins with a round."""
        self._task = asyncio.create_task(self._run(), name=self._job.name.lower())

    async def stop(self) -> None:
        """Stops where the round in hand waits."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                async with alone(self._pool, self._job) as mine:
                    if mine:
                        await self._work()
            except Exception as error:  # a round that failed must not end the rounds
                log.warning("round failed", job=self._job.name.lower(), error=type(error).__name__)
            await asyncio.sleep(self._every_seconds)
