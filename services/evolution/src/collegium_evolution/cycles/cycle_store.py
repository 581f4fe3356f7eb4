"""The SQL of rounds. One rule: at most one round is running, which the table itself sees to."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from typing import Any, Final

import asyncpg
import msgspec
from collegium_contracts.evolution import CycleRow

from collegium_evolution.cycles.planning import names

LIST_MAX: Final = 200
# Rounds whose reports are kept.
KEPT: Final = 1_000

_decode = msgspec.json.Decoder(CycleRow).decode

_LAST: Final = "SELECT coalesce((SELECT queries FROM evolution.cycles ORDER BY number DESC LIMIT 1), 0)"
_PUT: Final = "UPDATE evolution.cycles SET state = $2, row = $3::jsonb WHERE id = $1"
_NAMING: Final = "SELECT row FROM evolution.cycles WHERE position($1 in row::text) > 0 FOR UPDATE"
_PRUNE: Final = """
DELETE FROM evolution.cycles
WHERE number < (SELECT max(number) FROM evolution.cycles) - $1 AND state <> 'running'
"""


async def begin(pool: Any, cycle: CycleRow) -> bool:
    """Begins a round; false where one is running."""
    row = msgspec.json.encode(cycle).decode()
    statement = "INSERT INTO evolution.cycles (id, state, queries, row) VALUES ($1, $2, $3, $4::jsonb)"
    try:
        await pool.execute(statement, cycle.id, cycle.state, cycle.queries, row)
    except asyncpg.UniqueViolationError:
        return False
    await pool.execute(_PRUNE, KEPT)
    return True


async def put(pool: Any, cycle: CycleRow) -> None:
    """Keeps how far a round has come."""
    await pool.execute(_PUT, cycle.id, cycle.state, msgspec.json.encode(cycle).decode())


async def erase(pool: Any, tenant: str) -> int:
    """Removes the lines of reports that name a tenant, and returns how many rounds had some.

    A round that is running may write its own back; the erasure sweeps again.
    """
    changed = 0
    async with pool.acquire() as connection, connection.transaction():
        for one in await connection.fetch(_NAMING, tenant):
            cycle = _decode(one["row"])
            steps = [
                msgspec.structs.replace(step, lines=[line for line in step.lines if not names(line, tenant)])
                for step in cycle.steps
            ]
            if steps != cycle.steps:
                changed += 1
                await put(connection, msgspec.structs.replace(cycle, steps=steps))
    return changed


async def running(pool: Any) -> CycleRow | None:
    """Returns the round that is running, none where there is none."""
    row = await pool.fetchval("SELECT row FROM evolution.cycles WHERE state = 'running'")
    return _decode(row) if row is not None else None


async def settled_before(pool: Any) -> int:
    """Returns how many tasks had settled when the newest round began."""
    return await pool.fetchval(_LAST)


async def cycles(pool: Any, limit: int) -> list[CycleRow]:
    """Returns rounds, the newest first."""
    statement = "SELECT row FROM evolution.cycles ORDER BY number DESC LIMIT $1"
    return [_decode(row["row"]) for row in await pool.fetch(statement, max(1, min(limit, LIST_MAX)))]


async def cycle(pool: Any, cycle_id: str) -> CycleRow | None:
    """Returns one round, none where there is none of this id."""
    row = await pool.fetchval("SELECT row FROM evolution.cycles WHERE id = $1", cycle_id)
    return _decode(row) if row is not None else None
