"""Jobs that one replica does at a time, by an advisory lock of PostgreSQL.

One rule: a lock's number stands here and nowhere else, so that no two jobs share one.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from enum import IntEnum

import asyncpg


class Job(IntEnum):
    """What is done by one replica at a time; the numbers mean nothing but to be these."""

    BUDGET_ALERTS = 7_301_001
    PURGE_REQUEST_LOG = 7_301_002
    PURGE_TASKS = 7_301_003


@asynccontextmanager
async def alone(pool: asyncpg.Pool, job: Job) -> AsyncGenerator[bool]:
    """Yields whether no other replica is at the same job; the lock is given back at the end, or at death."""
    async with pool.acquire() as connection, connection.transaction():
        yield bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", int(job)))
