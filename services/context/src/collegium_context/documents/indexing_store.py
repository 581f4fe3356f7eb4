"""What becomes of accepted documents, in PostgreSQL: leases, progress, the switch to a new version, what is left over.

A point goes into the vector store only after it stands in ``loose_points``, and leaves that table in the transaction
that makes its chunk findable. One rule: whatever process dies wherever, a point is either a chunk's or loose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg
from collegium_contracts.envelope import Envelope
from collegium_contracts.knowledge import DocumentKind
from collegium_runtime.failpoints import failpoint

from collegium_context.documents.turns import Lane

LEASE_SECONDS = 30
# Longer than any document takes; an ingestion that goes on renews it.
LOOSE_SECONDS = 3_600

# More bytes than these are read in a process of their own; Markdown can be made to take time out of all proportion.
HEAVY_BYTES = 64 * 1024
HEAVY_MARKDOWN_BYTES = 8 * 1024
# More than these may take minutes to embed.
LARGE_BYTES = 1024 * 1024

# Tenants take turns, so that one who brings ten thousand documents does not keep the others waiting.
_TAKE = """
WITH due AS (
    SELECT tenant, id, due_at, source_bytes, coalesce(array_position($9::text[], tenant), 0) AS served,
           row_number() OVER (PARTITION BY tenant ORDER BY due_at) AS turn
    FROM context.documents
    WHERE state = 'accepted' AND due_at <= now() AND NOT tenant = ANY($8::text[])
        AND $2 = CASE
            WHEN kind <> 'pdf' AND source_bytes <= CASE kind WHEN 'markdown' THEN $6::int8 ELSE $1 END THEN 'light'
            WHEN source_bytes <= $7 THEN 'heavy' ELSE 'large' END
), first AS (
    SELECT tenant, id, sum(source_bytes) OVER turns - source_bytes AS before FROM due
    WINDOW turns AS (ORDER BY turn, served, due_at, tenant, id) ORDER BY turn, served, due_at, tenant, id LIMIT $3
), locked AS (
    SELECT d.tenant, d.id FROM context.documents AS d JOIN first USING (tenant, id)
    WHERE first.before < $4 AND d.state = 'accepted' AND d.due_at <= now() FOR UPDATE OF d SKIP LOCKED
)
UPDATE context.documents AS d SET due_at = now() + $5 * interval '1 second', tries = d.tries + 1
FROM locked WHERE d.tenant = locked.tenant AND d.id = locked.id
RETURNING d.tenant, d.id, d.project, d.kind, d.version, d.tries, d.meta_key_id, d.meta_nonce, d.meta,
          d.source_key_id, d.source_nonce, d.source, d.created_at
"""
# Until its chunks are counted, what was told of an earlier try stands.
_RENEW = """
UPDATE context.documents AS d SET due_at = now() + $5 * interval '1 second',
       done = CASE WHEN new.total > 0 THEN new.done ELSE d.done END,
       total = CASE WHEN new.total > 0 THEN new.total ELSE d.total END
FROM unnest($1::text[], $2::text[], $3::int8[], $4::int4[], $6::int4[]) AS new (tenant, id, version, done, total)
WHERE d.tenant = new.tenant AND d.id = new.id AND d.version = new.version AND d.state = 'accepted' RETURNING d.version
"""
_PUT_OFF = """
UPDATE context.documents AS d SET due_at = now() + $4 * interval '1 second', tries = d.tries - $5
FROM unnest($1::text[], $2::text[], $3::int8[]) AS new (tenant, id, version)
WHERE d.tenant = new.tenant AND d.id = new.id AND d.version = new.version AND d.state = 'accepted'
"""
_FAIL = """
UPDATE context.documents SET state = 'failed', error_code = $4, error_message = $5, source_key_id = NULL,
       source_nonce = NULL, source = NULL
WHERE tenant = $1 AND id = $2 AND version = $3 AND state = 'accepted'
"""
_STANDING = """
SELECT c.tenant, c.id::text FROM context.chunks AS c
JOIN unnest($1::text[], $2::text[]) AS new (tenant, document) ON c.tenant = new.tenant AND c.document = new.document
JOIN context.documents AS d ON d.tenant = c.tenant AND d.id = c.document WHERE $3 = ANY(d.collections)
"""
_LOOSEN = """
INSERT INTO context.loose_points AS old (tenant, id, collection, remove_at)
SELECT tenant, id, $3, now() + $4 * interval '1 second' FROM unnest($1::text[], $2::uuid[]) AS new (tenant, id)
ORDER BY tenant, id
ON CONFLICT (tenant, id, collection) DO UPDATE SET remove_at = EXCLUDED.remove_at
"""
_SWITCH = """
UPDATE context.documents AS d SET state = 'indexed', served = d.version, chunks = new.chunks, tokens = new.tokens,
       stored_bytes = new.stored_bytes, model = $7, collections = $8, indexed_at = now(),
       done = new.chunks, total = new.chunks,
       source_key_id = NULL, source_nonce = NULL, source = NULL, error_code = '', error_message = ''
FROM unnest($1::text[], $2::text[], $3::int8[], $4::int4[], $5::int8[], $6::int8[])
     AS new (tenant, id, version, chunks, tokens, stored_bytes)
WHERE d.tenant = new.tenant AND d.id = new.id AND d.version = new.version AND d.state = 'accepted'
RETURNING d.tenant, d.id
"""
_DROP_OLD = """
WITH gone AS (
    DELETE FROM context.chunks AS c USING unnest($1::text[], $2::text[]) AS new (tenant, document)
    WHERE c.tenant = new.tenant AND c.document = new.document AND NOT c.id = ANY($3::uuid[]) RETURNING c.tenant, c.id
)
INSERT INTO context.loose_points AS old (tenant, id, collection, remove_at)
SELECT gone.tenant, gone.id, g.collection, now() + $4 * interval '1 second'
FROM gone, context.generations AS g WHERE g.state <> 'retired'
ON CONFLICT (tenant, id, collection) DO UPDATE SET remove_at = EXCLUDED.remove_at
"""
_ADD_CHUNKS = """
INSERT INTO context.chunks (tenant, id, document, ordinal, key_id, nonce, body, tokens)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::int4[], $5::text[], $6::bytea[], $7::bytea[], $8::int4[])
ON CONFLICT (tenant, id) DO UPDATE SET ordinal = EXCLUDED.ordinal, key_id = EXCLUDED.key_id, nonce = EXCLUDED.nonce,
    body = EXCLUDED.body, tokens = EXCLUDED.tokens
"""
_FASTEN = """
WITH gone AS (
    DELETE FROM context.loose_points AS old USING unnest($1::text[], $2::uuid[]) AS new (tenant, id)
    WHERE old.tenant = new.tenant AND old.id = new.id AND old.collection = $3 RETURNING 1
)
SELECT count(*) FROM gone
"""
# Held against a change until the transaction ends.
_SERVING = "SELECT collection FROM context.generations WHERE state = 'serving' FOR SHARE"
_BUMP = """
INSERT INTO context.knowledge AS old (tenant, version) SELECT tenant, 1 FROM unnest($1::text[]) AS new (tenant)
ORDER BY tenant ON CONFLICT (tenant) DO UPDATE SET version = old.version + 1
"""
_LOOSE = """
SELECT tenant, id::text, collection FROM context.loose_points WHERE remove_at <= now() ORDER BY remove_at LIMIT $1
FOR UPDATE SKIP LOCKED
"""
_FOUND = """
SELECT c.tenant, c.id::text FROM context.chunks AS c
JOIN unnest($1::text[], $2::uuid[]) AS new (tenant, id) ON c.tenant = new.tenant AND c.id = new.id
"""


class Taken(NamedTuple):
    """A document that this process may take in until its lease ends."""

    tenant: str
    document: str
    project: str
    kind: DocumentKind
    version: int
    tries: int
    meta: Envelope
    source: Envelope
    created_at_ms: int


class ChunkRow(NamedTuple):
    """A chunk as it is kept."""

    id: str
    ordinal: int
    body: Envelope
    tokens: int


class Indexed(NamedTuple):
    """A document whose points all stand in the vector store."""

    tenant: str
    document: str
    version: int
    chunks: list[ChunkRow]
    stored_bytes: int


class Put(NamedTuple):
    """A collection with the points, by tenant and id, that were put into it; ``is_whole``: all have vectors."""

    collection: str
    points: list[tuple[str, str]]
    is_whole: bool


class PointsLostError(Exception):
    """Points of a document were swept, or another collection answers, while it was taken in; it is taken in again."""


class IndexingStore:
    """The way of documents from accepted to indexed, over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def take(self, lane: Lane, *, shut_out: Sequence[str] = (), served: Sequence[str] = ()) -> list[Taken]:
        """Takes due documents of a lane's size, for LEASE_SECONDS, of none of the tenants who are shut out.

        Of each tenant's first those go first whose turn was longest ago, as ``served`` tells.
        """
        rows = await self._pool.fetch(
            _TAKE, HEAVY_BYTES, lane.size, lane.documents_max, lane.bytes_max, LEASE_SECONDS, HEAVY_MARKDOWN_BYTES,
            LARGE_BYTES, list(shut_out), list(served),
        )  # fmt: skip
        return [
            Taken(
                row["tenant"], row["id"], row["project"], row["kind"], row["version"], row["tries"],
                Envelope(row["meta_key_id"], row["meta_nonce"], row["meta"]),
                Envelope(row["source_key_id"], row["source_nonce"], row["source"]),
                int(row["created_at"].timestamp() * 1000),
            )
            for row in rows
        ]  # fmt: skip

    async def renew(self, progress: Sequence[tuple[Taken, int, int]]) -> set[int]:
        """Prolongs leases and tells how many chunks of how many are done; returns the versions still waited for."""
        tenants, ids, versions = _keys([taken for taken, _, _ in progress])
        done, total = [one[1] for one in progress], [one[2] for one in progress]
        rows = await self._pool.fetch(_RENEW, tenants, ids, versions, done, LEASE_SECONDS, total)
        return {row["version"] for row in rows}

    async def put_off(self, taken: Sequence[Taken], seconds: float, *, counts: bool) -> None:
        """Gives documents back; ``counts``: that it did not work was their own doing."""
        await self._pool.execute(_PUT_OFF, *_keys(taken), seconds, 0 if counts else 1)

    async def fail(self, taken: Taken, code: str, message: str) -> None:
        """Ends the taking in of a version for good; an older one that is found stays found."""
        await self._pool.execute(_FAIL, taken.tenant, taken.document, taken.version, code, message)

    async def standing(self, taken: Sequence[Taken], collection: str) -> set[tuple[str, str]]:
        """Returns tenant and id of the chunks that are found of these documents now, whole in a collection."""
        tenants, ids, _ = _keys(taken)
        return {(row[0], row[1]) for row in await self._pool.fetch(_STANDING, tenants, ids, collection)}

    async def loosen(self, points: Sequence[tuple[str, str]], collection: str) -> None:
        """Writes down points that are about to be put into the vector store."""
        tenants, ids = [tenant for tenant, _ in points], [point for _, point in points]
        await self._pool.execute(_LOOSEN, tenants, ids, collection, LOOSE_SECONDS)

    async def switch(self, indexed: Sequence[Indexed], *, model: str, put: Sequence[Put]) -> int:
        """Makes documents findable in their new version, each as a whole, and returns how many.

        Those that were replaced, removed or taken in by another in the meantime stay as they are. Raises
        :class:`PointsLostError`.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            failpoint("context.before-switch")
            if await connection.fetchval(_SERVING) not in {one.collection for one in put}:
                raise PointsLostError("another collection answers since the documents were begun")
            whole = [one.collection for one in put if one.is_whole]
            switched = await self._switch(connection, indexed, model, whole)
            chosen = [one for one in indexed if (one.tenant, one.document) in switched]
            if chosen:
                await _move(connection, chosen, put)
        failpoint("context.after-switch")
        return len(chosen)

    async def _switch(
        self, connection: Any, indexed: Sequence[Indexed], model: str, collections: list[str]
    ) -> set[tuple[str, str]]:
        ordered = sorted(indexed, key=lambda one: (one.tenant, one.document))
        rows = await connection.fetch(
            _SWITCH,
            [one.tenant for one in ordered],
            [one.document for one in ordered],
            [one.version for one in ordered],
            [len(one.chunks) for one in ordered],
            [sum(chunk.tokens for chunk in one.chunks) for one in ordered],
            [one.stored_bytes for one in ordered],
            model,
            collections,
        )
        return {(row["tenant"], row["id"]) for row in rows}

    async def sweep(self, remove: Any, limit: int = 1_000) -> int:
        """Has loose points that are due removed by ``remove(tenant, collection, ids)``, and forgets them after it."""
        async with self._pool.acquire() as connection, connection.transaction():
            rows = [(row[0], row[1], row[2]) for row in await connection.fetch(_LOOSE, limit)]
            if not rows:
                return 0
            tenants, ids = [row[0] for row in rows], [row[1] for row in rows]
            found = {(row[0], row[1]) for row in await connection.fetch(_FOUND, tenants, ids)}
            for tenant, collection in sorted({(row[0], row[2]) for row in rows}):
                due = [row[1] for row in rows if (row[0], row[2]) == (tenant, collection)]
                await remove(tenant, collection, [one for one in due if (tenant, one) not in found])
                await connection.fetchval(_FASTEN, [tenant] * len(due), due, collection)
        return len(rows)


async def _move(connection: Any, chosen: Sequence[Indexed], put: Sequence[Put]) -> None:
    """Puts the chunks of new versions in the place of those of old ones."""
    rows = [(one.tenant, chunk.id, one.document, chunk) for one in chosen for chunk in one.chunks]
    rows.sort(key=lambda row: row[:2])
    tenants, ids = [row[0] for row in rows], [row[1] for row in rows]
    documents = [one.tenant for one in chosen], [one.document for one in chosen]
    # Searches that began before the switch may still look for what they found: the old points go a little later.
    await connection.execute(_DROP_OLD, *documents, ids, LEASE_SECONDS)
    await connection.execute(
        _ADD_CHUNKS,
        tenants,
        ids,
        [row[2] for row in rows],
        [row[3].ordinal for row in rows],
        [row[3].body.key_id for row in rows],
        [row[3].body.nonce for row in rows],
        [row[3].body.body for row in rows],
        [row[3].tokens for row in rows],
    )
    moved = set(zip(tenants, ids, strict=True))
    for one in put:
        await fasten(connection, [point for point in one.points if point in moved], one.collection)
    await connection.execute(_BUMP, sorted({one.tenant for one in chosen}))


async def fasten(connection: Any, points: Sequence[tuple[str, str]], collection: str) -> None:
    """Makes points, by tenant and id, those of chunks; raises :class:`PointsLostError` where some were swept."""
    if points:
        tenants, ids = [tenant for tenant, _ in points], [point for _, point in points]
        gone = await connection.fetchval(_FASTEN, tenants, ids, collection)
        if gone != len(points):
            raise PointsLostError(f"{len(points) - gone} of {len(points)} points were swept meanwhile")


def is_heavy(kind: DocumentKind, size: int) -> bool:
    """Tells whether a document is read in a process of its own, as the statement that takes them does."""
    return kind == "pdf" or size > (HEAVY_MARKDOWN_BYTES if kind == "markdown" else HEAVY_BYTES)


def _keys(taken: Sequence[Taken]) -> tuple[list[str], list[str], list[int]]:
    ordered = list(taken)
    return (
        [one.tenant for one in ordered],
        [one.document for one in ordered],
        [one.version for one in ordered],
    )
