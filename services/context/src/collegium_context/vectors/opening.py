"""The one way to get a vector store: the embedded engine, or the Qdrant server that the settings name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import structlog
from collegium_contracts.scope import Scope
from collegium_runtime import runtime_file
from collegium_runtime.platform import Platform
from collegium_telemetry import names

from collegium_context.vectors.embedded.child import Child, parent
from collegium_context.vectors.embedded.client import EmbeddedStore
from collegium_context.vectors.embedded.owner import Orders
from collegium_context.vectors.interface import (
    CollectionSpec,
    Looked,
    Point,
    Vector,
    VectorStore,
    VectorStoreError,
    Where,
)

if TYPE_CHECKING:
    from collegium_context.vectors.server import QdrantStore

log = structlog.get_logger(__name__)

FOLDER = "vectors"
STATUS_SECONDS = 5.0


class OpenStore(VectorStore, Protocol):
    """A store that was opened: it says whether it can answer."""

    @property
    def is_ready(self) -> bool:
        """Whether the store answers now."""
        ...


async def open_store(platform: Platform) -> OpenStore:
    """Returns the store of the settings, ready to be asked where it can be within half a minute.

    Closing it ends what it started. Its figures are among the service's metrics.
    """
    qdrant = platform.settings.qdrant
    if qdrant.url is not None:
        # Only whoever has a server pays for its client: importing it takes most of a second.
        from collegium_context.vectors.server import QdrantStore  # noqa: PLC0415

        api_key = qdrant.api_key.reveal() if qdrant.api_key is not None else None
        return Measured(QdrantStore.connected(qdrant.url, api_key), platform)
    store = OwnedStore(platform)
    await store.start()
    return Measured(store, platform)


class OwnedStore(EmbeddedStore):
    """The embedded store with the child process that owns its folder, or waits to."""

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform.connection)
        self.child = Child(orders_of(platform), self._answers)
        self._watching: asyncio.Task[None] | None = None
        self._indexing: dict[str, Any] = {}
        self._points = 0
        gauge = platform.metrics.watch_gauge
        gauge(names.METRIC_VECTOR_POINTS, lambda: self._points, "Points that the embedded vector store answers with")
        gauge(names.METRIC_VECTOR_UNINDEXED, lambda: self._indexing.get("waiting_points", 0), "Points without graphs")

    async def start(self) -> None:
        """Starts the child, and follows what it does."""
        await self.child.start()
        self._watching = asyncio.create_task(self._watch(), name="vector-store-status")

    @property
    def is_ready(self) -> bool:
        """Whether a process owns the folder and answers."""
        return self.child.is_ready

    async def close(self) -> None:
        """Ends the child."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self.child.stop()

    async def _answers(self) -> bool:
        try:
            await self.status()
        except VectorStoreError:
            return False
        return True

    async def _watch(self) -> None:
        while True:
            try:
                status = await self.status()
            except VectorStoreError as error:
                log.warning("the vector store does not answer", error=str(error))
            else:
                self._indexing = status["indexing"]
                self._points = sum(
                    one["generations"][one["serving"]]["points"] for one in status["collections"].values()
                )
            await asyncio.sleep(STATUS_SECONDS)


class Measured:
    """A store whose questions are timed."""

    def __init__(self, store: OwnedStore | QdrantStore, platform: Platform) -> None:
        self.store = store
        self._seconds = platform.metrics.histogram(
            names.METRIC_VECTOR_LOOK_SECONDS, "Seconds that questions to the vector store took"
        )

    @property
    def is_ready(self) -> bool:
        """Whether the store answers now."""
        return self.store.is_ready

    async def ensure(self, spec: CollectionSpec) -> None:
        """Makes the collection where it is missing."""
        await self.store.ensure(spec)

    async def upsert(self, scope: Scope, collection: str, points: Sequence[Point]) -> None:
        """Adds or replaces points."""
        await self.store.upsert(scope, collection, points)

    async def delete(
        self, scope: Scope, collection: str, *, ids: Sequence[str] = (), where: Where | None = None
    ) -> None:
        """Removes points."""
        await self.store.delete(scope, collection, ids=ids, where=where)

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
        """Finds the nearest points, and notes how long that took."""
        began = time.perf_counter()
        try:
            return await self.store.look(
                scope, collection, vector=vector, words=words, where=where, limit=limit, with_vectors=with_vectors
            )
        finally:
            self._seconds.observe(time.perf_counter() - began)

    async def count(self, scope: Scope, collection: str, where: Where | None = None) -> int:
        """Counts points."""
        return await self.store.count(scope, collection, where)

    async def names(self) -> list[str]:
        """Names the collections."""
        return await self.store.names()

    async def drop(self, collection: str) -> None:
        """Takes a collection away."""
        await self.store.drop(collection)

    async def forget(self, scope: Scope) -> None:
        """Removes a tenant."""
        await self.store.forget(scope)

    async def close(self) -> None:
        """Lets go of what was started."""
        await self.store.close()


def orders_of(platform: Platform) -> Orders:
    """Returns what the owner of the folder must know."""
    runtime = runtime_file.read(platform.data_dir) or runtime_file.Runtime()
    nats = platform.settings.nats
    connected = platform.connection.client.connected_url
    url = nats.url or runtime.nats or (connected.geturl() if connected is not None else None)
    return Orders(
        folder=str((Path(platform.data_dir) / FOLDER).resolve()),
        parent=parent(),
        nats=msgspec.structs.replace(nats, url=url),
        seed_file=runtime.credentials.get("context"),
        durability=platform.settings.durability,
    )
