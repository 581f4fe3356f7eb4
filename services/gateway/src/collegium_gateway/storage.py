"""How much is stored of a tenant: its tasks with their references and results, as PostgreSQL keeps them.

One rule: it is counted when it is asked for, so that no task pays for it.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import asyncio
from typing import NamedTuple

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none

from collegium_gateway.errors import ApiError

COUNT_SECONDS = 20.0

# The size of a compressed or moved-out value is read from its head, without the value.
_STORED = """
SELECT count(*), coalesce(sum(pg_column_size(reference) + coalesce(pg_column_size(settled), 0)), 0)
FROM gateway.tasks WHERE tenant = $1
"""


class Stored(NamedTuple):
    """What is stored of a tenant."""

    tasks: int
    stored_bytes: int


class StorageStore:
    """Counts over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def of_tenant(self, tenant: str) -> Stored:
        """Counts what is stored of a tenant; ApiError ``internal_error`` after COUNT_SECONDS."""
        try:
            async with asyncio.timeout(COUNT_SECONDS):
                tasks, stored = await self._pool.fetchrow(_STORED, tenant)
        except TimeoutError as error:
            raise ApiError("internal_error", f"tenant {tenant} has too many tasks to be counted now") from error
        return Stored(tasks, int(stored))
