"""Erasing a tenant: its vectors, then its turns, some thousands at a time, so that no lock is held for long."""

from __future__ import annotations

import asyncpg
from collegium_contracts.scope import Scope

from collegium_context.vectors.interface import VectorStore

AT_ONCE = 5_000

_DELETE = """
WITH gone AS (
    DELETE FROM context.turns
    WHERE task_id IN (SELECT task_id FROM context.turns WHERE tenant = $1 LIMIT $2) RETURNING 1
)
SELECT count(*) FROM gone
"""


async def erase(pool: asyncpg.Pool, vectors: VectorStore, tenant: str) -> int:
    """Deletes all vectors and turns of a tenant and returns how many turns there were."""
    await vectors.forget(Scope(tenant))
    total = 0
    while gone := await pool.fetchval(_DELETE, tenant, AT_ONCE):
        total += gone
    return total
