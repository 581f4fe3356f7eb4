"""Shared contexts in PostgreSQL: documents by their places, with all their versions. Bodies stay sealed.

One rule: versions of an id count up for good, also over its deletion, so that no version ever means two documents.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import asyncpg
from collegium_contracts.envelope import Envelope
from collegium_contracts.scope import Scope, one_tenant

from collegium_context.errors import ContextError
from collegium_context.memory.places import Span

DOCUMENTS_MAX = 10_000
VERSIONS_KEPT = 100

_COLUMNS = "id, version, key_id, nonce, body, bytes, by_key, at_ms"
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('shared' || $1 || chr(10) || $2, 0))"
_NEWEST = f"SELECT {_COLUMNS} FROM context.shared WHERE tenant = $1 AND id = $2 AND is_newest"  # noqa: S608 - constants
_VERSION = f"SELECT {_COLUMNS} FROM context.shared WHERE tenant = $1 AND id = $2 AND version = $3::int8"  # noqa: S608 - constants
_VERSIONS = f"""
SELECT {_COLUMNS} FROM context.shared WHERE tenant = $1 AND id = $2 ORDER BY version DESC
"""  # noqa: S608 - constants
_COUNT = "SELECT count(*) FROM context.shared WHERE tenant = $1 AND is_newest AND body IS NOT NULL"
_AGE = "UPDATE context.shared SET is_newest = false WHERE tenant = $1 AND id = $2 AND is_newest"
_INSERT = """
INSERT INTO context.shared (tenant, id, version, key_id, nonce, body, bytes, by_key, at_ms, is_newest)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, true)
"""
_PRUNE = "DELETE FROM context.shared WHERE tenant = $1 AND id = $2 AND version <= $3"
_DESTROY = "DELETE FROM context.shared WHERE tenant = $1 AND id = $2 AND NOT is_newest"
_PAGE = f"""
SELECT {_COLUMNS} FROM context.shared
WHERE tenant = $1 AND is_newest AND body IS NOT NULL AND id > $2
  AND CASE WHEN $3 = '' THEN strpos(id, '/') = 0 ELSE starts_with(id, $3) AND id < $4 END
ORDER BY id LIMIT $5
"""  # noqa: S608 - constants


class TooManyDocumentsError(ContextError):
    """The tenant has as many shared contexts as it may."""

    code = "memory_full"


class Document(NamedTuple):
    """One version of a shared context; without a body it marks a deletion. ``place`` is its project and id."""

    place: str
    version: int
    body: Envelope | None
    bytes: int
    by: str
    at_ms: int


class Stored(NamedTuple):
    """What came of storing: the document that stands, and whether it is the one that was wanted."""

    document: Document | None
    is_stored: bool


# Makes the sealed fields from what stands, or none to delete it.
Make = Callable[[Document | None], Awaitable[Envelope | None]]


class SharedStore:
    """The table over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def put(self, scope: Scope, make: Make, *, expected: int | None, by: str, now_ms: int) -> Stored:
        """Stores the next version of the document that the scope ends at, where ``expected`` stands.

        A document that does not stand has the version 0 to whoever expects it. Raises TooManyDocumentsError.
        """
        tenant, (document_id,) = one_tenant(scope), scope.path
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK, tenant, document_id)
            last = _document(await connection.fetchrow(_NEWEST, tenant, document_id))
            standing = last if last is not None and last.body is not None else None
            if expected is not None and expected != (standing.version if standing is not None else 0):
                return Stored(standing, is_stored=False)
            body = await make(standing)
            if body is None and standing is None:
                return Stored(None, is_stored=False)
            if standing is None and await connection.fetchval(_COUNT, tenant) >= DOCUMENTS_MAX:
                raise TooManyDocumentsError(f"a tenant may have {DOCUMENTS_MAX} shared contexts; delete some")
            version = last.version + 1 if last is not None else 1
            sealed = body or Envelope("", b"", b"")
            await connection.execute(_AGE, tenant, document_id)
            await connection.execute(
                _INSERT,
                tenant,
                document_id,
                version,
                sealed.key_id if body is not None else None,
                sealed.nonce if body is not None else None,
                sealed.body if body is not None else None,
                len(sealed.body),
                by,
                now_ms,
            )
            if body is None:
                await connection.execute(_DESTROY, tenant, document_id)
            else:
                await connection.execute(_PRUNE, tenant, document_id, version - VERSIONS_KEPT)
            return Stored(Document(document_id, version, body, len(sealed.body), by, now_ms), is_stored=True)

    async def get(self, scope: Scope, version: int | None) -> Document | None:
        """Returns the document that the scope ends at, as it stands or in a version; none where there is none."""
        tenant, (document_id,) = one_tenant(scope), scope.path
        if version is None:
            found = _document(await self._pool.fetchrow(_NEWEST, tenant, document_id))
        else:
            found = _document(await self._pool.fetchrow(_VERSION, tenant, document_id, version))
        return found if found is not None and found.body is not None else None

    async def versions(self, scope: Scope) -> Sequence[Document]:
        """Returns the versions of the document that the scope ends at, newest first."""
        tenant, (document_id,) = one_tenant(scope), scope.path
        rows = await self._pool.fetch(_VERSIONS, tenant, document_id)
        return [found for row in rows if (found := _document(row)) is not None and found.body is not None]

    async def page(self, scope: Scope, span: Span, *, limit: int) -> Sequence[Document]:
        """Returns the documents of a project that stand, by id."""
        rows = await self._pool.fetch(_PAGE, one_tenant(scope), span.after, span.prefix, span.before, limit)
        return [found for row in rows if (found := _document(row)) is not None]


def _document(row: Any) -> Document | None:
    if row is None:
        return None
    body = Envelope(row["key_id"], row["nonce"], row["body"]) if row["body"] is not None else None
    return Document(row["id"], row["version"], body, row["bytes"], row["by_key"], row["at_ms"])
