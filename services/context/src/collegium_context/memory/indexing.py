"""What the search knows of memories: a point for each version, kept up with the table.

PostgreSQL is the truth; a version is pending until the search was told of it as it stands. It is told at once where
that takes a moment, and else by a loop that goes on until nothing is pending, over restarts. Points hold a
vector, the words' sparse vector and marks of paths, no text. One rule: what is pending is searched by words from the
table, so that nothing is missed while it waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import uuid
from collections.abc import Sequence

import structlog
from collegium_bus.errors import RequestRefusedError
from collegium_contracts.memory_paths import Path, path_text
from collegium_contracts.scope import Scope, one_tenant

from collegium_context.embedding.interface import Embedder, EmbedderUnavailableError, space_of
from collegium_context.errors import ContextError
from collegium_context.memory.memory_store import Memory, MemoryStore
from collegium_context.memory.ranking import SIMILAR_MIN
from collegium_context.memory.sealing import Sealing
from collegium_context.memory.views import View
from collegium_context.vectors.interface import (
    CollectionSpec,
    Equals,
    Looked,
    PayloadValue,
    Point,
    UnknownCollectionError,
    Vector,
    VectorStore,
    VectorStoreError,
    Where,
)

log = structlog.get_logger(__name__)

AT_ONCE = 64
# How long whoever remembers waits for the search to know of it.
TELL_SECONDS = 1.0
# How long a question waits for its vector before it goes by words.
EMBED_SECONDS = 0.5
LOOK_SECONDS = 0.7
AGAIN_SECONDS = 3.0
_FIELDS = ("paths", "line", "newest")
# Words that a memory has, for BM25.
_WORDS = 24
_YES, _NO = "yes", "no"


class NoVectorsError(ContextError):
    """Neither vectors nor their store can be had now."""

    code = "vector_store_unavailable"


def point_id(memory_id: str) -> str:
    """Returns the UUID that a memory's point has."""
    return str(uuid.UUID(hex=memory_id.removeprefix("mem_")))


def memory_id(point: str) -> str:
    """Returns the memory that a point is of."""
    return f"mem_{uuid.UUID(point).hex}"


def mark(tenant: str, path: Path, *, below: bool) -> str:
    """Returns the mark of a path, alone or with all below it; a path's names stand in no payload."""
    spelled = f"{tenant}\x00{path_text(path)}".encode()
    return ("below:" if below else "at:") + hashlib.blake2s(spelled, digest_size=16).hexdigest()


def marks_of(tenant: str, path: Path) -> list[str]:
    """Returns all marks under which what is at a path can be found."""
    above = [path[:depth] for depth in range(len(path) + 1)]
    return [mark(tenant, path, below=False), *(mark(tenant, one, below=True) for one in above)]


def seen_marks(tenant: str, view: View) -> tuple[str, ...]:
    """Returns the marks of what a view shows."""
    return (
        *(mark(tenant, path, below=False) for path in view.exact),
        *(mark(tenant, path, below=True) for path in view.below),
    )


class Index:
    """Memories in the vector store, by the embedder's model."""

    def __init__(self, vectors: VectorStore, embedder: Embedder) -> None:
        self._vectors = vectors
        self._embedder = embedder
        self._made: set[str] = set()

    @property
    def model(self) -> str:
        """The model and length of the vectors that are searched; raises EmbedderUnavailableError while not known."""
        return space_of(self._embedder)

    async def tell(self, scope: Scope, memory: Memory, text: str) -> tuple[str, float] | None:
        """Stores a version's point; returns the memory at its path that says nearly the same, and how nearly."""
        tenant = one_tenant(scope)
        (vector,) = await self._embedder.embed([text])
        collection = await self._collection()
        similar = None
        if memory.is_newest:
            similar = await self._similar(scope, collection, memory, vector)
        payload: dict[str, PayloadValue] = {
            "paths": marks_of(tenant, memory.path),
            "line": memory.line,
            "newest": _YES if memory.is_newest else _NO,
        }
        point = Point(point_id(memory.id), vector, text, payload)
        await self._vectors.upsert(scope, collection, [point])
        if memory.embedded_by is not None and memory.embedded_by != self.model:
            await self._remove(scope, memory.embedded_by, [memory.id])
        return similar

    async def _similar(self, scope: Scope, collection: str, memory: Memory, vector: Vector) -> tuple[str, float] | None:
        own_path = Equals("paths", (mark(one_tenant(scope), memory.path, below=False),))
        where = Where(must=(own_path, Equals("newest", (_YES,))), must_not=(Equals("line", (memory.line,)),))
        found = await self._vectors.look(scope, collection, vector=vector, where=where, limit=1)
        for hit in found.dense:
            if hit.score >= SIMILAR_MIN:
                return memory_id(hit.id), hit.score
        return None

    async def remove(self, scope: Scope, memories: Sequence[Memory]) -> None:
        """Removes the points of versions, whichever model made them."""
        models = {one.embedded_by for one in memories if one.embedded_by is not None}
        with contextlib.suppress(EmbedderUnavailableError):
            models.add(self.model)
        for model in models:
            await self._remove(scope, model, [one.id for one in memories])

    async def _remove(self, scope: Scope, model: str, ids: Sequence[str]) -> None:
        with contextlib.suppress(UnknownCollectionError):
            await self._vectors.delete(scope, _name(model), ids=[point_id(one) for one in ids])

    async def look(
        self, scope: Scope, view: View, question: str, *, newest_only: bool, limit: int
    ) -> tuple[Looked, bool]:
        """Finds what a view shows; the second is false where it had to go by words alone.

        Raises NoVectorsError where the store cannot be asked.
        """
        must: list[Equals] = [Equals("paths", seen_marks(one_tenant(scope), view))]
        if newest_only:
            must.append(Equals("newest", (_YES,)))
        vector: Vector | None = None
        try:
            async with asyncio.timeout(EMBED_SECONDS):
                (vector,) = await self._embedder.embed([question])
        except (EmbedderUnavailableError, TimeoutError) as error:
            log.warning("a question cannot be embedded, words alone", error=type(error).__name__)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                collection = await self._collection()
                found = await self._vectors.look(
                    scope, collection, vector=vector, words=question, where=Where(must=tuple(must)), limit=limit
                )
        except (VectorStoreError, EmbedderUnavailableError, TimeoutError) as error:
            raise NoVectorsError("the vector store does not answer") from error
        return found, vector is not None

    async def _collection(self) -> str:
        name = _name(self.model)
        if name not in self._made:
            spec = CollectionSpec(name, self._embedder.dimensions, keyword_fields=_FIELDS, average_words=_WORDS)
            await self._vectors.ensure(spec)
            self._made.add(name)
        return name


def _name(model: str) -> str:
    """One collection a model: vectors of two models cannot be compared."""
    return f"memories-{hashlib.blake2s(model.encode(), digest_size=6).hexdigest()}"


class Indexing:
    """Keeps the index up with the table."""

    def __init__(self, store: MemoryStore, index: Index, sealing: Sealing) -> None:
        self._store = store
        self._index = index
        self._sealing = sealing
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins with what was left pending, and what another model embedded."""
        self._wake.set()
        self._task = asyncio.create_task(self._run(), name="memory-indexing")

    async def stop(self) -> None:
        """Stops; what is pending is told at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def tell_soon(self, scope: Scope, memory: Memory, text: str) -> None:
        """Tells of a version at once where that takes a moment; else it is told later."""
        try:
            async with asyncio.timeout(TELL_SECONDS):
                similar = await self._index.tell(scope, memory, text)
                await self._store.indexed(scope, memory, self._index.model, similar)
        except (ContextError, TimeoutError) as error:
            log.info("a memory is searched by words until it is embedded", error=type(error).__name__)
            self._wake.set()

    def wake(self) -> None:
        """Has what is pending told."""
        self._wake.set()

    async def _run(self) -> None:
        anew = False
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                if not anew:
                    await self._store.embed_anew(self._index.model)
                    anew = True
                while await self.catch_up():
                    pass
            except Exception as error:  # whatever failed, it is tried again
                log.warning("memories are pending", error=type(error).__name__, detail=str(error)[:200])
                await asyncio.sleep(AGAIN_SECONDS)
                self._wake.set()

    async def catch_up(self) -> int:
        """Tells of some that are pending; returns how many."""
        pending = await self._store.pending(AT_ONCE, None)
        # Together, so that they share the embedder's batches.
        read = await asyncio.gather(*(self._tell(scope, memory) for scope, memory in pending))
        if not all(read):
            raise NoVectorsError("some memories cannot be read now")
        return len(pending)

    async def _tell(self, scope: Scope, memory: Memory) -> bool:
        if memory.body is None:
            await self._index.remove(scope, [memory])
            await self._store.indexed(scope, memory, None)
            return True
        try:
            content = await self._sealing.content(one_tenant(scope), memory)
        except RequestRefusedError:
            # Its tenant is being erased, or its key is not known here yet.
            return False
        assert content is not None, "it has a body"
        similar = await self._index.tell(scope, memory, content.text)
        await self._store.indexed(scope, memory, self._index.model, similar)
        return True
