"""One part of a shelf: a shard of the engine with some of the points, and what BM25 counts of them.

The shard is derived: what it holds can be made again from the journal beside it, so nothing here is flushed while
questions are answered (a flush holds the interpreter for a tenth of a second). One rule: every call into the engine is
short, because it holds the interpreter; what is long belongs into the indexer.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from qdrant_edge import (
    CountRequest,
    Distance,
    EdgeConfig,
    EdgeOptimizersConfig,
    EdgeShard,
    EdgeSparseVectorParams,
    EdgeVectorParams,
    Filter,
    HnswIndexConfig,
    IntegerIndexParams,
    KeywordIndexParams,
    Point,
    Query,
    QueryRequest,
    ScalarQuantizationConfig,
    ScalarType,
    ScoredPoint,
    ScrollRequest,
    SparseVector,
    UpdateOperation,
)

from collegium_context.vectors import wire
from collegium_context.vectors.embedded.filters import ID_FIELD, TENANT_FIELD, key_of
from collegium_context.vectors.embedded.frequencies import Frequencies
from collegium_context.vectors.interface import CollectionSpec

DENSE = "dense"
WORDS = "words"
# A step of the engine holds the interpreter for 5 to 10 ms at this many points.
POINTS_A_STEP = 128
# Edges of the graph of one tenant's points. Below 10 MB of vectors (6,500 of 384 dimensions) a scan is as fast.
HNSW_EDGES = 16
HNSW_CANDIDATES = 100
FULL_SCAN_KB = 10_000
# Nothing is indexed where questions are answered.
NEVER_KB = 2**40
SEGMENT_KB_MAX = 2**30


class Signals(msgspec.Struct, frozen=True):
    """What a question looks for in a part; ``words`` are weighed already."""

    chosen: Filter
    limit: int
    vector: list[float] | None = None
    words: SparseVector | None = None
    with_vectors: bool = False


def config(spec: CollectionSpec, *, indexed: bool, one_tenant: bool = False) -> EdgeConfig:
    """Returns the engine's configuration; ``indexed`` is for the indexer, ``one_tenant`` for a tenant's own shelf."""
    quantization = ScalarQuantizationConfig(type=ScalarType.Int8, always_ram=True) if spec.quantized else None
    # On a shared shelf every question names a tenant, so only the tenants' own graphs are built.
    edges, tenant_edges = (HNSW_EDGES, 0) if one_tenant else (0, HNSW_EDGES)
    return EdgeConfig(
        vectors={DENSE: EdgeVectorParams(size=spec.dimensions, distance=Distance.Cosine)},
        sparse_vectors={WORDS: EdgeSparseVectorParams()} if spec.has_words else None,
        hnsw_config=HnswIndexConfig(
            m=edges, payload_m=tenant_edges, ef_construct=HNSW_CANDIDATES, full_scan_threshold=FULL_SCAN_KB
        ),
        quantization_config=quantization if indexed else None,
        optimizers=EdgeOptimizersConfig(
            indexing_threshold=1 if indexed else NEVER_KB, default_segment_number=1, max_segment_size=SEGMENT_KB_MAX
        ),
        wal_enabled=False,
    )


def create(folder: Path, spec: CollectionSpec, *, indexed: bool = False, one_tenant: bool = False) -> EdgeShard:
    """Makes an empty shard with its payload indexes."""
    folder.mkdir(parents=True)
    shard = EdgeShard.create(str(folder), config(spec, indexed=indexed, one_tenant=one_tenant))
    shard.update(UpdateOperation.create_field_index(TENANT_FIELD, KeywordIndexParams(is_tenant=True)))
    for field in spec.keyword_fields:
        shard.update(UpdateOperation.create_field_index(field, KeywordIndexParams(enable_hnsw=False)))
    for field in spec.integer_fields:
        shard.update(
            UpdateOperation.create_field_index(field, IntegerIndexParams(lookup=True, range=True, enable_hnsw=False))
        )
    return shard


def steps(tenant: str, rows: wire.Rows) -> Iterator[UpdateOperation]:
    """Yields the engine's operations that add rows, a bounded number of points each."""
    vectors, words = wire.vector_lists(rows), wire.word_lists(rows)
    batch: list[Point] = []
    for row, payload in enumerate(rows.payloads):
        named: dict[str, Any] = {}
        if (vector := vectors.get(row)) is not None:
            named[DENSE] = vector
        if (sparse := words.get(row)) is not None:
            named[WORDS] = SparseVector(sparse.indices, sparse.values)
        raw = rows.ids[row * wire.ID_BYTES : (row + 1) * wire.ID_BYTES]
        kept = {**payload, TENANT_FIELD: tenant, ID_FIELD: wire.id_text(raw)}
        batch.append(Point(uuid.UUID(bytes=key_of(tenant, raw)), named, kept))
        if len(batch) == POINTS_A_STEP:
            yield UpdateOperation.upsert_points(batch)
            batch = []
    if batch:
        yield UpdateOperation.upsert_points(batch)


class Part:
    """A shard that answers questions; ``changes`` of its points come by journal, in order."""

    def __init__(self, name: str, shard: EdgeShard, frequencies: Frequencies) -> None:
        self.name = name
        self.shard = shard
        self.frequencies = frequencies

    def put(self, tenant: str, rows: wire.Rows) -> None:
        """Adds or replaces points."""
        for step in steps(tenant, rows):
            self.shard.update(step)
        self.frequencies.add(tenant, len(rows.word_rows), indices_of(rows))

    def drop(self, keys: Sequence[bytes]) -> list[bytes]:
        """Removes the points that are here, and returns their keys."""
        here = self.held(keys)
        for start in range(0, len(here), POINTS_A_STEP):
            chosen = here[start : start + POINTS_A_STEP]
            self.shard.update(UpdateOperation.delete_points([uuid.UUID(bytes=raw) for raw in chosen]))
        return here

    def held(self, keys: Sequence[bytes]) -> list[bytes]:
        """Returns those of the keys whose points are here."""
        here: list[bytes] = []
        for start in range(0, len(keys), POINTS_A_STEP):
            asked = [uuid.UUID(bytes=raw) for raw in keys[start : start + POINTS_A_STEP]]
            found = self.shard.retrieve(asked, with_payload=False, with_vector=False)
            here += [key_in(record.id) for record in found]
        return here

    def look(self, signals: Signals) -> tuple[list[ScoredPoint], list[ScoredPoint]]:
        """Returns the nearest points by vector and by words, best first."""
        dense = [] if signals.vector is None else self._query(Query.Nearest(signals.vector, using=DENSE), signals)
        words = [] if signals.words is None else self._query(Query.Nearest(signals.words, using=WORDS), signals)
        return dense, words

    def _query(self, query: Query, signals: Signals) -> list[ScoredPoint]:
        return self.shard.query(
            QueryRequest(
                limit=signals.limit,
                query=query,
                filter=signals.chosen,
                with_payload=True,
                with_vector=[DENSE] if signals.with_vectors else False,
            )
        )

    def count(self, chosen: Filter) -> int:
        """Counts the points that a filter chooses."""
        return self.shard.count(CountRequest(exact=True, filter=chosen))

    def keys(self, chosen: Filter, limit: int) -> list[bytes]:
        """Returns keys of points that a filter chooses, at most ``limit``."""
        found, _ = self.shard.scroll(ScrollRequest(limit=limit, filter=chosen, with_payload=False, with_vector=False))
        return [key_in(record.id) for record in found]


def key_in(point_id: object) -> bytes:
    """Returns a key as the engine gives it."""
    return point_id.bytes if isinstance(point_id, uuid.UUID) else uuid.UUID(str(point_id)).bytes


def keys_of(tenant: str, rows: wire.Rows) -> list[bytes]:
    """Returns under what the rows' points are kept."""
    places = range(0, len(rows.ids), wire.ID_BYTES)
    return [key_of(tenant, rows.ids[place : place + wire.ID_BYTES]) for place in places]


def indices_of(rows: wire.Rows) -> list[int]:
    """Returns the stems of all rows."""
    return cast("list[int]", np.frombuffer(rows.word_indices, dtype="<u4").tolist())
