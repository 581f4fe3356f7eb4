"""Accepted documents become indexed: read, cut, embedded, put into the vector store, and switched to as a whole.

Small documents go many at a time, heavy ones (PDFs, large ones) one by one beside them, each in a place of its own. A
long one is embedded in steps, and between two steps the embedder goes round all places: however much one tenant brings,
another's document waits for its own chunks and little else. One rule: a document that was accepted ends as indexed or
failed, whatever is away or killed in between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import msgspec
import structlog
from collegium_contracts.envelope import Keyring, UnknownKeyError, held
from collegium_contracts.knowledge import DocumentMeta
from collegium_runtime.failpoints import failpoint
from collegium_store import is_transient

from collegium_context.documents import child
from collegium_context.documents.chunking import Cut
from collegium_context.documents.errors import DocumentError, DocumentTooCostlyError
from collegium_context.documents.generations import Generation, GenerationStore
from collegium_context.documents.indexing_store import (
    ChunkRow,
    Indexed,
    IndexingStore,
    PointsLostError,
    Put,
    Taken,
    is_heavy,
)
from collegium_context.documents.leases import Leases, NobodyWaitsError
from collegium_context.documents.naming import NamedChunk, facets_of, measures_of, named_chunks
from collegium_context.documents.putting import ChunkBody, Draft, Putting, payload
from collegium_context.documents.spaces import Spaces
from collegium_context.documents.turns import Lane, Turns
from collegium_context.embedding.interface import Embedder, EmbedderUnavailableError
from collegium_context.vectors.interface import VectorStoreError

log = structlog.get_logger(__name__)

# Small documents that one place takes together become findable together: they hold little more than a step.
# A document that is read in a process of its own has a place to itself.
LANES = (
    Lane("light", places=2, documents_max=128, bytes_max=128 * 1024),
    Lane("heavy", places=4, documents_max=1, bytes_max=1),
    Lane("large", places=2, documents_max=1, bytes_max=1),
)
# Chunks that are embedded before others have their turn, and progress is told.
STEP_CHUNKS = 256
STEP_BYTES = 1024 * 1024
POLL_SECONDS = 1.0
AWAY_SECONDS = 2.0
SWEEP_SECONDS = 5.0
# Tries that end without a word, because the process died with them.
TRIES_MAX = 5


class _Read(msgspec.Struct, frozen=True):
    taken: Taken
    meta: DocumentMeta
    facets: list[str]
    measures: dict[str, float]
    chunks: list[NamedChunk]
    title: str


_decode_meta = msgspec.json.Decoder(DocumentMeta).decode


class Ingesting:
    """Takes in what is due, in this process beside others that do the same."""

    def __init__(
        self, store: IndexingStore, generations: GenerationStore, putting: Putting, spaces: Spaces, keyring: Keyring
    ) -> None:
        self._store = store
        self._generations = generations
        self._putting = putting
        self._spaces = spaces
        self._keyring = keyring
        self._wakes = {lane.size: asyncio.Event() for lane in LANES}
        self._sweep_wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins with what a process that died has left."""
        self._tasks = [
            *(asyncio.create_task(self._run(lane), name=f"{lane.size}-documents") for lane in LANES),
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

    async def _run(self, lane: Lane) -> None:
        wake = self._wakes[lane.size]
        turns = Turns(lane.places)
        async with asyncio.TaskGroup() as places:
            while True:
                wake.clear()
                if taken := await self._taken(lane, turns):
                    turns.begin(one.tenant for one in taken)
                    places.create_task(self._place(taken, turns, wake))
                else:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(wake.wait(), POLL_SECONDS)

    async def _taken(self, lane: Lane, turns: Turns) -> list[Taken]:
        if not turns.has_place:
            return []
        try:
            return await self._store.take(lane, shut_out=turns.shut_out, served=turns.served)
        except Exception as error:
            if not is_transient(error):
                log.error("documents cannot be taken", exc_info=error)
            return []

    async def _place(self, taken: Sequence[Taken], turns: Turns, wake: asyncio.Event) -> None:
        try:
            async with Leases(self._store, taken) as leases:
                for some in _together(taken):
                    await self._take_in(some, leases)
        except Exception as error:
            if not is_transient(error):
                log.error("documents cannot be taken in", exc_info=error)
        finally:
            turns.end(one.tenant for one in taken)
            wake.set()

    async def _take_in(self, taken: Sequence[Taken], leases: Leases) -> None:
        try:
            read = [one for one in await asyncio.gather(*(self._read(one, leases) for one in taken)) if one is not None]
            if read:
                await self._index(read, leases)
        except (EmbedderUnavailableError, VectorStoreError) as error:
            log.warning("documents wait", code=error.code, documents=len(taken))
            await leases.put_off(taken, AWAY_SECONDS, counts=False)
        except NobodyWaitsError:
            log.info("documents were replaced or removed while they were taken in", documents=len(taken))
        except PointsLostError as error:
            log.warning("documents are taken in again", reason=str(error))
            await leases.put_off(taken, 0, counts=False)
        except Exception as error:
            if not is_transient(error):
                log.error("documents were not taken in", documents=len(taken), exc_info=error)
                await leases.put_off(taken, AWAY_SECONDS, counts=True)
            else:
                raise

    async def _read(self, one: Taken, leases: Leases) -> _Read | None:
        """Opens, reads and cuts a document; none where that failed for good."""
        try:
            if one.tries > TRIES_MAX:
                raise DocumentTooCostlyError(f"it was begun {TRIES_MAX} times and never finished")
            await held(self._keyring, one.tenant, one.meta, one.source)
            meta = _decode_meta(self._keyring.open(one.tenant, one.meta))
            # Opening a large one takes a while, in which nobody else would be answered.
            is_large = len(one.source.body) > STEP_BYTES
            opening = (self._keyring.open, one.tenant, one.source)
            content = await asyncio.to_thread(*opening) if is_large else self._keyring.open(one.tenant, one.source)
            found = await self._cut(one, content)
            title = meta.title or found.title
            facets = facets_of(one.tenant, one.document, one.project, meta)
            chunks = await asyncio.to_thread(named_chunks, one.tenant, one.document, found.chunks, title, facets)
        except DocumentError as error:
            await self._store.fail(one, error.code, f"document {one.document}: {error}")
            return None
        except UnknownKeyError:
            log.warning("a document waits for its key", tenant=one.tenant, document=one.document)
            await leases.put_off([one], AWAY_SECONDS, counts=True)
            return None
        return _Read(one, meta, facets, measures_of(one.tenant, meta), chunks, title)

    async def _cut(self, one: Taken, content: bytes) -> Cut:
        if is_heavy(one.kind, len(content)):
            return await child.read(content, one.kind)
        return await asyncio.to_thread(child.cut, content, one.kind)

    async def _index(self, read: Sequence[_Read], leases: Leases) -> None:
        targets = await self._generations.standing()
        if not targets:
            raise EmbedderUnavailableError("the embedder has not said yet how long its vectors are")
        put: list[Put] = []
        for target in targets:
            if target.state == "serving" or self._spaces.embedder_of(target) is not None:
                put.append(await self._put_into(target, read, leases, is_last=target is targets[-1]))
        failpoint("context.before-indexed")
        indexed = [await self._sealed(one) for one in read]
        await self._store.switch(indexed, model=self._spaces.current.model, put=put)
        self.wake_sweep()

    async def _put_into(self, target: Generation, read: Sequence[_Read], leases: Leases, *, is_last: bool) -> Put:
        """Puts the points of new chunks into a collection; nobody finds them before the switch."""
        found = await self._store.standing([one.taken for one in read], target.collection)
        new = [(one, chunk) for one in read for chunk in one.chunks if (one.taken.tenant, chunk.id) not in found]
        done = {one.taken.version: sum((one.taken.tenant, chunk.id) in found for chunk in one.chunks) for one in read}
        embedder = self._spaces.embedder_of(target)
        for start in range(0, len(new), STEP_CHUNKS):
            step = new[start : start + STEP_CHUNKS]
            embedder = await self._step(target, embedder, step)
            for one, _ in step:
                done[one.taken.version] += 1
            if not is_last or start + STEP_CHUNKS < len(new):
                counted = [(one.taken, done[one.taken.version] if is_last else 0, len(one.chunks)) for one in read]
                await leases.tell(counted)
        points = [(one.taken.tenant, chunk.id) for one, chunk in new]
        return Put(target.collection, points, is_whole=embedder is not None)

    async def _step(
        self, target: Generation, embedder: Embedder | None, step: Sequence[tuple[_Read, NamedChunk]]
    ) -> Embedder | None:
        """Puts some points, by words alone where an older generation's embedder is away; returns the embedder used."""
        drafts = [
            Draft(one.taken.tenant, chunk.id, chunk.indexed, payload(one.facets, one.measures, one.taken.created_at_ms))
            for one, chunk in step
        ]
        try:
            await self._putting.put(target, embedder, drafts)
        except EmbedderUnavailableError:
            if embedder is self._spaces.current:
                raise
            embedder = None
            await self._putting.put(target, None, drafts)
        failpoint("context.after-points")
        return embedder

    async def _sealed(self, one: _Read) -> Indexed:
        rows: list[ChunkRow] = []
        tenant = one.taken.tenant
        for number, chunk in enumerate(one.chunks):
            if number % STEP_CHUNKS == STEP_CHUNKS - 1:
                await asyncio.sleep(0)
            body = ChunkBody(chunk.chunk.text, one.title, chunk.chunk.headings, one.meta.tags, one.meta.fields)
            sealed = self._keyring.seal(tenant, msgspec.msgpack.encode(body))
            rows.append(ChunkRow(chunk.id, chunk.ordinal, sealed, chunk.chunk.tokens))
        stored = sum(len(row.body.body) + 4 * self._spaces.current.dimensions for row in rows)
        return Indexed(tenant, one.taken.document, one.taken.version, rows, stored)

    async def _sweeping(self) -> None:
        while True:
            self._sweep_wake.clear()
            swept = 0
            try:
                swept = await self._store.sweep(self._putting.remove)
            except VectorStoreError as error:
                log.warning("loose points stay for now", code=error.code)
            except Exception as error:
                if not is_transient(error):
                    log.error("loose points cannot be removed", exc_info=error)
            if not swept:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._sweep_wake.wait(), SWEEP_SECONDS)


def _together(taken: Sequence[Taken]) -> list[list[Taken]]:
    """What was begun before goes alone: one of them may be what the process died of."""
    first = [one for one in taken if one.tries == 1]
    return [*([first] if first else []), *([one] for one in taken if one.tries != 1)]
