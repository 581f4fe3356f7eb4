"""Erasing a tenant's rows, some thousands at a time, so that no lock is held for long."""

from __future__ import annotations

import asyncpg
from collegium_contracts.scope import Scope

from collegium_context.vectors.interface import VectorStore

AT_ONCE = 5_000

# Rows go by their place in the table, as few of the tables have a key of one column.
_DELETE = """
WITH gone AS (
    DELETE FROM context.{table}
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM context.{table} WHERE tenant = $1 LIMIT $2)) RETURNING 1
)
SELECT count(*) FROM gone
"""
TABLES = (
    "turns",
    "memories",
    "recalls",
    "shared",
    "memory_grants",
    "memory_paths",
    "forgotten_turns",
    "kept_answers",
    "kept_scopes",
    "kept_clears",
)


async def erase(pool: asyncpg.Pool, vectors: VectorStore, tenant: str) -> int:
    """Deletes all of a tenant's points and rows and returns how many rows there were."""
    await vectors.forget(Scope(tenant))
    total = 0
    for table in TABLES:
        statement = _DELETE.format(table=table)
        while gone := await pool.fetchval(statement, tenant, AT_ONCE):
            total += gone
    return total
