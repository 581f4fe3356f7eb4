"""Documents embedded anew when the embedder is another one, while the older generation answers.

Texts come from the chunks as they are kept, so nothing has to be sent again. What is done is noted by document, so a
process that is killed loses some seconds of work. One rule: a generation answers when no document lacks in it.
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

from collegium_context.documents.chunking import Chunk
from collegium_context.documents.generations import Generation, GenerationStore, KeptChunk, Lacking
from collegium_context.documents.indexing_store import IndexingStore, PointsLostError
from collegium_context.documents.naming import facets_of, indexed_text, measures_of
from collegium_context.documents.putting import ChunkBody, Draft, Putting, payload
from collegium_context.documents.spaces import Spaces
from collegium_context.embedding.interface import EmbedderUnavailableError
from collegium_context.vectors.interface import VectorStoreError

log = structlog.get_logger(__name__)

DOCUMENTS_AT_ONCE = 32
CHUNKS_AT_ONCE = 2_000
# Chunks between two renewals of the lease.
STEP_CHUNKS = 256
AGAIN_SECONDS = 2.0
IDLE_SECONDS = 15.0
TOLD_SECONDS = 30.0

_decode_body = msgspec.msgpack.Decoder(ChunkBody).decode


class Reembedding:
    """Keeps this process's generation whole, and lets it answer once it is."""

    def __init__(
        self,
        generations: GenerationStore,
        indexing: IndexingStore,
        putting: Putting,
        spaces: Spaces,
        keyring: Keyring,
        owner: str,
    ) -> None:
        self._generations = generations
        self._indexing = indexing
        self._putting = putting
        self._spaces = spaces
        self._keyring = keyring
        self._owner = owner
        self._mine: Generation | None = None
        self._task: asyncio.Task[None] | None = None
        self._told_at = -TOLD_SECONDS
        self.documents_left = 0

    def start(self) -> None:
        """Begins with what an earlier process left."""
        self._task = asyncio.create_task(self._run(), name="documents-anew")

    async def stop(self) -> None:
        """Stops; the next process goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def begin(self) -> None:
        """Sees to it that the configured embedder has a generation; tells where documents are to be embedded anew.

        While an endpoint has not said how long its vectors are this is put off.
        """
        with contextlib.suppress(EmbedderUnavailableError):
            await self._begun()

    async def _run(self) -> None:
        while True:
            pause = IDLE_SECONDS
            try:
                if await self._round():
                    pause = 0.0
            except (EmbedderUnavailableError, VectorStoreError) as error:
                log.warning("embedding anew waits", code=error.code)
                pause = AGAIN_SECONDS
            except Exception as error:
                if not is_transient(error) and not isinstance(error, PointsLostError):
                    log.error("documents cannot be embedded anew", exc_info=error)
                pause = AGAIN_SECONDS
            await asyncio.sleep(pause)

    async def _begun(self) -> Generation:
        if self._mine is None:
            current = self._spaces.current
            self._mine = await self._generations.begin(current.model, current.dimensions)
            standing = await self._generations.standing()
            done, total = await self._generations.count(self._mine.collection)
            self.documents_left = total - done
            if self._mine.state == "building":
                log.warning(
                    "the embedder is another one: documents are embedded anew, and the older index answers meanwhile",
                    model=self._mine.model,
                    dimensions=self._mine.dimensions,
                    before=standing[0].model,
                    dimensions_before=standing[0].dimensions,
                    documents=self.documents_left,
                )
        return self._mine

    async def _round(self) -> bool:
        """Goes once through what lacks, then switches; true where there may be more to do at once."""
        mine = await self._begun()
        standing = {one.collection: one for one in await self._generations.standing()}
        if mine.collection not in standing:
            # Another process was started with another embedder after this one.
            self.documents_left = 0
            return False
        await self._drop_retired()
        worked = await self._catch_up(mine)
        done, total = await self._generations.count(mine.collection)
        self.documents_left = total - done
        if standing[mine.collection].state == "building" and done == total:
            if not await self._generations.switch(mine.collection):
                return False
            log.info("the new index answers", model=mine.model, dimensions=mine.dimensions, documents=total)
        return worked

    async def _catch_up(self, mine: Generation) -> bool:
        after, worked = ("", ""), False
        while some := await self._generations.lacking(mine.collection, after, DOCUMENTS_AT_ONCE):
            if not await self._generations.lease(mine.collection, self._owner):
                return False
            some = _few(some)
            after = (some[-1].tenant, some[-1].document)
            worked = await self._embed(mine, some) or worked
            await self._tell(mine)
        return worked

    async def _tell(self, mine: Generation) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._told_at < TOLD_SECONDS:
            return
        self._told_at = now
        done, total = await self._generations.count(mine.collection)
        self.documents_left = total - done
        log.info("embedding anew", model=mine.model, documents=total, done=done)

    async def _embed(self, mine: Generation, some: Sequence[Lacking]) -> bool:
        """Puts the points of documents; true where at least one is whole now."""
        chunks = await self._generations.chunks(some)
        opened = await self._opened(some, chunks)
        for start in range(0, len(opened), STEP_CHUNKS):
            await self._putting.put(mine, self._spaces.current, opened[start : start + STEP_CHUNKS])
            await self._generations.lease(mine.collection, self._owner)
            failpoint("context.after-anew")
        readable = {(one.tenant, one.id) for one in opened}
        broken = {(one.tenant, one.document) for one in chunks if (one.tenant, one.id) not in readable}
        whole = [one for one in some if (one.tenant, one.document) not in broken]
        put = [one for one in chunks if (one.tenant, one.document) not in broken]
        marked = await self._generations.mark(mine.collection, whole, put)
        # What was removed or replaced meanwhile left points behind that no chunk may have.
        left = [(one.tenant, one.id) for one in put if (one.tenant, one.document) not in marked]
        await self._indexing.loosen(left, mine.collection)
        return bool(marked)

    async def _opened(self, some: Sequence[Lacking], chunks: Sequence[KeptChunk]) -> list[Draft]:
        """Opens chunks; those that cannot be read now are left out, and with them their document."""
        documents = {(one.tenant, one.document): one for one in some}
        drafts: list[Draft] = []
        unread: set[str] = set()
        for number, chunk in enumerate(chunks):
            if number % STEP_CHUNKS == STEP_CHUNKS - 1:
                await asyncio.sleep(0)
            try:
                await held(self._keyring, chunk.tenant, chunk.body)
                body = _decode_body(self._keyring.open(chunk.tenant, chunk.body))
            except (UnknownKeyError, msgspec.DecodeError):
                unread.add(chunk.document)
                continue
            drafts.append(_draft(documents[chunk.tenant, chunk.document], chunk, body))
        if unread:
            log.warning("documents cannot be opened, and are not embedded anew", documents=len(unread))
        return drafts

    async def _drop_retired(self) -> None:
        for collection in await self._generations.retired():
            await self._putting.drop(collection)
            await self._generations.forget(collection)
            log.info("an index that was replaced is gone", collection=collection)


def _few(documents: Sequence[Lacking]) -> Sequence[Lacking]:
    """Returns the first of some documents, at least one, with few enough chunks to be held at once."""
    chunks = 0
    for place, one in enumerate(documents):
        chunks += one.chunks
        if chunks > CHUNKS_AT_ONCE and place:
            return documents[:place]
    return documents


def _draft(document: Lacking, chunk: KeptChunk, body: ChunkBody) -> Draft:
    meta = DocumentMeta(body.title, body.tags, body.fields)
    facets = facets_of(chunk.tenant, chunk.document, document.project, meta)
    indexed = indexed_text(body.title, Chunk(body.text, body.headings, 0))
    measures = measures_of(chunk.tenant, meta)
    return Draft(chunk.tenant, chunk.id, indexed, payload(facets, measures, document.created_at_ms))
