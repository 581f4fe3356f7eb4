"""Wiring of what a tenant's agents may look up: documents and their search. A parts list, and nothing else."""

from __future__ import annotations

import asyncpg
from collegium_bus.claims import ClaimStore
from collegium_bus.shell import Handler
from collegium_contracts import subjects as s
from collegium_contracts.scope import Scope
from collegium_runtime.platform import Platform
from collegium_telemetry import names

from collegium_context.documents.erasing import erase_documents
from collegium_context.documents.generations import GenerationStore
from collegium_context.documents.handlers import DocumentQuestions
from collegium_context.documents.indexing_store import IndexingStore
from collegium_context.documents.ingesting import Ingesting
from collegium_context.documents.putting import Putting
from collegium_context.documents.reembedding import Reembedding
from collegium_context.documents.spaces import Spaces
from collegium_context.documents.store import DocumentStore
from collegium_context.search.handlers import SearchQuestions
from collegium_context.search.reranking import opened
from collegium_context.search.searching import Searching
from collegium_context.search.store import SearchStore
from collegium_context.vectors.interface import VectorStore


class Knowledge:
    """Documents and search over one pool, one vector store and the embedders."""

    def __init__(self, platform: Platform, pool: asyncpg.Pool, vectors: VectorStore, spaces: Spaces) -> None:
        self._pool = pool
        documents, searches, indexing = DocumentStore(pool), SearchStore(pool), IndexingStore(pool)
        keyring = platform.keyring
        self._documents = documents
        self.generations = GenerationStore(pool)
        self._reranker = opened(platform.settings.search.rerank)
        putting = Putting(indexing, vectors)
        self.ingesting = Ingesting(indexing, self.generations, putting, spaces, keyring)
        self.reembedding = Reembedding(self.generations, indexing, putting, spaces, keyring, platform.instance)
        # Documents wait for their vectors as long as it takes; who searches does not.
        self.searching = Searching(searches, vectors, spaces.bounded(), keyring, self._reranker)
        uploads = ClaimStore(platform.connection, s.UPLOADS_BUCKET)
        asked = DocumentQuestions(documents, keyring, uploads, self.ingesting, self.generations, platform.now_ms)
        looked = SearchQuestions(self.searching, searches, keyring, platform.tracing)
        platform.metrics.watch_gauge(
            names.METRIC_REINDEX_LEFT,
            lambda: self.reembedding.documents_left,
            "Documents that are still to be embedded for the configured embedder",
        )
        self.handlers: dict[str, Handler] = {
            s.SVC_KNOWLEDGE_DOCUMENT_ADD: asked.add,
            s.SVC_KNOWLEDGE_DOCUMENT_GET: asked.get,
            s.SVC_KNOWLEDGE_DOCUMENT_LIST: asked.page,
            s.SVC_KNOWLEDGE_DOCUMENT_DELETE: asked.delete,
            s.SVC_KNOWLEDGE_VERSION: asked.version,
            s.SVC_KNOWLEDGE_GENERATIONS: asked.generations,
            s.SVC_KNOWLEDGE_SEARCH: looked.search,
            s.SVC_KNOWLEDGE_PROFILE_SET: looked.set_profile,
            s.SVC_KNOWLEDGE_PROFILE_GET: looked.get_profile,
        }

    async def start(self) -> None:
        """Begins to take in what is due, and to embed anew what another embedder left."""
        await self.reembedding.begin()
        self.ingesting.start()
        self.reembedding.start()

    async def stop(self) -> None:
        """Stops both."""
        await self.reembedding.stop()
        await self.ingesting.stop()
        if self._reranker is not None:
            await self._reranker.close()

    async def knowledge_version(self, scope: Scope) -> int:
        """Returns the number that changes with everything that a tenant's searches may find."""
        return await self._documents.knowledge_version(scope)

    async def erase(self, tenant: str) -> int:
        """Removes every row of a tenant, so that nothing is found; the points are the vector store's to forget."""
        gone = await erase_documents(self._pool, tenant)
        self.searching.forget(tenant)
        return gone
