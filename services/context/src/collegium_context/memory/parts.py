"""Wiring of memory: its stores, its loops, and who answers which question."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg
from collegium_bus.shell import Handler
from collegium_contracts import subjects as s
from collegium_contracts.messages import Message
from collegium_runtime.platform import Platform

from collegium_context.embedding.interface import Embedder
from collegium_context.freshness import Freshness
from collegium_context.memory.conversation_store import ConversationStore
from collegium_context.memory.conversing import Conversing
from collegium_context.memory.indexing import Index, Indexing
from collegium_context.memory.memory_store import MemoryStore
from collegium_context.memory.recalling import Recalling
from collegium_context.memory.remembering import Remembering
from collegium_context.memory.sealing import Sealing, refusing
from collegium_context.memory.shared_store import SharedStore
from collegium_context.memory.sharing import Sharing
from collegium_context.memory.summaries import Summaries, Upkeep
from collegium_context.memory.telling import Telling
from collegium_context.memory.view_store import ViewStore
from collegium_context.vectors.interface import VectorStore

Answer = Callable[[Message, str], Awaitable[Message]]


class MemoryParts:
    """Memory, shared contexts and conversations over one pool, one vector store and one embedder."""

    def __init__(
        self, platform: Platform, pool: asyncpg.Pool, vectors: VectorStore, embedder: Embedder, freshness: Freshness
    ) -> None:
        now_ms = platform.now_ms
        sealing = Sealing(platform.keyring)
        memories, views, conversations = MemoryStore(pool), ViewStore(pool), ConversationStore(pool)
        index = Index(vectors, embedder)
        recalling = Recalling(memories, views, index, sealing)
        self._indexing = Indexing(memories, index, sealing)
        self._remembering = Remembering(memories, views, recalling, self._indexing, sealing, now_ms)
        self._sharing = Sharing(SharedStore(pool), sealing, now_ms)
        self._conversing = Conversing(conversations, freshness, sealing, now_ms)
        self._telling = Telling(recalling, views, sealing, platform.tracing, now_ms)
        self.summaries = Summaries(conversations, sealing)
        self._upkeep = Upkeep(
            self.summaries, conversations, views, now_ms, lambda: platform.settings.memory.conversation_days
        )

    def handlers(self) -> dict[str, Handler]:
        """Who answers which question."""
        memories, shared, talks = self._remembering, self._sharing, self._conversing
        answers: dict[str, Answer] = {
            s.SVC_CONTEXT_RECALL: self._telling.recall,
            s.SVC_MEMORY_ADD: memories.add,
            s.SVC_MEMORY_CORRECT: memories.correct,
            s.SVC_MEMORY_RECALL: memories.recall,
            s.SVC_MEMORY_FORGET: memories.forget,
            s.SVC_MEMORY_EXPLAIN: memories.explain,
            s.SVC_MEMORY_LIST: memories.page,
            s.SVC_MEMORY_PATH_SET: memories.set_path,
            s.SVC_MEMORY_PATH_LIST: memories.paths,
            s.SVC_MEMORY_GRANT_ADD: memories.grant,
            s.SVC_MEMORY_GRANT_LIST: memories.grants,
            s.SVC_MEMORY_GRANT_REVOKE: memories.revoke,
            s.SVC_MEMORY_SHARED_PUT: shared.put,
            s.SVC_MEMORY_SHARED_GET: shared.get,
            s.SVC_MEMORY_SHARED_VERSIONS: shared.versions,
            s.SVC_MEMORY_SHARED_LIST: shared.page,
            s.SVC_MEMORY_CONVERSATION_LIST: talks.page,
            s.SVC_MEMORY_CONVERSATION_GET: talks.get,
            s.SVC_MEMORY_CONVERSATION_FORGET: talks.forget,
        }
        return {subject: refusing(answer) for subject, answer in answers.items()}

    async def start(self) -> None:
        """Begins to index what is pending and to keep conversations up."""
        await self._indexing.start()
        await self._upkeep.start()

    async def stop(self) -> None:
        """Stops the loops."""
        await self._indexing.stop()
        await self._upkeep.stop()
