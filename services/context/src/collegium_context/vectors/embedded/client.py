"""The embedded store as everybody but its owner has it: each question is a message to the process that owns the folder.

One rule: whatever happens to that process, a question ends in its answer or in one of the interface's errors, in time.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from collegium_bus.connection import Connection
from collegium_bus.errors import BusError
from collegium_contracts import subjects as s
from collegium_contracts.base import Message
from collegium_contracts.codec import encode
from collegium_contracts.errors import ContractError
from collegium_contracts.scope import Scope, one_tenant

from collegium_context.vectors import interface, wire
from collegium_context.vectors import words as bm25
from collegium_context.vectors.embedded.owner import VERB
from collegium_context.vectors.interface import (
    CollectionSpec,
    Hit,
    InvalidQuestionError,
    Looked,
    Point,
    StoreUnavailableError,
    Vector,
    Where,
)

LOOK_SECONDS = 5.0
WRITE_SECONDS = 10.0
FORGET_SECONDS = 300.0
# Building a generation of a million points takes most of an hour.
OPERATE_SECONDS = 7_200.0
# While somebody waits that long, the process that was asked is looked at this often, and given up after this silence.
WATCH_SECONDS = 2.0
SILENT_SECONDS = 60.0
# Making a message's columns then takes some 10 ms; a batch takes effect whole.
POINTS_A_MESSAGE = 100
MESSAGE_BYTES_MAX = 900 * 1024
POINTS_A_BATCH = 250
IDS_A_MESSAGE = 10_000

_ERRORS = {
    kind.code: kind
    for kind in (
        interface.WrongDimensionError,
        interface.StoreLockedError,
        interface.UnknownCollectionError,
        interface.InvalidQuestionError,
    )
}
A = TypeVar("A", bound=Message)


class EmbeddedStore:
    """A VectorStore over the broker."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._specs: dict[str, CollectionSpec] = {}

    async def ensure(self, spec: CollectionSpec) -> None:
        """Makes the collection where it is missing."""
        await self._ask(wire.Ensure(spec=spec), wire.Done, WRITE_SECONDS)

    async def upsert(self, scope: Scope, collection: str, points: Sequence[Point]) -> None:
        """Adds or replaces points; every 250 of them take effect together, and are durable when it returns."""
        tenant = one_tenant(scope)
        spec = await self._spec(collection)
        for start in range(0, len(points), POINTS_A_BATCH):
            await self._batch(tenant, spec, points[start : start + POINTS_A_BATCH])

    async def _batch(self, tenant: str, spec: CollectionSpec, points: Sequence[Point]) -> None:
        parts = await _split(points, spec)
        batch = secrets.token_hex(8)
        for number, rows in enumerate(parts):
            put = wire.Put(collection=spec.name, tenant=tenant, rows=rows, batch=batch, part=number, parts=len(parts))
            await self._ask(put, wire.Done, WRITE_SECONDS)

    async def delete(
        self, scope: Scope, collection: str, *, ids: Sequence[str] = (), where: Where | None = None
    ) -> None:
        """Removes points by id or by filter."""
        tenant = one_tenant(scope)
        raw = [wire.id_bytes(one) for one in ids]
        for start in range(0, len(raw), IDS_A_MESSAGE):
            chosen = b"".join(raw[start : start + IDS_A_MESSAGE])
            await self._ask(wire.Drop(collection=collection, tenant=tenant, ids=chosen), wire.Done, WRITE_SECONDS)
        if where is not None:
            await self._ask_long(
                wire.Drop(collection=collection, tenant=tenant, where=where), wire.Done, FORGET_SECONDS
            )

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
        """Finds the nearest points by vector and by words."""
        spec = await self._spec(collection)
        question = wire.Look(
            collection=collection,
            tenant=one_tenant(scope),
            vector=None if vector is None else wire.vector_bytes(vector, spec.dimensions),
            words=bm25.of_question(words, spec.language, spec.average_words) if words else None,
            where=where,
            limit=limit,
            with_vectors=with_vectors,
        )
        found = await self._ask(question, wire.Found, LOOK_SECONDS)
        return Looked(dense=_hits(found, found.dense), words=_hits(found, found.words))

    async def count(self, scope: Scope, collection: str, where: Where | None = None) -> int:
        """Counts points."""
        question = wire.Count(collection=collection, tenant=one_tenant(scope), where=where)
        return (await self._ask(question, wire.Done, LOOK_SECONDS)).count

    async def names(self) -> list[str]:
        """Names the collections that stand."""
        return sorted((await self.status())["collections"])

    async def drop(self, collection: str) -> None:
        """Takes a collection away with its snapshots."""
        await self._ask_long(wire.Unmake(collection=collection), wire.Done, FORGET_SECONDS)
        self._specs.pop(collection, None)

    async def forget(self, scope: Scope) -> None:
        """Removes a tenant from every collection."""
        await self._ask_long(wire.Forget(tenant=one_tenant(scope)), wire.Done, FORGET_SECONDS)

    async def operate(self, verb: str, collection: str = "", name: str = "", *, quantized: bool | None = None) -> Any:
        """Asks what operators ask; see operating.py for the verbs. Returns JSON's values."""
        question = wire.Ask(verb=verb, collection=collection, name=name, quantized=quantized)
        told = await self._ask_long(question, wire.Told, OPERATE_SECONDS)
        return msgspec.json.decode(told.body)

    async def status(self) -> Any:
        """Says how the store stands: collections, their generations, and what is being indexed."""
        told = await self._ask(wire.Ask(verb="status"), wire.Told, LOOK_SECONDS)
        return msgspec.json.decode(told.body)

    async def close(self) -> None:
        """Has nothing of its own to let go."""

    async def _spec(self, collection: str) -> CollectionSpec:
        spec = self._specs.get(collection)
        if spec is None:
            described = await self._ask(wire.Describe(collection=collection), wire.Described, LOOK_SECONDS)
            spec = self._specs[collection] = described.spec
        return spec

    async def _ask_long(self, question: Message, expected: type[A], timeout_seconds: float) -> A:
        """Asks what may take minutes: waits no longer than the process that was asked lives.

        A killed process answers nothing, and the next one does not know what the first was asked.
        """
        asked_of = (await self.status())["owner"]
        asking = asyncio.create_task(self._ask(question, expected, timeout_seconds))
        heard = time.monotonic()
        try:
            while not (await asyncio.wait((asking,), timeout=WATCH_SECONDS))[0]:
                try:
                    owner = (await self.status())["owner"]
                except StoreUnavailableError:
                    owner = asked_of if time.monotonic() - heard < SILENT_SECONDS else ""
                else:
                    heard = time.monotonic()
                if owner != asked_of and not asking.done():
                    raise StoreUnavailableError("the vector store's process ended before it answered; ask again")
            return await asking
        finally:
            asking.cancel()

    async def _ask(self, question: Message, expected: type[A], timeout_seconds: float) -> A:
        try:
            body, _ = await self._connection.request_raw(
                s.svc_vectors(VERB), encode(question), timeout_seconds=timeout_seconds
            )
            answer = wire.answer.decode(body)
        except (BusError, ContractError) as error:
            raise StoreUnavailableError(f"the vector store does not answer: {error}") from error
        if isinstance(answer, wire.Failed):
            raise _ERRORS.get(answer.code, StoreUnavailableError)(answer.message)
        if not isinstance(answer, expected):
            raise StoreUnavailableError(f"the vector store answered with {type(answer).__name__}")
        return answer


async def _split(points: Sequence[Point], spec: CollectionSpec) -> list[wire.Rows]:
    """Returns the points in columns, so many that each fits a message."""
    made: list[wire.Rows] = []
    waiting = [points[start : start + POINTS_A_MESSAGE] for start in range(0, len(points), POINTS_A_MESSAGE)]
    while waiting:
        some = waiting.pop(0)
        rows = wire.make_rows(some, spec)
        await asyncio.sleep(0)
        if len(encode(rows)) <= MESSAGE_BYTES_MAX:
            made.append(rows)
        elif len(some) == 1:
            raise InvalidQuestionError(f"point {some[0].id} is larger than {MESSAGE_BYTES_MAX} bytes")
        else:
            half = len(some) // 2
            waiting[:0] = [some[:half], some[half:]]
    return made


def _hits(found: wire.Found, ranked: Sequence[tuple[int, float]]) -> tuple[Hit, ...]:
    hits: list[Hit] = []
    for place, score in ranked:
        point = found.points[place]
        vector = None if point.vector is None else np.frombuffer(point.vector, dtype="<f4")
        hits.append(Hit(id=wire.id_text(point.id), score=score, payload=point.payload, vector=vector))
    return tuple(hits)
