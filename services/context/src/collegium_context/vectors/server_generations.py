"""Generations and snapshots of collections on a Qdrant server.

A further generation is filled by copying while every change goes to both; a page that was copied is compared with its
source again, because it may have changed while it was read. One rule: nothing is switched that an operator did not
name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from qdrant_client import models

from collegium_context.vectors.interface import InvalidQuestionError, StoreUnavailableError
from collegium_context.vectors.server import POINTS_A_CALL, QdrantStore, number_of


async def reindex(store: QdrantStore, collection: str, *, quantized: bool | None = None) -> str:
    """Builds a further generation while the old one answers, and returns its name; nothing is switched."""
    spec = await store.spec(collection)
    if quantized is not None:
        spec = msgspec.structs.replace(spec, quantized=quantized)
    standing = await store.generations(collection, fresh=True)
    source = await store.serving(collection)
    name = f"{collection}.g{number_of(standing[-1]) + 1}"
    await store.make(name, spec)
    await store.generations(collection, fresh=True)
    await asyncio.sleep(2 * store.known_seconds)  # until every replica writes to it too
    offset: Any = None
    while True:
        records, offset = await store.call(
            store.client.scroll(source, limit=POINTS_A_CALL, offset=offset, with_payload=True, with_vectors=True)
        )
        await _copy(store, source, name, records)
        if offset is None:
            return name


async def _copy(store: QdrantStore, source: str, target: str, records: Sequence[models.Record]) -> None:
    """Adds what is not there yet; what was written or removed meanwhile stays so."""
    ids = [record.id for record in records]
    there = {record.id for record in await store.call(store.client.retrieve(target, ids, with_payload=False))}
    missing = [
        models.PointStruct(id=record.id, vector=cast("Any", record.vector), payload=record.payload)
        for record in records
        if record.id not in there
    ]
    if missing:
        await store.call(store.client.upsert(target, missing, wait=True))
    left = await store.call(store.client.retrieve(source, ids, with_payload=True, with_vectors=True))
    if gone := set(ids) - {record.id for record in left}:
        await store.call(store.client.delete(target, models.PointIdsList(points=list(gone)), wait=True))
    read = {record.id: record for record in records}
    changed = [
        models.PointStruct(id=record.id, vector=cast("Any", record.vector), payload=record.payload)
        for record in left
        if (record.payload, record.vector) != (read[record.id].payload, read[record.id].vector)
    ]
    if changed:
        await store.call(store.client.upsert(target, changed, wait=True))


async def switch(store: QdrantStore, collection: str, generation: str) -> str:
    """Lets another generation answer, in one step, and returns which one did before."""
    if generation not in await store.generations(collection, fresh=True):
        raise InvalidQuestionError(f"collection {collection} has no generation {generation!r}")
    before = await store.serving(collection)
    drop = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=collection))
    create = models.CreateAlias(collection_name=generation, alias_name=collection)
    await store.call(store.client.update_collection_aliases([drop, models.CreateAliasOperation(create_alias=create)]))
    return before


async def discard(store: QdrantStore, collection: str, generation: str) -> None:
    """Takes a generation away, which must not be the one that answers."""
    standing = await store.generations(collection, fresh=True)
    if generation not in standing or generation == await store.serving(collection):
        raise InvalidQuestionError(f"generation {generation!r} is not there, or answers")
    await store.call(store.client.delete_collection(generation))
    await store.generations(collection, fresh=True)


async def operate(
    store: QdrantStore, verb: str, collection: str = "", name: str = "", *, quantized: bool | None = None
) -> Any:
    """Does what operators ask; raises InvalidQuestionError where that is the server's own business."""
    match verb:
        case "status":
            return {"collections": {one: await _standing(store, one) for one in await store.names()}}
        case "snapshot":
            return {"snapshot": await snapshot(store, collection)}
        case "snapshots":
            serving = await store.serving(collection)
            return [{"name": one, "points": "", "made_at_ms": ""} for one in await store.snapshots_of(serving)]
        case "reindex":
            return {"generation": await reindex(store, collection, quantized=quantized)}
        case "switch":
            return {"serving": name, "before": await switch(store, collection, name)}
        case "discard":
            await discard(store, collection, name)
            return {"discarded": name}
        case _:
            raise InvalidQuestionError(f"{verb}: use the Qdrant server's own tools for this")


async def _standing(store: QdrantStore, collection: str) -> dict[str, Any]:
    generations: dict[str, Any] = {}
    for name in await store.generations(collection, fresh=True):
        info = await store.call(store.client.get_collection(name))
        generations[name] = {
            "whole": True,
            "quantized": info.config.quantization_config is not None,
            "points": info.points_count or 0,
            "built_points": info.indexed_vectors_count or 0,
            "parts": info.segments_count,
            "own_shelves": {},
        }
    return {"serving": await store.serving(collection), "generations": generations}


async def snapshot(store: QdrantStore, collection: str) -> str:
    """Has the server take a snapshot of what answers, and returns its name."""
    made = await store.call(store.client.create_snapshot(await store.serving(collection), wait=True))
    if made is None:
        raise StoreUnavailableError("the server took no snapshot")
    return made.name
