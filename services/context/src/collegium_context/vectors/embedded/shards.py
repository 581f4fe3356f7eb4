"""Shards of the engine: how they are made, and how points are put into the engine's words.

One rule: every call into the engine holds the interpreter, so a step here is bounded; what takes long (building graphs)
is the indexer's, in a process of its own.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import numpy as np
from qdrant_edge import (
    Distance,
    EdgeConfig,
    EdgeOptimizersConfig,
    EdgeShard,
    EdgeSparseVectorParams,
    EdgeVectorParams,
    HnswIndexConfig,
    IntegerIndexParams,
    KeywordIndexParams,
    Point,
    ScalarQuantizationConfig,
    ScalarType,
    SparseVector,
    UpdateOperation,
)

from collegium_context.vectors import wire
from collegium_context.vectors.interface import CollectionSpec
from collegium_context.vectors.keys import ID_FIELD, TENANT_FIELD, key_of

DENSE = "dense"
WORDS = "words"
# A step of the engine holds the interpreter for 2 to 5 ms at this many points.
POINTS_A_STEP = 64
# Edges of the graph of one tenant's points. Below 10 MB of vectors (6,500 of 384 dimensions) a scan is as fast.
HNSW_EDGES = 16
HNSW_CANDIDATES = 100
FULL_SCAN_KB = 10_000
# Nothing is indexed where questions are answered.
NEVER_KB = 2**40
SEGMENT_KB_MAX = 2**30


Graphs = Literal["none", "by_tenant", "one"]


def config(spec: CollectionSpec, *, indexed: bool, graphs: Graphs = "none") -> EdgeConfig:
    """Returns the engine's configuration; ``indexed`` is for the indexer.

    ``graphs``: one of each tenant's points on a shared shelf, where every question names a tenant; a single one on a
    tenant's own; or none.
    """
    quantization = ScalarQuantizationConfig(type=ScalarType.Int8, always_ram=True) if spec.quantized else None
    return EdgeConfig(
        vectors={DENSE: EdgeVectorParams(size=spec.dimensions, distance=Distance.Cosine)},
        sparse_vectors={WORDS: EdgeSparseVectorParams()} if spec.has_words else None,
        hnsw_config=HnswIndexConfig(
            m=HNSW_EDGES if graphs == "one" else 0,
            payload_m=HNSW_EDGES if graphs == "by_tenant" else 0,
            ef_construct=HNSW_CANDIDATES,
            full_scan_threshold=FULL_SCAN_KB,
        ),
        quantization_config=quantization if indexed else None,
        optimizers=EdgeOptimizersConfig(
            indexing_threshold=1 if indexed else NEVER_KB, default_segment_number=1, max_segment_size=SEGMENT_KB_MAX
        ),
        wal_enabled=False,
    )


def create(folder: Path, spec: CollectionSpec, *, indexed: bool = False, graphs: Graphs = "none") -> EdgeShard:
    """Makes an empty shard with its payload indexes."""
    folder.mkdir(parents=True)
    shard = EdgeShard.create(str(folder), config(spec, indexed=indexed, graphs=graphs))
    shard.update(UpdateOperation.create_field_index(TENANT_FIELD, KeywordIndexParams(is_tenant=True)))
    for field in spec.keyword_fields:
        shard.update(UpdateOperation.create_field_index(field, KeywordIndexParams(enable_hnsw=False)))
    for field in spec.integer_fields:
        shard.update(
            UpdateOperation.create_field_index(field, IntegerIndexParams(lookup=True, range=True, enable_hnsw=False))
        )
    return shard


class Prepared(msgspec.Struct, frozen=True):
    """Rows in the engine's words: what takes long about them is done, and nothing has changed yet."""

    rows: wire.Rows
    keys: list[bytes]
    steps: list[UpdateOperation]


def prepare(tenant: str, rows: wire.Rows) -> Iterator[Prepared | None]:
    """Yields none after each bounded share of the work, and what came of it in the end."""
    vectors, words = wire.vector_lists(rows), wire.word_lists(rows)
    keys = keys_of(tenant, rows)
    made: list[UpdateOperation] = []
    batch: list[Point] = []
    for row, payload in enumerate(rows.payloads):
        named: dict[str, Any] = {}
        if (vector := vectors.get(row)) is not None:
            named[DENSE] = vector
        if (sparse := words.get(row)) is not None:
            named[WORDS] = SparseVector(sparse.indices, sparse.values)
        raw = rows.ids[row * wire.ID_BYTES : (row + 1) * wire.ID_BYTES]
        kept = {**payload, TENANT_FIELD: tenant, ID_FIELD: wire.id_text(raw)}
        batch.append(Point(uuid.UUID(bytes=keys[row]), named, kept))
        if len(batch) == POINTS_A_STEP:
            made.append(UpdateOperation.upsert_points(batch))
            batch = []
            yield None
    if batch:
        made.append(UpdateOperation.upsert_points(batch))
    yield Prepared(rows, keys, made)


def prepared(tenant: str, rows: wire.Rows) -> Prepared:
    """Returns the same at once, where nobody waits."""
    *_, made = prepare(tenant, rows)
    assert made is not None
    return made


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
