"""A TCP proxy that spoils what passes, each direction by itself, changeable while it runs.

    async with TcpProxy("127.0.0.1", 4222, seed=7) as proxy:
        ...                                       # connect to proxy.port
        proxy.down.latency_ms = 500               # from the server to the client
        proxy.up.held = True                      # an asymmetric partition: nothing more reaches the server
        proxy.cut()                               # connections end and new ones are refused, until mend()

Loss is seen by a program as TCP shows it: nothing is missing, but a chunk and all after it come late, as if it had been
sent again. For the same reason a held direction keeps what it was given and hands it over once it is let go. One rule:
bytes are never changed, doubled or put out of order.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 16 * 1024
# What may be on its way in one direction of one connection; beyond it the sender is slowed down, as TCP does.
_WINDOW_CHUNKS = 64


class Direction:
    """What happens to bytes that go one way; assign to change it.

    ``latency_ms`` and up to ``jitter_ms`` more pass before a chunk (16 KB at most) goes on; with probability ``loss``
    it takes another ``stall_ms``; ``bytes_per_second`` bounds the rate (0: unbounded); while ``held``, nothing goes on.
    """

    def __init__(self) -> None:
        self.latency_ms = 0.0
        self.jitter_ms = 0.0
        self.loss = 0.0
        self.stall_ms = 200.0
        self.bytes_per_second = 0
        self._free = asyncio.Event()
        self._free.set()

    @property
    def held(self) -> bool:
        """Whether nothing goes on."""
        return not self._free.is_set()

    @held.setter
    def held(self, value: bool) -> None:
        if value:
            self._free.clear()
        else:
            self._free.set()

    def heal(self) -> None:
        """Lets everything pass as it comes."""
        self.latency_ms = self.jitter_ms = self.loss = 0.0
        self.bytes_per_second = 0
        self.held = False

    def delay_seconds(self, chance: random.Random) -> float:
        """Returns how long the next chunk takes."""
        delay_ms = self.latency_ms + self.jitter_ms * chance.random()
        if self.loss and chance.random() < self.loss:
            delay_ms += self.stall_ms
        return delay_ms / 1000

    async def passage(self) -> None:
        """Returns once the direction is not held."""
        await self._free.wait()


class TcpProxy:
    """Listens on a free port and passes what comes to a server, from ``async with`` to its end.

    ``up`` is the way to the server, ``down`` the way back. The same seed spoils the same chunks.
    """

    def __init__(self, host: str, port: int, *, seed: int = 1) -> None:
        self._target = (host, port)
        self._chance = random.Random(seed)  # noqa: S311 - faults, not secrets
        self.up = Direction()
        self.down = Direction()
        self.port = 0
        self._is_cut = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._writers) // 2

    def cut(self) -> None:
        """Ends all connections and refuses new ones."""
        self._is_cut = True
        self._end_all()

    def mend(self) -> None:
        """Takes connections again."""
        self._is_cut = False

    def reset_all(self) -> None:
        """Ends all connections with a reset, as a peer that vanished and came back would; new ones are taken."""
        for writer in self._writers:
            peer: socket.socket | None = writer.get_extra_info("socket")
            if peer is not None:
                with contextlib.suppress(OSError):
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end_all()

    def heal(self) -> None:
        """Lets everything pass in both directions."""
        self.up.heal()
        self.down.heal()
        self.mend()

    def _end_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, server_writer}
        self._writers |= pair
        passing = [
            asyncio.create_task(self._pass(reader, server_writer, self.up)),
            asyncio.create_task(self._pass(server_reader, writer, self.down)),
        ]
        self._tasks.update(passing)
        try:
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in passing:
                task.cancel()
            await asyncio.gather(*passing, return_exceptions=True)
            self._tasks.difference_update(passing)
            self._writers -= pair
            for one in pair:
                one.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Direction) -> None:
        """Passes bytes until either side ends; latency delays chunks without slowing their rate."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_WINDOW_CHUNKS)

        async def take() -> None:
            while chunk := await reader.read(_CHUNK_BYTES):
                await waiting.put((loop.time() + way.delay_seconds(self._chance), chunk))
            await waiting.put((0.0, b""))

        taking = asyncio.create_task(take())
        try:
            while True:
                due, chunk = await waiting.get()
                if not chunk:
                    return
                await asyncio.sleep(max(0.0, due - loop.time()))
                await way.passage()
                writer.write(chunk)
                await writer.drain()
                if way.bytes_per_second:
                    await asyncio.sleep(len(chunk) / way.bytes_per_second)
        except (ConnectionError, OSError):
            return
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
