"""The one way to get a vector store: the embedded engine, or the Qdrant server that the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec
from collegium_runtime import runtime_file
from collegium_runtime.platform import Platform

from collegium_context.vectors.embedded.child import Child, parent
from collegium_context.vectors.embedded.client import EmbeddedStore
from collegium_context.vectors.embedded.owner import Orders
from collegium_context.vectors.interface import VectorStore

FOLDER = "vectors"


class OpenStore(VectorStore, Protocol):
    """A store that was opened: it says whether it can answer."""

    @property
    def is_ready(self) -> bool:
        """Whether the store answers now."""
        ...


class OwnedStore(EmbeddedStore):
    """The embedded store with the child process that owns its folder, or waits to."""

    def __init__(self, platform: Platform, child: Child) -> None:
        super().__init__(platform.connection)
        self.child = child

    @property
    def is_ready(self) -> bool:
        """Whether a process owns the folder and answers."""
        return self.child.owns

    async def close(self) -> None:
        """Ends the child."""
        await self.child.stop()


async def open_store(platform: Platform) -> OpenStore:
    """Returns the store of the settings, ready to be asked."""
    child = Child(orders_of(platform))
    await child.start()
    return OwnedStore(platform, child)


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
