"""The SQL of policies. One rule: of a tenant one version is live at most, which the table itself sees to."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
from collegium_contracts.policy_requests import PolicyRow

from collegium_evolution.experiments import experiment_store

LIST_MAX: Final = 200
# Versions of a tenant that can be gone back to; those that experiments and flags name stay beside them.
KEPT: Final = 50

_decode_row = msgspec.json.Decoder(PolicyRow).decode
_encode = msgspec.json.Encoder().encode

_PUT: Final = """
INSERT INTO evolution.policies (tenant, version, state, heard_ns, value, row) VALUES ($1, $2, $3, $4, $5, $6::jsonb)
"""
_STEP_DOWN: Final = """
UPDATE evolution.policies SET state = 'superseded', row = row || '{"state": "superseded"}'::jsonb
WHERE tenant = $1 AND state = 'live' AND ($2 OR NOT coalesce((row ->> 'pinned')::boolean, false))
"""
_PRUNE: Final = """
DELETE FROM evolution.policies WHERE tenant = $1 AND state <> 'live' AND version <= $2 AND NOT version = ANY($3::int8[])
"""


class Stored(NamedTuple):
    """One version: what operators see of it, the value for the bucket, and until when its tenant was heard."""

    row: PolicyRow
    value: bytes
    heard_ns: int


async def live(pool: Any, tenant: str | None = None) -> list[Stored]:
    """Returns the live policies of all tenants, or of one."""
    statement = "SELECT * FROM evolution.policies WHERE state = 'live' AND ($1::text IS NULL OR tenant = $1) ORDER BY 1"
    return [_stored(row) for row in await pool.fetch(statement, tenant)]


async def heard(pool: Any) -> dict[str, int]:
    """Returns until when each tenant had been heard when its newest version was made."""
    statement = "SELECT tenant, max(heard_ns) AS heard_ns FROM evolution.policies GROUP BY tenant"
    return {row["tenant"]: row["heard_ns"] for row in await pool.fetch(statement)}


async def history(pool: Any, tenant: str, limit: int) -> list[PolicyRow]:
    """Returns a tenant's versions, the newest first."""
    statement = "SELECT row FROM evolution.policies WHERE tenant = $1 ORDER BY version DESC LIMIT $2"
    return [_decode_row(row["row"]) for row in await pool.fetch(statement, tenant, max(1, min(limit, LIST_MAX)))]


async def of_cycle(pool: Any, cycle: str) -> list[PolicyRow]:
    """Returns the versions that a round has made so far."""
    statement = "SELECT row FROM evolution.policies WHERE row->>'cycle' = $1 ORDER BY tenant, version"
    return [_decode_row(row["row"]) for row in await pool.fetch(statement, cycle)]


async def version(pool: Any, tenant: str, number: int) -> Stored | None:
    """Returns one version."""
    statement = "SELECT * FROM evolution.policies WHERE tenant = $1 AND version = $2"
    found = await pool.fetchrow(statement, tenant, number)
    return _stored(found) if found is not None else None


async def live_before(pool: Any, tenant: str, number: int) -> Stored | None:
    """Returns the newest version before one that was live."""
    statement = """
    SELECT * FROM evolution.policies WHERE tenant = $1 AND state = 'superseded' AND version < $2
    ORDER BY version DESC LIMIT 1
    """
    found = await pool.fetchrow(statement, tenant, number)
    return _stored(found) if found is not None else None


async def next_version(pool: Any, tenant: str) -> int:
    """Returns the number of a tenant's next version."""
    newest: int | None = await pool.fetchval("SELECT max(version) FROM evolution.policies WHERE tenant = $1", tenant)
    return (newest or 0) + 1


async def put(pool: Any, stored: Stored) -> None:
    """Stores a version; where it is live, the one before steps down.

    One that an operator chose steps down for another that one chose alone. A UniqueViolationError: somebody was faster,
    or what stands was chosen.
    """
    row = stored.row
    async with pool.acquire() as connection, connection.transaction():
        if row.state == "live":
            await connection.execute(_STEP_DOWN, row.tenant, row.pinned)
        encoded = _encode(row).decode()
        await connection.execute(_PUT, row.tenant, row.version, row.state, stored.heard_ns, stored.value, encoded)
        named = await experiment_store.named(connection, row.tenant, and_killed=True)
        await connection.execute(_PRUNE, row.tenant, row.version - KEPT, list(named.get(row.tenant, ())))


async def change(pool: Any, stored: Stored) -> None:
    """Keeps what changed of a version."""
    statement = "UPDATE evolution.policies SET value = $3, row = $4::jsonb WHERE tenant = $1 AND version = $2"
    row = stored.row
    await pool.execute(statement, row.tenant, row.version, stored.value, _encode(row).decode())


async def erase(pool: Any, tenant: str) -> int:
    """Removes a tenant's policies and returns how many there were."""
    status: str = await pool.execute("DELETE FROM evolution.policies WHERE tenant = $1", tenant)
    return int(status.rpartition(" ")[2])


def _stored(row: Any) -> Stored:
    return Stored(_decode_row(row["row"]), bytes(row["value"]), row["heard_ns"])
