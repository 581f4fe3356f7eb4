"""Generations of the index: which collection answers, which is built for another embedder, and what that still lacks.

A collection holds vectors of one embedder, so another model, or another number of dimensions, needs another one. It is
built beside the one that answers and put in its place by name, in one transaction. One rule: what the table says
counts, whatever this process is configured with: no document becomes findable without the collection that answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import asyncpg
import msgspec
from collegium_contracts.envelope import Envelope
from collegium_contracts.knowledge import GenerationRow
from collegium_runtime.failpoints import failpoint

from collegium_context.documents.indexing_store import fasten
from collegium_context.search.filtering import ADDED, FACETS
from collegium_context.vectors.interface import CollectionSpec

# Stems that a chunk of 200 tokens has without its stop words.
AVERAGE_WORDS = 110
# Raised when a point holds something that it did not hold before; then everything is indexed anew.
LAYOUT = 2
LEASE_SECONDS = 30
# Searches that began before a switch, and replicas that have not seen it, still ask the older collection.
RETIRED_SECONDS = 60

State = Literal["serving", "building", "retired"]


class Generation(msgspec.Struct, frozen=True):
    """A collection of the documents' points; ``dimensions`` 0: not known, because it was made before they were kept."""

    collection: str
    model: str
    dimensions: int
    layout: int = LAYOUT
    state: State = "serving"

    def is_like(self, other: Generation) -> bool:
        """Whether both hold the same: vectors of one model and length, in points of one layout."""
        return self.holds(other.model, other.dimensions) and self.layout == other.layout

    def holds(self, model: str, dimensions: int) -> bool:
        """Whether its vectors can be compared with those of an embedder."""
        return self.model == model and self.dimensions in (0, dimensions)

    @property
    def spec(self) -> CollectionSpec:
        """How its collection is made."""
        return CollectionSpec(
            name=self.collection,
            dimensions=self.dimensions,
            keyword_fields=(FACETS,),
            integer_fields=(ADDED,),
            average_words=AVERAGE_WORDS,
        )


class Begun(NamedTuple):
    """What is to be done so that an embedder gets its generation: those to retire, and one to add."""

    retired: list[str]
    added: Generation | None


def begun(standing: Sequence[Generation], wanted: Generation) -> Begun:
    """Decides what becomes of the generations that stand when an embedder is configured. Pure."""
    serving = next((one for one in standing if one.state == "serving"), None)
    building = next((one for one in standing if one.state == "building"), None)
    if serving is None:
        return Begun([], msgspec.structs.replace(wanted, state="serving"))
    if serving.is_like(wanted):
        return Begun([building.collection] if building is not None else [], None)
    if building is not None and building.is_like(wanted):
        return Begun([], None)
    retired = [building.collection] if building is not None else []
    return Begun(retired, msgspec.structs.replace(wanted, state="building"))


class Lacking(NamedTuple):
    """A document that a collection lacks, as it is found now."""

    tenant: str
    document: str
    project: str
    served: int
    created_at_ms: int
    chunks: int


class KeptChunk(NamedTuple):
    """A chunk as it is kept."""

    id: str
    tenant: str
    document: str
    body: Envelope


_COLUMNS = "collection, model, dimensions, layout, state"
_STANDING = f"SELECT {_COLUMNS} FROM context.generations WHERE state <> 'retired'"  # noqa: S608 - columns are ours
_TOLD = """
SELECT collection, model, dimensions, state, began_at FROM context.generations
WHERE state <> 'retired' ORDER BY state DESC
"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('context.generations'))"
_RETIRE = "UPDATE context.generations SET state = 'retired', retired_at = now() WHERE collection = ANY($1)"
_ADD = """
INSERT INTO context.generations (collection, model, dimensions, layout, state, served_at)
VALUES ($1, $2, $3, $4, $5, CASE WHEN $5 = 'serving' THEN now() END)
"""
_NUMBER = "SELECT nextval('context.generation_numbers')"
# What was indexed before generations were kept: a collection named after its model alone.
_ADOPTED = "SELECT model FROM context.documents WHERE served > 0 GROUP BY model ORDER BY count(*) DESC LIMIT 1"
_ADOPT = "UPDATE context.documents SET collections = ARRAY[$1] WHERE served > 0 AND model = $2"
_LEASE = """
UPDATE context.generations SET owner = $2, lease_until = now() + $3 * interval '1 second'
WHERE collection = $1 AND state <> 'retired' AND (owner = $2 OR lease_until <= now()) RETURNING 1
"""
# What is being taken in goes into every collection by itself.
_LACKING = """
SELECT tenant, id, project, served, created_at, chunks FROM context.documents
WHERE served > 0 AND state <> 'accepted' AND NOT $1 = ANY(collections) AND (tenant, id) > ($2, $3)
ORDER BY tenant, id LIMIT $4
"""
_CHUNKS = """
SELECT c.id::text, c.tenant, c.document, c.key_id, c.nonce, c.body FROM context.chunks AS c
JOIN unnest($1::text[], $2::text[]) AS new (tenant, document) ON c.tenant = new.tenant AND c.document = new.document
"""
_MARK = """
UPDATE context.documents AS d SET collections = array_append(d.collections, $4)
FROM unnest($1::text[], $2::text[], $3::int8[]) AS new (tenant, id, served)
WHERE d.tenant = new.tenant AND d.id = new.id AND d.served = new.served AND NOT $4 = ANY(d.collections)
RETURNING d.tenant, d.id
"""
_COUNT = """
SELECT count(*) FILTER (WHERE $1 = ANY(collections)) AS done, count(*) AS total FROM context.documents WHERE served > 0
"""
_LEFT = "SELECT EXISTS (SELECT 1 FROM context.documents WHERE served > 0 AND NOT $1 = ANY(collections))"
_BUILDING = f"SELECT {_COLUMNS} FROM context.generations WHERE state <> 'retired' FOR UPDATE"  # noqa: S608 - ours
_SERVE = "UPDATE context.generations SET state = 'serving', served_at = now() WHERE collection = $1"
_SERVED = "UPDATE context.documents SET model = $2 WHERE $1 = ANY(collections) AND model <> $2"
_BUMP_ALL = "UPDATE context.knowledge SET version = version + 1"
_RETIRED = """
SELECT collection FROM context.generations
WHERE state = 'retired' AND retired_at <= now() - $1 * interval '1 second'
"""
_FORGET_LOOSE = "DELETE FROM context.loose_points WHERE collection = $1"
_FORGET = "DELETE FROM context.generations WHERE collection = $1"


class GenerationStore:
    """Generations over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def standing(self) -> list[Generation]:
        """Returns the generation that answers, then the one that is being built; none where nothing was begun."""
        found = [_generation(row) for row in await self._pool.fetch(_STANDING)]
        return sorted(found, key=lambda one: one.state != "serving")

    async def told(self) -> list[GenerationRow]:
        """Returns how the generations stand, for operators."""
        rows = await self._pool.fetch(_TOLD)
        told: list[GenerationRow] = []
        for row in rows:
            done, total = await self.count(row["collection"])
            shown = GenerationRow(
                collection=row["collection"],
                model=row["model"],
                dimensions=row["dimensions"],
                state=row["state"],
                done=done,
                total=total,
                began_at_ms=int(row["began_at"].timestamp() * 1000),
            )
            told.append(shown)
        return told

    async def begin(self, model: str, dimensions: int) -> Generation:
        """Sees to it that an embedder has its generation, and returns that; replicas that begin at once agree."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK)
            rows = await connection.fetch(_STANDING)
            standing = [_generation(row) for row in rows] or await _adopted(connection)
            wanted = Generation("", model, dimensions)
            todo = begun(standing, wanted)
            await connection.execute(_RETIRE, todo.retired)
            if todo.added is None:
                return next(one for one in standing if one.is_like(wanted))
            name = await _name(connection, wanted)
            added = msgspec.structs.replace(todo.added, collection=name)
            await connection.execute(_ADD, name, model, dimensions, added.layout, added.state)
        return added

    async def lease(self, collection: str, owner: str) -> bool:
        """Takes or prolongs the right to build a generation; false where another process has it."""
        return await self._pool.fetchval(_LEASE, collection, owner, LEASE_SECONDS) is not None

    async def lacking(self, collection: str, after: tuple[str, str], limit: int) -> list[Lacking]:
        """Returns documents that are found and that a collection lacks, by tenant and id, from the one after."""
        return [
            Lacking(row[0], row[1], row[2], row[3], int(row[4].timestamp() * 1000), row[5])
            for row in await self._pool.fetch(_LACKING, collection, *after, limit)
        ]

    async def chunks(self, documents: Sequence[Lacking]) -> list[KeptChunk]:
        """Returns the chunks of documents."""
        keys = [one.tenant for one in documents], [one.document for one in documents]
        rows = await self._pool.fetch(_CHUNKS, *keys)
        return [KeptChunk(row[0], row[1], row[2], Envelope(row[3], row[4], row[5])) for row in rows]

    async def mark(
        self, collection: str, documents: Sequence[Lacking], points: Sequence[KeptChunk]
    ) -> set[tuple[str, str]]:
        """Notes that documents stand in a collection with all their points; returns those that still are as they were.

        Raises :class:`PointsLostError` where points were swept meanwhile.
        """
        ordered = sorted(documents, key=lambda one: (one.tenant, one.document))
        keys = [one.tenant for one in ordered], [one.document for one in ordered], [one.served for one in ordered]
        async with self._pool.acquire() as connection, connection.transaction():
            marked = {(row[0], row[1]) for row in await connection.fetch(_MARK, *keys, collection)}
            await fasten(connection, [(one.tenant, one.id) for one in points if _document(one) in marked], collection)
        return marked

    async def count(self, collection: str) -> tuple[int, int]:
        """Returns how many of how many documents that are found stand in a collection."""
        row = await self._pool.fetchrow(_COUNT, collection)
        return row["done"], row["total"]

    async def switch(self, collection: str) -> bool:
        """Lets a generation that was built answer; false while a document lacks in it, or where it is no longer built.

        Every tenant's knowledge version changes with it.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            standing = {one.state: one for one in map(_generation, await connection.fetch(_BUILDING))}
            building = standing.get("building")
            if building is None or building.collection != collection:
                return False
            if await connection.fetchval(_LEFT, collection):
                return False
            failpoint("context.before-generation")
            await connection.execute(_RETIRE, [standing["serving"].collection])
            await connection.execute(_SERVE, collection)
            await connection.execute(_SERVED, collection, building.model)
            await connection.execute(_BUMP_ALL)
        return True

    async def retired(self) -> list[str]:
        """Returns the collections that nobody asks any more."""
        return [row[0] for row in await self._pool.fetch(_RETIRED, RETIRED_SECONDS)]

    async def forget(self, collection: str) -> None:
        """Forgets a collection that is gone."""
        await self._pool.execute(_FORGET_LOOSE, collection)
        await self._pool.execute(_FORGET, collection)


async def _adopted(connection: Any) -> list[Generation]:
    model = await connection.fetchval(_ADOPTED)
    if not model:
        return []
    name = f"documents-{_digest(model)}"
    await connection.execute(_ADD, name, model, 0, 1, "serving")
    await connection.execute(_ADOPT, name, model)
    return [Generation(name, model, 0, 1)]


async def _name(connection: Any, wanted: Generation) -> str:
    """Names a collection as none was named before: what documents say of an older one of the same embedder is void."""
    number = await connection.fetchval(_NUMBER)
    return f"documents-{_digest(f'{wanted.model}/{wanted.dimensions}')}-{number}"


def _digest(text: str) -> str:
    return hashlib.blake2s(text.encode(), digest_size=6).hexdigest()


def _document(chunk: KeptChunk) -> tuple[str, str]:
    return chunk.tenant, chunk.document


def _generation(row: Any) -> Generation:
    return Generation(row["collection"], row["model"], row["dimensions"], row["layout"], row["state"])
