"""Accepted documents become indexed: read, cut, embedded, put into the vector store, and switched to as a whole.

Small documents go many at a time, heavy ones (PDFs, large ones) one by one beside them. One rule: a document that was
accepted ends as indexed or failed, whatever is away or killed in between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import msgspec
import structlog
from collegium_contracts.envelope import Keyring, UnknownKeyError, held
from collegium_contracts.knowledge import DocumentMeta, FieldValue
from collegium_contracts.scope import Scope
from collegium_runtime.failpoints import failpoint
from collegium_store import is_transient

from collegium_context.documents import child
from collegium_context.documents.blocks import Extracted
from collegium_context.documents.chunking import chunked
from collegium_context.documents.errors import DocumentError, DocumentTooCostlyError
from collegium_context.documents.extracting import extracted
from collegium_context.documents.indexing_store import (
    ChunkRow,
    Indexed,
    IndexingStore,
    PointsLostError,
    Taken,
    is_heavy,
)
from collegium_context.documents.naming import NamedChunk, facets_of, named_chunks
from collegium_context.embedding.interface import Embedder, EmbedderUnavailableError
from collegium_context.vectors.interface import CollectionSpec, PayloadValue, Point, VectorStore, VectorStoreError

log = structlog.get_logger(__name__)

LIGHT_AT_ONCE = 128
LIGHT_BYTES_MAX = 2 * 1024 * 1024
HEAVY_AT_ONCE = 2
HEAVY_BYTES_MAX = 16 * 1024 * 1024
# Chunks between two renewals of the leases.
STEP_CHUNKS = 256
POLL_SECONDS = 1.0
AWAY_SECONDS = 2.0
SWEEP_SECONDS = 5.0
# Tries that end without a word, because the process died with them.
TRIES_MAX = 5


class ChunkBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a chunk, sealed: all that an answer shows of it."""

    text: str
    title: str = ""
    headings: tuple[str, ...] = ()
    tags: list[str] = []
    fields: dict[str, FieldValue] = {}


class _Read(msgspec.Struct, frozen=True):
    taken: Taken
    meta: DocumentMeta
    facets: list[str]
    chunks: list[NamedChunk]
    title: str


_decode_meta = msgspec.json.Decoder(DocumentMeta).decode


class Ingesting:
    """Takes in what is due, in this process beside others that do the same."""

    def __init__(
        self,
        store: IndexingStore,
        vectors: VectorStore,
        embedder: Embedder,
        keyring: Keyring,
        collection: str,
        spec: Callable[[], CollectionSpec],
    ) -> None:
        self._store = store
        self._vectors = vectors
        self._embedder = embedder
        self._keyring = keyring
        self._spec = spec
        self._collection = collection
        self._is_made = False
        self._wakes = {False: asyncio.Event(), True: asyncio.Event()}
        self._sweep_wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins with what a process that died has left."""
        self._tasks = [
            asyncio.create_task(self._loop(heavy=False), name="documents"),
            asyncio.create_task(self._loop(heavy=True), name="heavy-documents"),
            asyncio.create_task(self._sweeping(), name="loose-points"),
        ]

    async def stop(self) -> None:
        """Stops; what was begun is taken up by the next after its lease."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def wake(self) -> None:
        """Tells that documents may be due."""
        for event in self._wakes.values():
            event.set()

    def wake_sweep(self) -> None:
        """Tells that points may be due for removal."""
        self._sweep_wake.set()

    async def _loop(self, *, heavy: bool) -> None:
        wake = self._wakes[heavy]
        limit, bytes_max = (HEAVY_AT_ONCE, HEAVY_BYTES_MAX) if heavy else (LIGHT_AT_ONCE, LIGHT_BYTES_MAX)
        while True:
            wake.clear()
            try:
                taken = await self._store.take(heavy=heavy, limit=limit, bytes_max=bytes_max)
                for some in _together(taken):
                    await self._take_in(some)
            except Exception as error:
                if not is_transient(error):
                    log.error("documents cannot be taken in", exc_info=error)
                taken = []
            if not taken:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), POLL_SECONDS)

    async def _take_in(self, taken: Sequence[Taken]) -> None:
        try:
            read = [one for one in await asyncio.gather(*map(self._read, taken)) if one is not None]
            if read:
                await self._index(read)
        except (EmbedderUnavailableError, VectorStoreError) as error:
            log.warning("documents wait", code=error.code, documents=len(taken))
            await self._store.put_off(taken, AWAY_SECONDS, counts=False)
        except PointsLostError as error:
            log.warning("documents are taken in again", reason=str(error))
            await self._store.put_off(taken, 0, counts=False)
        except Exception as error:
            if not is_transient(error):
                log.error("documents were not taken in", documents=len(taken), exc_info=error)
                await self._store.put_off(taken, AWAY_SECONDS, counts=True)
            else:
                raise

    async def _read(self, one: Taken) -> _Read | None:
        """Opens, reads and cuts a document; none where that failed for good."""
        try:
            if one.tries > TRIES_MAX:
                raise DocumentTooCostlyError(f"it was begun {TRIES_MAX} times and never finished")
            await held(self._keyring, one.tenant, one.meta, one.source)
            meta = _decode_meta(self._keyring.open(one.tenant, one.meta))
            content = self._keyring.open(one.tenant, one.source)
            found = await self._extracted(one, content)
            title = meta.title or found.title
            facets = facets_of(one.tenant, one.document, one.project, meta)
            chunks = await asyncio.to_thread(
                lambda: named_chunks(one.tenant, one.document, chunked(found.blocks), title, facets)
            )
        except DocumentError as error:
            await self._store.fail(one, error.code, f"document {one.document}: {error}")
            return None
        except UnknownKeyError:
            log.warning("a document waits for its key", tenant=one.tenant, document=one.document)
            await self._store.put_off([one], AWAY_SECONDS, counts=True)
            return None
        return _Read(one, meta, facets, chunks, title)

    async def _extracted(self, one: Taken, content: bytes) -> Extracted:
        if is_heavy(one.kind, len(content)):
            return await child.read(content, one.kind)
        return await asyncio.to_thread(extracted, content, one.kind)

    async def _index(self, read: Sequence[_Read]) -> None:
        found = await self._store.standing([one.taken for one in read], self._embedder.model)
        new = [(one, chunk) for one in read for chunk in one.chunks if (one.taken.tenant, chunk.id) not in found]
        done = {one.taken.version: sum((one.taken.tenant, chunk.id) in found for chunk in one.chunks) for one in read}
        for start in range(0, len(new), STEP_CHUNKS):
            step = new[start : start + STEP_CHUNKS]
            await self._put(step)
            for one, _ in step:
                done[one.taken.version] += 1
            if start + STEP_CHUNKS < len(new):
                await self._store.renew([(one.taken, done[one.taken.version], len(one.chunks)) for one in read])
        failpoint("context.before-indexed")
        fresh = {(one.taken.tenant, chunk.id) for one, chunk in new}
        indexed = [await self._sealed(one, fresh) for one in read]
        await self._store.switch(indexed, model=self._embedder.model, collection=self._collection)
        self.wake_sweep()

    async def _put(self, step: Sequence[tuple[_Read, NamedChunk]]) -> None:
        """Puts the points of new chunks into the vector store; nobody finds them before the switch."""
        vectors = await self._embedder.embed([chunk.indexed for _, chunk in step])
        if not self._is_made:
            await self._vectors.ensure(self._spec())
            self._is_made = True
        await self._store.loosen([(one.taken.tenant, chunk.id) for one, chunk in step], self._collection)
        points: dict[str, list[Point]] = {}
        for (one, chunk), vector in zip(step, vectors, strict=True):
            payload: dict[str, PayloadValue] = {"facets": one.facets, "added": one.taken.created_at_ms}
            points.setdefault(one.taken.tenant, []).append(Point(chunk.id, vector, chunk.indexed, payload))
        for tenant, of_tenant in points.items():
            await self._vectors.upsert(Scope(tenant), self._collection, of_tenant)
        failpoint("context.after-points")

    async def _sealed(self, one: _Read, fresh: set[tuple[str, str]]) -> Indexed:
        rows: list[ChunkRow] = []
        tenant = one.taken.tenant
        for number, chunk in enumerate(one.chunks):
            if number % STEP_CHUNKS == STEP_CHUNKS - 1:
                await asyncio.sleep(0)
            body = ChunkBody(chunk.chunk.text, one.title, chunk.chunk.headings, one.meta.tags, one.meta.fields)
            sealed = self._keyring.seal(tenant, msgspec.msgpack.encode(body))
            rows.append(ChunkRow(chunk.id, chunk.ordinal, sealed, chunk.chunk.tokens, (tenant, chunk.id) in fresh))
        stored = sum(len(row.body.body) + 4 * self._embedder.dimensions for row in rows)
        return Indexed(tenant, one.taken.document, one.taken.version, rows, stored)

    async def _sweeping(self) -> None:
        while True:
            self._sweep_wake.clear()
            swept = 0
            try:
                swept = await self._store.sweep(self._remove)
            except VectorStoreError as error:
                log.warning("loose points stay for now", code=error.code)
            except Exception as error:
                if not is_transient(error):
                    log.error("loose points cannot be removed", exc_info=error)
            if not swept:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._sweep_wake.wait(), SWEEP_SECONDS)

    async def _remove(self, tenant: str, collection: str, ids: Sequence[str]) -> None:
        if ids:
            await self._vectors.delete(Scope(tenant), collection, ids=ids)


def _together(taken: Sequence[Taken]) -> list[list[Taken]]:
    """What was begun before goes alone: one of them may be what the process died of."""
    first = [one for one in taken if one.tries == 1]
    return [*([first] if first else []), *([one] for one in taken if one.tries != 1)]
