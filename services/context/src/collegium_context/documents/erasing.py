"""Erasing what a tenant's documents left in PostgreSQL, some thousands of rows at a time."""

from __future__ import annotations

import asyncpg

AT_ONCE = 5_000
_TABLES = ("documents", "chunks", "loose_points", "knowledge", "search_profiles")
_DELETE = """
WITH gone AS (
    DELETE FROM context.{table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM context.{table} WHERE tenant = $1 LIMIT $2))
    RETURNING 1
)
SELECT count(*) FROM gone
"""


async def erase_documents(pool: asyncpg.Pool, tenant: str) -> int:
    """Deletes all documents, chunks and profiles of a tenant and returns how many rows there were."""
    total = 0
    for table in _TABLES:
        while gone := await pool.fetchval(_DELETE.format(table=table), tenant, AT_ONCE):
            total += gone
    return total
