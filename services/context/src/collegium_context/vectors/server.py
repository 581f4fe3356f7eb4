"""The vector store on a Qdrant server.

A collection is an alias on one of its generations (``<name>.g1``, ``<name>.g2``), so that switching and rolling back is
one call; every generation that stands gets every change. All tenants share a collection, whose tenant index keeps their
points together on disk and gives each a graph of its own. One rule: every filter and every point is given its tenant
here, and an id of one tenant never meets the same id of another.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from collegium_contracts.scope import Scope, one_tenant
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from collegium_context.vectors import server_filters as filters
from collegium_context.vectors import wire
from collegium_context.vectors import words as bm25
from collegium_context.vectors.interface import (
    CollectionSpec,
    Hit,
    InvalidQuestionError,
    Looked,
    Point,
    StoreUnavailableError,
    UnknownCollectionError,
    Vector,
    Where,
    WrongDimensionError,
)
from collegium_context.vectors.keys import ID_FIELD, TENANT_FIELD, key_of

DENSE, WORDS = "dense", "words"
TIMEOUT_SECONDS = 10
POINTS_A_CALL = 250
LIMIT_MAX = 1_000
# How long a replica may not know of a generation that another one began.
KNOWN_SECONDS = 2.0
_NOT_FOUND = 404
# The spec stands in a point of a collection of its own, because a collection's configuration has no room for it.
_SPECS = "collegium-collections"
T = TypeVar("T")


class QdrantStore:
    """A VectorStore on a Qdrant server, or on the client's local mode."""

    def __init__(self, client: AsyncQdrantClient, *, known_seconds: float = KNOWN_SECONDS) -> None:
        self.client = client
        self.known_seconds = known_seconds
        self._specs: dict[str, CollectionSpec] = {}
        self._generations: dict[str, tuple[float, list[str]]] = {}
        self.is_ready = True

    @staticmethod
    def connected(url: str, api_key: str | None) -> QdrantStore:
        """Returns the store on a server; nothing is asked yet."""
        return QdrantStore(
            AsyncQdrantClient(url=url, api_key=api_key, timeout=TIMEOUT_SECONDS, check_compatibility=False)
        )

    async def ensure(self, spec: CollectionSpec) -> None:
        """Makes the collection where it is missing."""
        try:
            standing = await self.spec(spec.name)
        except UnknownCollectionError:
            await self.make(f"{spec.name}.g1", spec)
            await self._alias(spec.name, f"{spec.name}.g1")
            await self._keep(spec)
            return
        if standing.dimensions != spec.dimensions:
            raise WrongDimensionError(
                f"collection {spec.name} has {standing.dimensions} dimensions, not {spec.dimensions}"
            )

    async def make(self, name: str, spec: CollectionSpec) -> None:
        """Makes a generation where it is missing."""
        if await self.call(self.client.collection_exists(name)):
            return
        quantization = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        await self.call(
            self.client.create_collection(
                name,
                vectors_config={DENSE: models.VectorParams(size=spec.dimensions, distance=models.Distance.COSINE)},
                sparse_vectors_config={WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
                quantization_config=models.ScalarQuantization(scalar=quantization) if spec.quantized else None,
            )
        )
        fields: dict[str, Any] = {
            TENANT_FIELD: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        }
        fields |= dict.fromkeys(spec.keyword_fields, models.PayloadSchemaType.KEYWORD)
        fields |= dict.fromkeys(spec.integer_fields, models.PayloadSchemaType.INTEGER)
        for field, schema in fields.items():
            await self.call(self.client.create_payload_index(name, field, field_schema=schema))

    async def _alias(self, name: str, generation: str) -> None:
        create = models.CreateAlias(collection_name=generation, alias_name=name)
        await self.call(self.client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)]))

    async def _keep(self, spec: CollectionSpec) -> None:
        if not await self.call(self.client.collection_exists(_SPECS)):
            await self.call(self.client.create_collection(_SPECS, vectors_config={}))
        payload = {"spec": msgspec.json.encode(spec).decode()}
        point = models.PointStruct(id=_spec_id(spec.name), vector={}, payload=payload)
        await self.call(self.client.upsert(_SPECS, [point], wait=True))
        self._specs[spec.name] = spec

    async def spec(self, name: str) -> CollectionSpec:
        """Returns how a collection was made; raises UnknownCollectionError."""
        spec = self._specs.get(name)
        if spec is None:
            if not await self.call(self.client.collection_exists(_SPECS)):
                raise UnknownCollectionError(f"there is no collection {name!r}")
            found = await self.call(self.client.retrieve(_SPECS, [_spec_id(name)], with_payload=True))
            if not found:
                raise UnknownCollectionError(f"there is no collection {name!r}")
            text = str((found[0].payload or {})["spec"])
            spec = self._specs[name] = msgspec.json.decode(text, type=CollectionSpec)
        return spec

    async def upsert(self, scope: Scope, collection: str, points: Sequence[Point]) -> None:
        """Adds or replaces points of the scope's tenant; durable when it returns."""
        tenant = one_tenant(scope)
        spec = await self.spec(collection)
        for start in range(0, len(points), POINTS_A_CALL):
            made = [_point(tenant, spec, one) for one in points[start : start + POINTS_A_CALL]]
            for generation in await self.generations(collection):
                await self.call(self.client.upsert(generation, made, wait=True))

    async def delete(
        self, scope: Scope, collection: str, *, ids: Sequence[str] = (), where: Where | None = None
    ) -> None:
        """Removes points of the scope's tenant by id or by filter."""
        tenant = one_tenant(scope)
        await self.spec(collection)
        selectors: list[Any] = []
        if ids:
            keys: list[Any] = [_key(tenant, wire.id_bytes(one)) for one in ids]
            selectors.append(models.PointIdsList(points=keys))
        if where is not None:
            selectors.append(models.FilterSelector(filter=filters.of_tenant(tenant, where)))
        for generation in await self.generations(collection):
            for selector in selectors:
                await self.call(self.client.delete(generation, selector, wait=True))

    async def look(
        self,
        scope: Scope,
        collection: str,
        *,
        vector: Vector | None = None,
        words: str | None = None,
        where: Where | None = None,
        limit: int = 10,
        with_vectors: bool = False,
    ) -> Looked:
        """Finds the nearest points by vector and by words, in one round trip."""
        tenant = one_tenant(scope)
        spec = await self.spec(collection)
        if not 1 <= limit <= LIMIT_MAX:
            raise InvalidQuestionError(f"limit: from 1 to {LIMIT_MAX}")
        asked: list[tuple[Any, str, models.SearchParams | None]] = []
        if vector is not None:
            checked = np.frombuffer(wire.vector_bytes(vector, spec.dimensions), dtype="<f4")
            asked.append((checked.tolist(), DENSE, None))
        if words and spec.has_words:
            sparse = bm25.of_question(words, spec.language, spec.average_words)
            if sparse.indices:
                # How rare a word is, is counted over the tenant's own points.
                corpus = models.IdfCorpusParams(corpus=filters.of_tenant(tenant, None))
                query = models.SparseVector(indices=sparse.indices, values=sparse.values)
                asked.append((query, WORDS, models.SearchParams(idf=corpus)))
        requests = [
            models.QueryRequest(
                query=query,
                using=using,
                filter=filters.of_tenant(tenant, where),
                limit=limit,
                params=params,
                with_payload=True,
                with_vector=[DENSE] if with_vectors else False,
            )
            for query, using, params in asked
        ]
        if not requests:
            return Looked()
        answers = await self.call(self.client.query_batch_points(collection, requests))
        hits = {using: _hits(answer.points) for (_, using, _), answer in zip(asked, answers, strict=True)}
        return Looked(dense=hits.get(DENSE, ()), words=hits.get(WORDS, ()))

    async def count(self, scope: Scope, collection: str, where: Where | None = None) -> int:
        """Counts the points of the scope's tenant."""
        tenant = one_tenant(scope)
        await self.spec(collection)
        found = await self.call(
            self.client.count(collection, count_filter=filters.of_tenant(tenant, where), exact=True)
        )
        return found.count

    async def names(self) -> list[str]:
        """Names the collections that stand."""
        return sorted(alias.alias_name for alias in (await self.call(self.client.get_aliases())).aliases)

    async def drop(self, collection: str) -> None:
        """Takes a collection away with all its generations; their snapshots go with them."""
        if collection in await self.names():
            delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=collection))
            await self.call(self.client.update_collection_aliases([delete]))
        for generation in await self.generations(collection, fresh=True):
            await self.call(self.client.delete_collection(generation))
        self._specs.pop(collection, None)
        self._generations.pop(collection, None)
        if await self.call(self.client.collection_exists(_SPECS)):
            chosen = models.PointIdsList(points=[_spec_id(collection)])
            await self.call(self.client.delete(_SPECS, chosen, wait=True))

    async def forget(self, scope: Scope) -> None:
        """Removes every point of the tenant from every generation, and every snapshot that may hold some."""
        selector = models.FilterSelector(filter=filters.of_tenant(one_tenant(scope), None))
        for described in (await self.call(self.client.get_collections())).collections:
            if ".g" not in described.name:
                continue
            await self.call(self.client.delete(described.name, selector, wait=True))
            for snapshot in await self.snapshots_of(described.name):
                await self.call(self.client.delete_snapshot(described.name, snapshot, wait=True))

    async def close(self) -> None:
        """Closes the connections."""
        await self.client.close()

    async def generations(self, collection: str, *, fresh: bool = False) -> list[str]:
        """Returns the generations of a collection that stand, oldest first."""
        at, known = self._generations.get(collection, (0.0, []))
        if fresh or not known or time.monotonic() - at > self.known_seconds:
            named = (await self.call(self.client.get_collections())).collections
            known = sorted((one.name for one in named if one.name.startswith(f"{collection}.g")), key=number_of)
            self._generations[collection] = (time.monotonic(), known)
        return known

    async def serving(self, collection: str) -> str:
        """Returns the generation that answers."""
        aliases = await self.call(self.client.get_aliases())
        for alias in aliases.aliases:
            if alias.alias_name == collection:
                return alias.collection_name
        raise UnknownCollectionError(f"there is no collection {collection!r}")

    async def snapshots_of(self, generation: str) -> list[str]:
        """Returns the names of a generation's snapshots."""
        return [one.name for one in await self.call(self.client.list_snapshots(generation))]

    async def call(self, call: Awaitable[T]) -> T:
        """Awaits the server's answer, a bounded time; whatever is wrong becomes an error of the interface."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = await call
        except UnexpectedResponse as error:
            if error.status_code == _NOT_FOUND:
                raise UnknownCollectionError("the Qdrant server has no such collection") from error
            self.is_ready = False
            raise StoreUnavailableError(f"the Qdrant server refused with status {error.status_code}") from error
        except (ApiException, ResponseHandlingException, TimeoutError, OSError) as error:
            self.is_ready = False
            raise StoreUnavailableError(f"the Qdrant server does not answer: {type(error).__name__}") from error
        self.is_ready = True
        return answer


def _spec_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def number_of(generation: str) -> int:
    """Returns the number at the end of a generation's name."""
    digits = generation.rpartition(".g")[2]
    return int(digits) if digits.isdecimal() else 0


def _key(tenant: str, raw: bytes) -> str:
    return wire.id_text(key_of(tenant, raw))


def _point(tenant: str, spec: CollectionSpec, point: Point) -> models.PointStruct:
    wire.check_payload(point)
    raw = wire.id_bytes(point.id)
    named: dict[str, Any] = {}
    if point.vector is not None:
        named[DENSE] = np.frombuffer(wire.vector_bytes(point.vector, spec.dimensions), dtype="<f4").tolist()
    if point.words and spec.has_words:
        sparse = bm25.of_document(point.words, spec.language, spec.average_words)
        named[WORDS] = models.SparseVector(indices=sparse.indices, values=sparse.values)
    payload = {**point.payload, TENANT_FIELD: tenant, ID_FIELD: wire.id_text(raw)}
    return models.PointStruct(id=_key(tenant, raw), vector=named, payload=payload)


def _hits(points: Sequence[models.ScoredPoint]) -> tuple[Hit, ...]:
    hits: list[Hit] = []
    for point in points:
        payload = dict(point.payload or {})
        payload.pop(TENANT_FIELD, None)
        found = point.vector.get(DENSE) if isinstance(point.vector, dict) else None
        vector = None if found is None else np.array(found, dtype=np.float32)
        hits.append(Hit(id=str(payload.pop(ID_FIELD)), score=point.score, payload=payload, vector=vector))
    return tuple(hits)
