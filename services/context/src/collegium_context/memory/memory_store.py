"""Memories in PostgreSQL: versions of lines, each with its two times. Bodies are sealed and never opened here.

One rule: whatever decides on what stands (a duplicate, a correction, a limit) holds the lock of its path, so that of
one line no two versions ever stand for the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg
from collegium_contracts.envelope import Envelope
from collegium_contracts.memory_paths import Path, parse_path, path_text
from collegium_contracts.scope import Scope, one_tenant

from collegium_context.errors import ContextError
from collegium_context.memory.times import FOREVER, Span, end_of_correction, supersede

READ_SECONDS = 2.0

_COLUMNS = (
    "id, path, line, kind, cause, supersedes, valid_from, valid_to, recorded_from, recorded_to, refreshed_at,"
    " refreshes, key_id, nonce, body, similar_to, similarity, embedded_by, forgotten_at, is_pending"
)
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('memory' || $1 || chr(10) || $2, 0))"
_INSERT = """
INSERT INTO context.memories (id, tenant, path, line, kind, cause, supersedes, valid_from, valid_to, recorded_from,
                              recorded_to, refreshed_at, key_id, nonce, body, bytes, digest)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $10, $12, $13, $14, $15, $16)
"""
_KNOWN = f"""
UPDATE context.memories SET refreshed_at = $6, refreshes = refreshes + 1
WHERE id = (
    SELECT id FROM context.memories
    WHERE tenant = $1 AND path = $2 AND digest = $3 AND valid_from <= $4 AND valid_to >= $5
      AND recorded_to = {FOREVER} AND forgotten_at IS NULL
    ORDER BY recorded_from LIMIT 1
)
RETURNING {_COLUMNS}
"""  # noqa: S608 - constants
_COUNT = "SELECT count(*) FROM context.memories WHERE tenant = $1 AND path = $2 AND forgotten_at IS NULL"
_GET = f"SELECT {_COLUMNS} FROM context.memories WHERE tenant = $1 AND id = $2"  # noqa: S608 - constants
_LINE = f"""
SELECT {_COLUMNS} FROM context.memories WHERE tenant = $1 AND line = $2 ORDER BY recorded_from, valid_from, id
"""  # noqa: S608 - constants
# What was replaced is pending, because what is searched must learn that it is not the newest.
_CLOSE = """
UPDATE context.memories SET recorded_to = greatest($3, recorded_from), is_pending = true
WHERE tenant = $1 AND id = ANY($2)
"""
_SEEN = f"""
SELECT {_COLUMNS} FROM context.memories
WHERE tenant = $1 AND forgotten_at IS NULL AND valid_from <= $2 AND valid_to > $2
  AND recorded_from <= $3 AND recorded_to > $3
"""  # noqa: S608 - constants
_SEEN_BY_ID = f"{_SEEN} AND id = ANY($4)"
_IN_VIEW = """
  AND (path = ANY($4) OR EXISTS (
      SELECT FROM unnest($5::text[]) AS granted (source)
      WHERE source = '/' OR path = source OR starts_with(path, source || '/')
  ))
"""
_SEEN_NEWEST = f"{_SEEN} {_IN_VIEW} AND (is_pending OR NOT $6) ORDER BY recorded_from DESC, id LIMIT $7"
# What is of other projects than those that whoever asks may reach is not there for them.
_NOT_OF = "split_part(path, '/', 1) = ANY({}::text[])"
_BELOW = "tenant = $1 AND ($2 = '/' OR path = $2 OR (path >= $2 || '/' AND path < $2 || '0'))"
_PAGE = f"""
SELECT {_COLUMNS} FROM context.memories
WHERE {_BELOW} AND ($3 = '' OR id < $3) AND ($4 OR (forgotten_at IS NULL AND recorded_to = {FOREVER}))
  AND NOT {_NOT_OF.format("$6")}
ORDER BY id DESC LIMIT $5
"""  # noqa: S608 - constants
_DESTROY = """
UPDATE context.memories
SET key_id = NULL, nonce = NULL, body = NULL, digest = NULL, bytes = 0, forgotten_at = $3, is_pending = true,
    recorded_to = least(recorded_to, greatest($3, recorded_from))
WHERE tenant = $1 AND forgotten_at IS NULL
"""
_OF_LINE = "line = (SELECT line FROM context.memories WHERE tenant = $1 AND id = $2)"
_DESTROY_LINE = f"{_DESTROY} AND {_OF_LINE}"
_DESTROY_BELOW = f"{_DESTROY} AND {_BELOW} AND NOT {_NOT_OF.format('$4')}"
_PENDING = f"""
SELECT tenant, {_COLUMNS} FROM context.memories WHERE is_pending AND ($2::text IS NULL OR tenant = $2)
ORDER BY recorded_from LIMIT $1
"""  # noqa: S608 - constants
# Another version of the row may have come since it was read.
_INDEXED = """
UPDATE context.memories
SET is_pending = false, embedded_by = $3, similar_to = coalesce(similar_to, $4), similarity = coalesce(similarity, $5)
WHERE tenant = $1 AND id = $2 AND recorded_to = $6 AND (forgotten_at IS NULL) = $7
"""
_OUTDATED = """
UPDATE context.memories SET is_pending = true WHERE forgotten_at IS NULL AND embedded_by <> $1 AND NOT is_pending
"""


class MemoryFullError(ContextError):
    """A path holds as many memories as it may."""

    code = "memory_full"


class UnknownMemoryError(ContextError):
    """The tenant has no memory of this id."""

    code = "not_found"


class Memory(NamedTuple):
    """One version of a memory; ``body`` is none where it was forgotten."""

    id: str
    path: Path
    line: str
    kind: str
    cause: str
    supersedes: str | None
    valid: Span
    recorded: Span
    refreshed_ms: int
    refreshes: int
    body: Envelope | None
    similar_to: str | None
    similarity: float | None
    embedded_by: str | None
    forgotten_ms: int | None
    is_pending: bool

    @property
    def is_newest(self) -> bool:
        """Whether it is believed now."""
        return self.recorded.end == FOREVER


class NewMemory(NamedTuple):
    """A version to be stored; ``digest`` is equal for the same text and kind."""

    id: str
    kind: str
    body: Envelope
    digest: bytes


class MemoryStore:
    """The table over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def add(self, scope: Scope, new: NewMemory, valid: Span, now_ms: int, limit: int) -> tuple[Memory, bool]:
        """Stores a memory at the scope's path; returns it and true, or the one that says the same and false.

        Raises MemoryFullError where the path holds ``limit``.
        """
        tenant, path = one_tenant(scope), path_text(scope.path)
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK, tenant, path)
            known = await connection.fetchrow(_KNOWN, tenant, path, new.digest, valid.start, valid.end, now_ms)
            if known is not None:
                return _memory(known), False
            if await connection.fetchval(_COUNT, tenant, path) >= limit:
                raise MemoryFullError(f"{path} holds {limit} memories and versions; forget some, or use another path")
            row = _Row(new.id, new.id, new.kind, "remembered", None, valid, new.body, new.digest)
            await _insert(connection, tenant, path, row, now_ms)
            return _memory(await connection.fetchrow(_GET, tenant, new.id)), True

    async def correct(
        self,
        scope: Scope,
        memory_id: str,
        new: NewMemory,
        start: int,
        end: int | None,
        now_ms: int,
        kept_ids: list[str],
    ) -> Memory:
        """Supersedes a memory's line from ``start`` (until ``end``; none: as long as what it corrects).

        ``kept_ids`` are for what stays true of the versions that it closes. Raises UnknownMemoryError.
        """
        tenant = one_tenant(scope)
        async with self._pool.acquire() as connection, connection.transaction():
            found = await connection.fetchrow(_GET, tenant, memory_id)
            if found is None or found["forgotten_at"] is not None:
                raise UnknownMemoryError(f"there is no memory {memory_id}")
            await connection.execute(_LOCK, tenant, found["path"])
            line = [_memory(row) for row in await connection.fetch(_LINE, tenant, found["line"])]
            standing = [one for one in line if one.is_newest and one.body is not None]
            if not standing:
                raise UnknownMemoryError(f"memory {memory_id} was forgotten")
            spans = [one.valid for one in standing]
            valid = Span(start, end_of_correction(spans, start) if end is None else end)
            done = supersede(spans, valid)
            await connection.execute(_CLOSE, tenant, [standing[place].id for place in done.closed], now_ms)
            for place, part in done.kept:
                one = standing[place]
                assert one.body is not None, "only what has a body stands"
                row = _Row(kept_ids.pop(), one.line, one.kind, "kept", one.id, part, one.body, None)
                await _insert(connection, tenant, found["path"], row, now_ms)
            before = standing[done.closed[-1]].id if done.closed else standing[-1].id
            row = _Row(new.id, found["line"], new.kind, "corrected", before, valid, new.body, new.digest)
            await _insert(connection, tenant, found["path"], row, now_ms)
            return _memory(await connection.fetchrow(_GET, tenant, new.id))

    async def get(self, scope: Scope, memory_id: str) -> Memory:
        """Returns one version; raises UnknownMemoryError."""
        row = await self._pool.fetchrow(_GET, one_tenant(scope), memory_id)
        if row is None:
            raise UnknownMemoryError(f"there is no memory {memory_id}")
        return _memory(row)

    async def line(self, scope: Scope, line: str) -> list[Memory]:
        """Returns all versions of a line, oldest first."""
        return [_memory(row) for row in await self._pool.fetch(_LINE, one_tenant(scope), line)]

    async def seen(self, scope: Scope, ids: Sequence[str], as_of_ms: int, known_at_ms: int) -> list[Memory]:
        """Returns those of the ids that hold at a time, as known at a time."""
        rows = await self._pool.fetch(
            _SEEN_BY_ID, one_tenant(scope), as_of_ms, known_at_ms, list(ids), timeout=READ_SECONDS
        )
        return [_memory(row) for row in rows]

    async def newest(
        self,
        scope: Scope,
        exact: Sequence[Path],
        below: Sequence[Path],
        as_of_ms: int,
        known_at_ms: int,
        *,
        limit: int,
        pending_only: bool,
    ) -> list[Memory]:
        """Returns the newest of what is at some paths or below others, as it holds at a time and was known at one."""
        rows = await self._pool.fetch(
            _SEEN_NEWEST,
            one_tenant(scope),
            as_of_ms,
            known_at_ms,
            [path_text(path) for path in exact],
            [path_text(path) for path in below],
            pending_only,
            limit,
            timeout=READ_SECONDS,
        )
        return [_memory(row) for row in rows]

    async def page(
        self, scope: Scope, *, limit: int, before_id: str, forgotten: bool, but: Sequence[str] = ()
    ) -> list[Memory]:
        """Returns what is at the scope's path and below it, newest first, ``but`` for what is below these names."""
        asked = (before_id, forgotten, limit, list(but))
        rows = await self._pool.fetch(_PAGE, one_tenant(scope), path_text(scope.path), *asked, timeout=READ_SECONDS)
        return [_memory(row) for row in rows]

    async def forget(self, scope: Scope, memory_id: str, now_ms: int) -> int:
        """Destroys the content of all versions of a memory's line; returns how many had any."""
        return _count(await self._pool.execute(_DESTROY_LINE, one_tenant(scope), memory_id, now_ms))

    async def forget_below(self, scope: Scope, now_ms: int, *, but: Sequence[str] = ()) -> int:
        """Destroys the content of what is at the scope's path and below it, as :meth:`page` shows it; returns of how
        many versions."""
        path = path_text(scope.path)
        return _count(await self._pool.execute(_DESTROY_BELOW, one_tenant(scope), path, now_ms, list(but)))

    async def pending(self, limit: int, scope: Scope | None) -> list[tuple[Scope, Memory]]:
        """Returns what the search has to be told of, oldest first; of all tenants without a scope."""
        rows = await self._pool.fetch(_PENDING, limit, one_tenant(scope) if scope is not None else None)
        return [(Scope(row["tenant"]), _memory(row)) for row in rows]

    async def indexed(
        self, scope: Scope, memory: Memory, model: str | None, similar: tuple[str, float] | None = None
    ) -> None:
        """Notes that the search knows a version as it was read."""
        similar_to, similarity = similar or (None, None)
        await self._pool.execute(
            _INDEXED,
            one_tenant(scope),
            memory.id,
            model,
            similar_to,
            similarity,
            memory.recorded.end,
            memory.body is not None,
        )

    async def embed_anew(self, model: str) -> int:
        """Has everything embedded again that another model embedded; returns how many."""
        return _count(await self._pool.execute(_OUTDATED, model))


class _Row(NamedTuple):
    id: str
    line: str
    kind: str
    cause: str
    supersedes: str | None
    valid: Span
    body: Envelope
    digest: bytes | None


async def _insert(connection: Any, tenant: str, path: str, row: _Row, now_ms: int) -> None:
    await connection.execute(
        _INSERT,
        row.id,
        tenant,
        path,
        row.line,
        row.kind,
        row.cause,
        row.supersedes,
        row.valid.start,
        row.valid.end,
        now_ms,
        FOREVER,
        row.body.key_id,
        row.body.nonce,
        row.body.body,
        len(row.body.body),
        row.digest,
    )


def _memory(row: Any) -> Memory:
    body = Envelope(row["key_id"], row["nonce"], row["body"]) if row["body"] is not None else None
    return Memory(
        id=row["id"],
        path=parse_path(row["path"]),
        line=row["line"],
        kind=row["kind"],
        cause=row["cause"],
        supersedes=row["supersedes"],
        valid=Span(row["valid_from"], row["valid_to"]),
        recorded=Span(row["recorded_from"], row["recorded_to"]),
        refreshed_ms=row["refreshed_at"],
        refreshes=row["refreshes"],
        body=body,
        similar_to=row["similar_to"],
        similarity=row["similarity"],
        embedded_by=row["embedded_by"],
        forgotten_ms=row["forgotten_at"],
        is_pending=row["is_pending"],
    )


def _count(status: str) -> int:
    return int(status.rsplit(" ", 1)[-1])
