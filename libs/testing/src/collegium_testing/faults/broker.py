"""A single broker that a test starts, ends and starts again itself, on one port and one store.

One rule: nobody else starts it again, so that a test decides how long the broker is away.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

from collegium_servers import nats
from collegium_servers.nats import NatsConfig, NatsServer, render_config

from collegium_testing.faults.ports import free_ports


class OwnBroker:
    """A JetStream server without authentication, from ``async with`` to its end."""

    def __init__(self, folder: Path, *, store: Path | None = None) -> None:
        self._folder = folder
        self._store = store or folder / "store"
        self.port, self._monitor_port = free_ports(2)
        self._server: NatsServer | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """The broker's address."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def monitor_url(self) -> str:
        """The address of its monitor."""
        return f"http://127.0.0.1:{self._monitor_port}"

    async def start(self) -> None:
        """Starts the server, anew or again, and waits until JetStream has recovered."""
        config = NatsConfig(self._store, port=self.port, monitor_port=self._monitor_port)
        self._server = await nats.start(self._folder, port=self.port, config_text=render_config(config))

    async def stop(self) -> None:
        """Ends the server as an operator would; doing it twice is no error."""
        if self._server is not None:
            await self._server.stop(5.0)
            self._server = None

    async def kill(self) -> None:
        """Kills the server (SIGKILL)."""
        assert self._server is not None, "it runs"
        os.kill(self._server.pid, signal.SIGKILL)
        await self._server.stop(0.0)
        self._server = None
