"""The SQL of gaps: those that the last round found. One rule: a gap keeps the time at which it was first found."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from collegium_contracts.evolution import GapRow

LIST_MAX: Final = 500

_decode = msgspec.json.Decoder(GapRow).decode

_PUT: Final = """
INSERT INTO evolution.gaps AS standing (id, tenant, score, first_at_ms, row)
SELECT id, tenant, score, $5, row::jsonb || jsonb_build_object('cycle', $6::text)
FROM unnest($1::text[], $2::text[], $3::float8[], $4::text[]) AS new (id, tenant, score, row)
ON CONFLICT (id) DO UPDATE
SET score = excluded.score, row = excluded.row || jsonb_build_object('cycle', standing.row->>'cycle')
RETURNING id, row->>'cycle' = $6 AS is_new
"""
_LIST: Final = """
SELECT row || jsonb_build_object('first_at_ms', first_at_ms) AS row FROM evolution.gaps
WHERE tenant = $1 ORDER BY score DESC, id LIMIT $2
"""


async def replace(pool: Any, gaps: Sequence[GapRow], now_ms: int, cycle: str) -> set[str]:
    """Keeps exactly these gaps and returns the ids of those that this round found first, in whichever try of it."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("DELETE FROM evolution.gaps WHERE id <> ALL($1::text[])", [one.id for one in gaps])
        if not gaps:
            return set()
        columns = zip(
            *((one.id, one.tenant, one.score, msgspec.json.encode(one).decode()) for one in gaps), strict=True
        )
        rows = await connection.fetch(_PUT, *map(list, columns), now_ms, cycle)
    return {row["id"] for row in rows if row["is_new"]}


async def gaps(pool: Any, tenant: str, limit: int) -> list[GapRow]:
    """Returns the gaps of a tenant, or (empty) of all together, the worst first."""
    rows = await pool.fetch(_LIST, tenant, max(1, min(limit, LIST_MAX)))
    return [_decode(row["row"]) for row in rows]


async def erase(pool: Any, tenant: str) -> int:
    """Removes a tenant's gaps and returns how many those were."""
    status: str = await pool.execute("DELETE FROM evolution.gaps WHERE tenant = $1", tenant)
    return int(status.rpartition(" ")[2])
