"""What documents are in PostgreSQL: taking in, listing, removing. Bodies are sealed and never opened here.

What becomes of an accepted document stands in ``indexing_store``. One rule: every statement names the tenant.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import asyncpg
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.knowledge import DocumentKind, DocumentRow, DocumentState
from collegium_contracts.scope import Scope, one_tenant
from collegium_runtime.failpoints import failpoint

_COLUMNS = """
tenant, id, project, kind, state, meta_key_id, meta_nonce, meta, source_bytes, chunks, tokens, stored_bytes, served,
created_at, updated_at, indexed_at, done, total, error_code, error_message, fingerprint, version
"""
_STANDING = f"SELECT {_COLUMNS} FROM context.documents WHERE tenant = $1 AND id = $2"  # noqa: S608 - columns are ours
_PAGE = f"""
SELECT {_COLUMNS} FROM context.documents
WHERE tenant = $1 AND id > $2 AND ($3::text IS NULL OR state = $3) ORDER BY id LIMIT $4
"""  # noqa: S608 - columns are ours
# What comes while another version is being taken in is the next version; the older one is not finished.
_ACCEPT = f"""
INSERT INTO context.documents AS old (
    tenant, id, project, kind, state, fingerprint, meta_key_id, meta_nonce, meta,
    source_key_id, source_nonce, source, source_bytes, created_at, updated_at, due_at
)
VALUES ($1, $2, $3, $4, 'accepted', $5, $6, $7, $8, $9, $10, $11, $12, $13, $13, now())
ON CONFLICT (tenant, id) DO UPDATE SET
    project = EXCLUDED.project, kind = EXCLUDED.kind, state = 'accepted', fingerprint = EXCLUDED.fingerprint,
    version = nextval('context.document_versions'),
    meta_key_id = EXCLUDED.meta_key_id, meta_nonce = EXCLUDED.meta_nonce,
    meta = EXCLUDED.meta, source_key_id = EXCLUDED.source_key_id, source_nonce = EXCLUDED.source_nonce,
    source = EXCLUDED.source, source_bytes = EXCLUDED.source_bytes, updated_at = EXCLUDED.updated_at,
    due_at = EXCLUDED.due_at, tries = 0, done = 0, total = 0, error_code = '', error_message = ''
WHERE $14 OR (old.state = 'failed' AND old.served = 0)
RETURNING {_COLUMNS}
"""  # noqa: S608 - columns are ours
_DELETE = """
WITH gone AS (
    DELETE FROM context.documents WHERE tenant = $1 AND id = $2 RETURNING id
), chunks AS (
    DELETE FROM context.chunks WHERE tenant = $1 AND document IN (SELECT id FROM gone) RETURNING id
), loose AS (
    INSERT INTO context.loose_points (tenant, id, collection, remove_at)
    SELECT $1, chunks.id, g.collection, now() FROM chunks, context.generations AS g WHERE g.state <> 'retired'
    ON CONFLICT (tenant, id, collection) DO UPDATE SET remove_at = EXCLUDED.remove_at
), knowledge AS (
    INSERT INTO context.knowledge AS old (tenant, version) SELECT $1, 1 FROM gone
    ON CONFLICT (tenant) DO UPDATE SET version = old.version + 1
)
SELECT (SELECT count(*) FROM gone) AS documents, array(SELECT id::text FROM chunks) AS points
"""
_VERSION = "SELECT version FROM context.knowledge WHERE tenant = $1"


class Accepting(NamedTuple):
    """A document as it is taken in; ``source`` seals its content."""

    document: str
    project: str
    kind: DocumentKind
    fingerprint: bytes
    meta: Envelope
    source: Envelope
    source_bytes: int


class Standing(NamedTuple):
    """A document as it stands, with what tells its newest version from others."""

    row: DocumentRow
    fingerprint: bytes
    version: int


class DocumentStore:
    """Documents over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def standing(self, scope: Scope, document: str) -> Standing | None:
        """Returns a document, or none."""
        row = await self._pool.fetchrow(_STANDING, one_tenant(scope), document)
        return _standing(row) if row is not None else None

    async def page(self, scope: Scope, *, after: str, state: DocumentState | None, limit: int) -> list[DocumentRow]:
        """Returns documents by id, from the one after ``after``."""
        rows = await self._pool.fetch(_PAGE, one_tenant(scope), after, state, limit)
        return [_standing(row).row for row in rows]

    async def accept(self, scope: Scope, new: Accepting, *, replaces: bool, now_ms: int) -> Standing | None:
        """Takes a document in, durable when it returns; none where another stands that may not be replaced."""
        failpoint("context.before-accept")
        row = await self._pool.fetchrow(
            _ACCEPT,
            one_tenant(scope), new.document, new.project, new.kind, new.fingerprint,
            new.meta.key_id, new.meta.nonce, new.meta.body,
            new.source.key_id, new.source.nonce, new.source.body, new.source_bytes,
            moment(now_ms), replaces,
        )  # fmt: skip
        failpoint("context.after-accept")
        return _standing(row) if row is not None else None

    async def delete(self, scope: Scope, document: str) -> list[str] | None:
        """Removes a document and returns the points that are left of it; none where there is no such document."""
        row = await self._pool.fetchrow(_DELETE, one_tenant(scope), document)
        return list(row["points"]) if row["documents"] else None

    async def knowledge_version(self, scope: Scope) -> int:
        """Returns the number that changes with everything that a tenant's searches may find."""
        return await self._pool.fetchval(_VERSION, one_tenant(scope)) or 0


def moment(unix_ms: int) -> datetime:
    """Returns a time as PostgreSQL takes it."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC)


def _ms(value: datetime | None) -> int | None:
    return None if value is None else int(value.timestamp() * 1000)


def _standing(row: Any) -> Standing:
    error = TaskError(row["error_code"], row["error_message"]) if row["error_code"] else None
    shown = DocumentRow(
        id=row["id"],
        project=row["project"],
        kind=row["kind"],
        state=row["state"],
        meta=Envelope(row["meta_key_id"], row["meta_nonce"], row["meta"]),
        bytes=row["source_bytes"],
        chunks=row["chunks"],
        tokens=row["tokens"],
        stored_bytes=row["stored_bytes"],
        is_served=row["served"] > 0,
        created_at_ms=_ms(row["created_at"]) or 0,
        updated_at_ms=_ms(row["updated_at"]) or 0,
        indexed_at_ms=_ms(row["indexed_at"]),
        done=row["done"],
        total=row["total"],
        error=error,
    )
    return Standing(shown, row["fingerprint"], row["version"])
