"""Chunks to points: what of a chunk goes into the vector store, and the way there.

One rule: a point is written down as loose before it is put, so that whatever dies it is a chunk's, or is swept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from collegium_contracts.knowledge import FieldValue
from collegium_contracts.scope import Scope

from collegium_context.documents.generations import Generation
from collegium_context.documents.indexing_store import IndexingStore
from collegium_context.embedding.interface import Embedder
from collegium_context.search.filtering import ADDED, FACETS
from collegium_context.vectors.interface import PayloadValue, Point, UnknownCollectionError, Vector, VectorStore


class ChunkBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a chunk, sealed: all that an answer shows of it."""

    text: str
    title: str = ""
    headings: tuple[str, ...] = ()
    tags: list[str] = []
    fields: dict[str, FieldValue] = {}


class Draft(NamedTuple):
    """A point before its vector; ``indexed`` is the text that both signals see."""

    tenant: str
    id: str
    indexed: str
    payload: dict[str, PayloadValue]


def payload(facets: Sequence[str], measures: Mapping[str, float], created_at_ms: int) -> dict[str, PayloadValue]:
    """Returns what filters see of a point."""
    return {**measures, FACETS: list(facets), ADDED: created_at_ms}


class Putting:
    """Puts points into the collections of generations, and takes them out."""

    def __init__(self, store: IndexingStore, vectors: VectorStore) -> None:
        self._store = store
        self._vectors = vectors
        self._made: set[str] = set()

    async def put(self, target: Generation, embedder: Embedder | None, drafts: Sequence[Draft]) -> None:
        """Puts points, with vectors where there is an embedder; raises EmbedderUnavailableError, VectorStoreError."""
        if target.dimensions and target.collection not in self._made:
            await self._vectors.ensure(target.spec)
            self._made.add(target.collection)
        await self._store.loosen([(one.tenant, one.id) for one in drafts], target.collection)
        vectors = await _vectors(embedder, drafts) if embedder is not None else [None] * len(drafts)
        points: dict[str, list[Point]] = {}
        for one, vector in zip(drafts, vectors, strict=True):
            points.setdefault(one.tenant, []).append(Point(one.id, vector, one.indexed, one.payload))
        try:
            for tenant, of_tenant in points.items():
                await self._vectors.upsert(Scope(tenant), target.collection, of_tenant)
        except UnknownCollectionError:
            # It was retired, or its folder was restored from before it was made.
            self._made.discard(target.collection)
            raise

    async def remove(self, tenant: str, collection: str, ids: Sequence[str]) -> None:
        """Takes points out; where the collection is gone they are gone."""
        if ids:
            with contextlib.suppress(UnknownCollectionError):
                await self._vectors.delete(Scope(tenant), collection, ids=ids)

    async def drop(self, collection: str) -> None:
        """Takes a whole collection away."""
        self._made.discard(collection)
        await self._vectors.drop(collection)


async def _vectors(embedder: Embedder, drafts: Sequence[Draft]) -> list[Vector]:
    """Returns one vector a point; a tenant's like texts are embedded once, as a document may say one thing all over."""
    places: dict[tuple[str, str], int] = {}
    for one in drafts:
        places.setdefault((one.tenant, one.indexed), len(places))
    made = await embedder.embed([text for _, text in places])
    return [made[places[one.tenant, one.indexed]] for one in drafts]
