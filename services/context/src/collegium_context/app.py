"""Wiring of context: the pool, the fold of settled tasks, the embedder, the answers."""

from __future__ import annotations

import asyncio
from functools import partial

import asyncpg
from collegium_bus.events import EventLoop
from collegium_bus.shell import Answering
from collegium_contracts import codec, consumers
from collegium_contracts import subjects as s
from collegium_contracts.messages import SettledMessage
from collegium_runtime.erasing import Erasing
from collegium_runtime.platform import Platform
from collegium_runtime.storage_count import StorageCount
from collegium_store import is_unstorable, open_pool
from collegium_telemetry import names

from collegium_context.documents.spaces import Spaces
from collegium_context.embedding.answers import EmbedAnswers
from collegium_context.embedding.embedder import CachedEmbedder
from collegium_context.embedding.features import FeatureAnswers
from collegium_context.embedding.opening import open_embedder, open_previous
from collegium_context.embedding.shelf import VectorShelf
from collegium_context.erasure_store import erase
from collegium_context.fold import Fold
from collegium_context.freshness import Freshness
from collegium_context.handlers import Questions
from collegium_context.knowledge import Knowledge
from collegium_context.memory.parts import MemoryParts
from collegium_context.semantic.service import SemanticCache
from collegium_context.store import Store
from collegium_context.vectors.interface import VectorStore
from collegium_context.vectors.opening import OpenStore, open_store


class ContextApp:
    """Context as a service."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._pool: asyncpg.Pool | None = None
        self._loop: EventLoop[SettledMessage] | None = None
        self._answering: Answering | None = None
        self._erasing: Erasing | None = None
        self._storage_count: StorageCount | None = None
        self._vectors: OpenStore | None = None
        self._memory_pool: asyncpg.Pool | None = None
        self._memory: MemoryParts | None = None
        self._knowledge: Knowledge | None = None
        self._semantic: SemanticCache | None = None
        self._embedder: CachedEmbedder | None = None
        self._previous: CachedEmbedder | None = None

    async def start(self) -> None:
        """Folds settled tasks, then answers questions."""
        platform = self._platform
        opening = asyncio.create_task(open_store(platform))
        self._pool = await open_pool(platform.database_url, application_name="collegium-context")
        store = Store(self._pool)
        consumer = consumers.consumer("turns")
        fold = Fold(store, platform.keyring, platform.dead_letters, platform.tracing)
        self._loop = EventLoop(
            platform.connection,
            consumer,
            codec.settled,
            fold.handle,
            platform.dead_letters,
        )
        self._loop.start()
        # The next turn of a conversation waits for the fold of the one before.
        freshness = Freshness(platform.connection, platform.direct, consumer, self._loop.hurry)
        shelf = VectorShelf(platform.connection, platform.keyring)
        self._vectors = await opening
        self._embedder = await open_embedder(platform.settings.embeddings, shelf=shelf, metrics=platform.metrics)
        embedding = EmbedAnswers(self._embedder, platform.keyring, platform.tracing)
        features = FeatureAnswers(self._embedder, platform.keyring, platform.tracing)
        # A pool of its own, so that the next turn of a chat never waits for what reads memory or documents.
        self._memory_pool = await open_pool(platform.database_url, application_name="collegium-memory")
        self._memory = MemoryParts(platform, self._memory_pool, self._vectors, self._embedder, freshness)
        await self._memory.start()
        self._previous = open_previous(platform.settings.embeddings)
        spaces = Spaces(self._embedder, self._previous)
        self._knowledge = Knowledge(platform, self._memory_pool, self._vectors, spaces)
        await self._knowledge.start()
        self._semantic = SemanticCache(
            platform, self._memory_pool, self._vectors, self._embedder, self._knowledge.knowledge_version
        )
        await self._semantic.start()
        questions = Questions(store, platform.keyring, freshness, platform.tracing, self._memory.summaries)
        self._answering = Answering(
            platform.connection,
            {
                s.SVC_CONTEXT_TURNS: questions.turns,
                s.SVC_EMBED_TEXTS: embedding.embed,
                s.SVC_CONTEXT_FEATURES: features.features,
                **self._memory.handlers(),
                **self._knowledge.handlers,
                **self._semantic.handlers,
            },
            is_unstorable,
        )
        await self._answering.start()
        self._erasing = Erasing(platform, {"context": partial(self._erase, self._pool, self._vectors, shelf)})
        await self._erasing.start()
        self._storage_count = StorageCount(platform, self._pool)
        self._storage_count.start()
        platform.metrics.watch_gauge(names.METRIC_QUEUE_DEPTH, lambda: self._loop.lag if self._loop is not None else 0)

    async def _erase(self, pool: asyncpg.Pool, vectors: VectorStore, shelf: VectorShelf, tenant: str) -> int:
        forgotten = self._embedder.forget(tenant) if self._embedder is not None else 0
        documents = await self._knowledge.erase(tenant) if self._knowledge is not None else 0
        documents += await self._semantic.forget(tenant) if self._semantic is not None else 0
        return await erase(pool, vectors, tenant) + await shelf.erase(tenant) + forgotten + documents

    async def stop(self) -> None:
        """Takes no more questions and events; what was not committed comes again to the next who asks."""
        if self._answering is not None:
            await self._answering.stop()
            self._answering = None
        if self._storage_count is not None:
            await self._storage_count.stop()
            self._storage_count = None
        if self._semantic is not None:
            await self._semantic.stop()
            self._semantic = None
        if self._erasing is not None:
            await self._erasing.stop()
            self._erasing = None
        if self._loop is not None:
            await self._loop.stop()
            self._loop = None
        if self._knowledge is not None:
            await self._knowledge.stop()
        if self._memory is not None:
            await self._memory.stop()
        for embedder in (self._embedder, self._previous):
            if embedder is not None:
                await embedder.close()
        if self._vectors is not None:
            await self._vectors.close()
        for pool in (self._pool, self._memory_pool):
            if pool is not None:
                await pool.close()

    def readiness(self) -> dict[str, bool]:
        """Whether turns are being folded, questions answered, and vectors searched."""
        return {
            "folding": self._loop is not None,
            "answering": self._answering is not None,
            "vectors": self._vectors is not None and self._vectors.is_ready,
        }


def build(platform: Platform) -> ContextApp:
    """Builds the service."""
    return ContextApp(platform)
