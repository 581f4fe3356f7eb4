"""The SQL of experiments, flags, and what else holds of a tenant. One rule: whoever changes anything holds the lock."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import structlog
from collegium_contracts.experiment_requests import ExperimentRow, FlagRow
from collegium_contracts.experiments import Change

log = structlog.get_logger(__name__)

LIST_MAX: Final = 200
Row = TypeVar("Row")
_encode = msgspec.msgpack.Encoder().encode
_decode_experiment = msgspec.msgpack.Decoder(ExperimentRow).decode
_decode_flag = msgspec.msgpack.Decoder(FlagRow).decode

_LOCK: Final = "SELECT version FROM evolution.experiment_sets WHERE tenant = '' FOR UPDATE"
_PUT: Final = """
INSERT INTO evolution.experiments (id, tenant, state, created_ms, ended_ms, row) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, ended_ms = excluded.ended_ms, row = excluded.row
"""
_LIST: Final = """
SELECT id, row FROM evolution.experiments
WHERE ($1::text IS NULL OR tenant = $1) AND ($2 = '' OR id = $2) AND ($3 = '' OR state = $3)
ORDER BY created_ms DESC, id DESC LIMIT $4
"""
_PUT_FLAG: Final = """
INSERT INTO evolution.flags (tenant, name, row) VALUES ($1, $2, $3)
ON CONFLICT (tenant, name) DO UPDATE SET row = excluded.row
"""
_FLAGS: Final = """
SELECT name AS id, row FROM evolution.flags WHERE $1::text IS NULL OR tenant = $1 ORDER BY tenant, name
"""
_RUNNING: Final = """
SELECT id, row FROM evolution.experiments
WHERE state = 'running' AND ($1::text IS NULL OR tenant = $1) ORDER BY id
"""
_TURN: Final = """
INSERT INTO evolution.experiment_sets AS standing (tenant, version, killed, holdout)
VALUES ($1, 1, coalesce($2::boolean, false), coalesce($3::float8, 0))
ON CONFLICT (tenant) DO UPDATE
SET version = standing.version + 1, killed = coalesce($2, standing.killed), holdout = coalesce($3, standing.holdout)
"""


class SetRow(NamedTuple):
    """What holds of a tenant beside its experiments and flags."""

    tenant: str
    version: int
    killed: bool
    holdout: float


async def lock(connection: Any) -> None:
    """Keeps all other changes out until the transaction ends."""
    await connection.fetchval(_LOCK)


async def put(connection: Any, row: ExperimentRow) -> None:
    """Keeps an experiment as it is now."""
    running = row.running
    await connection.execute(
        _PUT, running.id, running.tenant, row.state, row.created_at_ms, row.ended_at_ms, _encode(row)
    )


async def experiments(
    connection: Any, tenant: str | None = None, experiment: str = "", state: str = "", limit: int = LIST_MAX
) -> list[ExperimentRow]:
    """Returns experiments, the newest first: of a tenant (empty: of the operator), or (none) of all."""
    rows = await connection.fetch(_LIST, tenant, experiment, state, max(1, min(limit, LIST_MAX)))
    return _readable(rows, _decode_experiment)


async def running(connection: Any, tenant: str | None = None) -> list[ExperimentRow]:
    """Returns what runs: of a tenant (empty: of the operator), or (none) of all."""
    return _readable(await connection.fetch(_RUNNING, tenant), _decode_experiment)


async def drafts(connection: Any, tenant: str) -> int:
    """Counts a tenant's drafts."""
    statement = "SELECT count(*) FROM evolution.experiments WHERE tenant = $1 AND state = 'draft'"
    return await connection.fetchval(statement, tenant)


async def flags(connection: Any, tenant: str | None = None) -> list[FlagRow]:
    """Returns flags: of a tenant (empty: of the operator), or (none) of all."""
    return _readable(await connection.fetch(_FLAGS, tenant), _decode_flag)


async def named(connection: Any, tenant: str | None = None, *, and_killed: bool = False) -> dict[str, set[int]]:
    """Returns the versions of policies that running experiments and flags name, by tenant."""
    found: dict[str, set[int]] = {}
    for row in await running(connection, tenant):
        found.setdefault(row.running.tenant, set()).update(versions_of((row.running.control, row.running.candidate)))
    for flag in await flags(connection, tenant):
        if and_killed or not flag.killed:
            found.setdefault(flag.flag.tenant, set()).update(versions_of((flag.flag.change,)))
    return found


def versions_of(changes: Iterable[Change]) -> set[int]:
    """Returns the versions of a policy that changes name."""
    return {change.policy_version for change in changes} - {0}


async def put_flag(connection: Any, row: FlagRow) -> None:
    """Keeps a flag as it is now."""
    await connection.execute(_PUT_FLAG, row.flag.tenant, row.flag.name, _encode(row))


async def remove_flag(connection: Any, tenant: str, name: str) -> None:
    """Removes a flag."""
    await connection.execute("DELETE FROM evolution.flags WHERE tenant = $1 AND name = $2", tenant, name)


async def turn(connection: Any, tenant: str, *, killed: bool | None = None, holdout: float | None = None) -> None:
    """Counts a change of what holds of a tenant; what is none stays as it was."""
    await connection.execute(_TURN, tenant, killed, holdout)


async def sets(connection: Any, tenant: str | None = None) -> list[SetRow]:
    """Returns what holds of one tenant, or of all."""
    statement = "SELECT * FROM evolution.experiment_sets WHERE $1::text IS NULL OR tenant = $1 ORDER BY tenant"
    return [SetRow(*row) for row in await connection.fetch(statement, tenant)]


async def erase(pool: Any, tenant: str) -> int:
    """Removes a tenant's experiments and flags and returns how many rows that was."""
    removed = 0
    for table in ("experiments", "flags", "experiment_sets"):
        status: str = await pool.execute(f"DELETE FROM evolution.{table} WHERE tenant = $1", tenant)  # noqa: S608 - three names
        removed += int(status.rpartition(" ")[2])
    return removed


def _readable(rows: Iterable[Any], decode: Callable[[bytes], Row]) -> list[Row]:
    """Returns what can be read; what cannot is told, and keeps nobody from the others."""
    found: list[Row] = []
    for row in rows:
        try:
            found.append(decode(row["row"]))
        except msgspec.MsgspecError as error:
            log.error("row of an experiment unreadable, left out", id=row["id"], error=str(error))
    return found
