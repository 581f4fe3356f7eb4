"""Erasing a tenant from the gateway: rows, idempotency claims, shared answers, dead letters.

One rule: rows go some thousands at a time, so that no lock is held for long.
"""

from __future__ import annotations

from typing import Final

import asyncpg
from collegium_bus.connection import Connection
from collegium_bus.purging import purge
from collegium_contracts import belongings
from collegium_contracts import subjects as s

AT_ONCE: Final = 5_000
_TABLES: Final = (
    ("gateway.webhooks", "task_id"),
    ("gateway.questions", "task_id"),
    ("gateway.tasks", "task_id"),
    ("gateway.webhook_secrets", "tenant"),
)


class GatewayErasure:
    """The gateway's part of an erasure."""

    def __init__(self, pool: asyncpg.Pool, connection: Connection) -> None:
        self._pool = pool
        self._connection = connection

    async def erase(self, tenant: str) -> int:
        """Removes what stands of a tenant and returns how many rows and messages that were."""
        total = 0
        for table, key in _TABLES:
            statement = (
                f"WITH gone AS (DELETE FROM {table} WHERE {key} IN"  # noqa: S608 - constants
                f" (SELECT {key} FROM {table} WHERE tenant = $1 LIMIT $2) RETURNING 1) SELECT count(*) FROM gone"
            )
            while gone := await self._pool.fetchval(statement, tenant, AT_ONCE):
                total += gone
        for bucket in (s.KV_IDEMPOTENCY, s.KV_CACHE):
            total += await purge(self._connection, *belongings.bucket_of(bucket, tenant))
        return total + await purge(self._connection, s.DEAD, s.dead_of(tenant=tenant))
