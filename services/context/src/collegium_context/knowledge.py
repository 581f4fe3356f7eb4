"""Wiring of what a tenant's agents may look up: documents and their search. A parts list, and nothing else."""

from __future__ import annotations

import hashlib
from functools import partial

import asyncpg
from collegium_bus.shell import Handler
from collegium_contracts import subjects as s
from collegium_contracts.scope import Scope
from collegium_runtime.platform import Platform

from collegium_context.documents.erasing import erase_documents
from collegium_context.documents.handlers import DocumentQuestions
from collegium_context.documents.indexing_store import IndexingStore
from collegium_context.documents.ingesting import Ingesting
from collegium_context.documents.store import DocumentStore
from collegium_context.embedding.bounded import Bounded
from collegium_context.embedding.interface import Embedder
from collegium_context.search.filtering import ADDED, FACETS
from collegium_context.search.handlers import SearchQuestions
from collegium_context.search.searching import Searching
from collegium_context.search.store import SearchStore
from collegium_context.vectors.interface import CollectionSpec, VectorStore

# Stems that a chunk of 200 tokens has without its stop words.
AVERAGE_WORDS = 110


class Knowledge:
    """Documents and search over one pool, one vector store and one embedder."""

    def __init__(self, platform: Platform, pool: asyncpg.Pool, vectors: VectorStore, embedder: Embedder) -> None:
        self._pool = pool
        self.collection = collection_name(embedder)
        documents, searches = DocumentStore(pool), SearchStore(pool)
        keyring, name = platform.keyring, self.collection
        self._documents = documents
        self.ingesting = Ingesting(
            IndexingStore(pool), vectors, embedder, keyring, name, partial(collection_of, embedder)
        )
        # Documents wait for their vectors as long as it takes; who searches does not.
        self.searching = Searching(searches, vectors, Bounded(embedder), keyring, name)
        asked = DocumentQuestions(documents, keyring, platform.claims, self.ingesting, name, platform.now_ms)
        looked = SearchQuestions(self.searching, searches, keyring, platform.tracing)
        self.handlers: dict[str, Handler] = {
            s.SVC_KNOWLEDGE_DOCUMENT_ADD: asked.add,
            s.SVC_KNOWLEDGE_DOCUMENT_GET: asked.get,
            s.SVC_KNOWLEDGE_DOCUMENT_LIST: asked.page,
            s.SVC_KNOWLEDGE_DOCUMENT_DELETE: asked.delete,
            s.SVC_KNOWLEDGE_VERSION: asked.version,
            s.SVC_KNOWLEDGE_SEARCH: looked.search,
            s.SVC_KNOWLEDGE_PROFILE_SET: looked.set_profile,
            s.SVC_KNOWLEDGE_PROFILE_GET: looked.get_profile,
        }

    def start(self) -> None:
        """Begins to take in what is due."""
        self.ingesting.start()

    async def stop(self) -> None:
        """Stops taking in."""
        await self.ingesting.stop()

    async def knowledge_version(self, scope: Scope) -> int:
        """Returns the number that changes with everything that a tenant's searches may find."""
        return await self._documents.knowledge_version(scope)

    async def erase(self, tenant: str) -> int:
        """Removes every row of a tenant, so that nothing is found; the points are the vector store's to forget."""
        gone = await erase_documents(self._pool, tenant)
        self.searching.forget(tenant)
        return gone


def collection_name(embedder: Embedder) -> str:
    """Returns the name of the collection of an embedder's vectors: those of two models are never compared."""
    return f"documents-{hashlib.blake2s(embedder.model.encode(), digest_size=6).hexdigest()}"


def collection_of(embedder: Embedder) -> CollectionSpec:
    """Returns the collection of an embedder's vectors; raises EmbedderUnavailableError while it has said no length."""
    return CollectionSpec(
        name=collection_name(embedder),
        dimensions=embedder.dimensions,
        keyword_fields=(FACETS,),
        integer_fields=(ADDED,),
        average_words=AVERAGE_WORDS,
    )
