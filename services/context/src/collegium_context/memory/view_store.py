"""Settings of paths, grants between them, and what tasks were told: small tables in PostgreSQL.

One rule: a tenant's settings and grants are read together, in one statement, so that a view is never half of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg
from collegium_contracts.memory_paths import parse_path, path_text
from collegium_contracts.scope import Scope, one_tenant

from collegium_context.errors import ContextError
from collegium_context.memory.views import Grant, PathSetting

PATHS_MAX = 1_000
GRANTS_MAX = 1_000

_POLICY = """
SELECT 'path' AS what, path AS a, '' AS b, is_off, inherits, '' AS id, 0::bigint AS at_ms
FROM context.memory_paths WHERE tenant = $1
UNION ALL
SELECT 'grant', reader, source, false, false, id, at_ms FROM context.memory_grants WHERE tenant = $1
ORDER BY 1, 2, 3
"""
_SET = """
INSERT INTO context.memory_paths (tenant, path, is_off, inherits)
VALUES ($1, $2, coalesce($3, false), coalesce($4, true))
ON CONFLICT (tenant, path) DO UPDATE
SET is_off = coalesce($3, memory_paths.is_off), inherits = coalesce($4, memory_paths.inherits)
RETURNING is_off, inherits
"""
# Settings that say nothing are not kept.
_PLAIN = "DELETE FROM context.memory_paths WHERE tenant = $1 AND path = $2 AND NOT is_off AND inherits"
_GRANT = """
INSERT INTO context.memory_grants (tenant, id, reader, source, at_ms) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, reader, source) DO UPDATE SET at_ms = memory_grants.at_ms
RETURNING id, at_ms
"""
_REVOKE = "DELETE FROM context.memory_grants WHERE tenant = $1 AND id = $2 RETURNING id, reader, source, at_ms"
_TOLD = """
INSERT INTO context.recalls (tenant, task_id, memory_id, rank, signals, at_ms)
SELECT $1, $2, memory_id, rank, signals, $6 FROM unnest($3::text[], $4::int4[], $5::bytea[])
    AS told (memory_id, rank, signals)
ON CONFLICT DO NOTHING
"""
_WAS_TOLD = "SELECT rank, signals, at_ms FROM context.recalls WHERE tenant = $1 AND task_id = $2 AND memory_id = $3"
_OLD = "DELETE FROM context.recalls WHERE at_ms < $1"


class TooManyError(ContextError):
    """There is room for no more settings of paths, or grants."""

    code = "memory_full"


class UnknownGrantError(ContextError):
    """The tenant has no such grant."""

    code = "not_found"


class Policy(NamedTuple):
    """Settings and grants of a tenant, in the order of their paths."""

    settings: list[PathSetting]
    grants: list[Grant]


class Told(NamedTuple):
    """That a task was told a memory: at which place, why (JSON), and when."""

    rank: int
    signals: bytes
    at_ms: int


class ViewStore:
    """The tables over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def policy(self, scope: Scope) -> Policy:
        """Returns what is set for the paths of the scope's tenant."""
        rows = await self._pool.fetch(_POLICY, one_tenant(scope), timeout=2.0)
        settings = [
            PathSetting(parse_path(row["a"]), off=row["is_off"], inherits=row["inherits"])
            for row in rows
            if row["what"] == "path"
        ]
        grants = [
            Grant(row["id"], parse_path(row["a"]), parse_path(row["b"]), row["at_ms"])
            for row in rows
            if row["what"] == "grant"
        ]
        return Policy(settings, grants)

    async def set_path(self, scope: Scope, *, off: bool | None, inherits: bool | None) -> PathSetting:
        """Changes what holds at the scope's path; none leaves it."""
        tenant, path = one_tenant(scope), path_text(scope.path)
        if len((await self.policy(scope)).settings) >= PATHS_MAX:
            raise TooManyError(f"a tenant may set {PATHS_MAX} paths of memory")
        row = await self._pool.fetchrow(_SET, tenant, path, off, inherits)
        assert row is not None, "it was set"
        await self._pool.execute(_PLAIN, tenant, path)
        return PathSetting(scope.path, off=row["is_off"], inherits=row["inherits"])

    async def grant(self, scope: Scope, grant: Grant) -> Grant:
        """Stores a grant, or returns the one that says the same."""
        if len((await self.policy(scope)).grants) >= GRANTS_MAX:
            raise TooManyError(f"a tenant may have {GRANTS_MAX} grants between paths of memory")
        row = await self._pool.fetchrow(
            _GRANT, one_tenant(scope), grant.id, path_text(grant.reader), path_text(grant.source), grant.at_ms
        )
        assert row is not None, "it was stored, or stood"
        return Grant(row["id"], grant.reader, grant.source, row["at_ms"])

    async def revoke(self, scope: Scope, grant_id: str) -> Grant:
        """Removes a grant and returns it; raises UnknownGrantError."""
        row = await self._pool.fetchrow(_REVOKE, one_tenant(scope), grant_id)
        if row is None:
            raise UnknownGrantError(f"there is no grant {grant_id}")
        return Grant(row["id"], parse_path(row["reader"]), parse_path(row["source"]), row["at_ms"])

    async def note_told(self, scope: Scope, task: str, told: Sequence[tuple[str, bytes]], now_ms: int) -> None:
        """Notes which memories a task was told, best first, each with why (JSON)."""
        if told:
            await self._pool.execute(
                _TOLD,
                one_tenant(scope),
                task,
                [memory for memory, _ in told],
                list(range(1, len(told) + 1)),
                [signals for _, signals in told],
                now_ms,
            )

    async def told(self, scope: Scope, task: str, memory: str) -> Told | None:
        """Returns whether and why a task was told a memory."""
        row = await self._pool.fetchrow(_WAS_TOLD, one_tenant(scope), task, memory)
        return Told(row["rank"], row["signals"], row["at_ms"]) if row is not None else None

    async def forget_told(self, before_ms: int) -> None:
        """Removes what was noted of tasks before a time."""
        await self._pool.execute(_OLD, before_ms)
