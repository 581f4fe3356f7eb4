"""Three brokers as one cluster, in processes of their own, for what needs a leader that can be lost.

    async with NatsCluster(folder) as cluster:
        await cluster.declare(["general"])          # streams and consumers with three replicas
        leader = await cluster.leader("EVENTS")
        cluster.kill(leader)
        await cluster.restart(leader)

One rule: a server keeps its name, ports and store over restarts, as a machine of a real cluster would.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from collegium_bus import topology
from collegium_bus.connection import connect
from collegium_bus.errors import BusError
from collegium_servers.nats import binary_path
from collegium_servers.probe import get

from collegium_testing.eventually import eventually
from collegium_testing.faults.ports import free_ports

SIZE = 3
READY_SECONDS = 40.0
_FILE_BYTES_MAX = 20 * 1024**3


class NatsCluster:
    """A cluster of three JetStream servers without authentication, from ``async with`` to its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clients, self._routes, self._monitors = (free_ports(SIZE) for _ in range(3))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    async def __aenter__(self) -> Self:
        for number in range(SIZE):
            self._start(number)
        try:
            await self.ready()
        except BaseException:
            self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def url(self) -> str:
        """The addresses of all servers, as clients take them."""
        return ",".join(f"nats://127.0.0.1:{port}" for port in self._clients)

    async def ready(self) -> None:
        """Waits until every server that runs is healthy and JetStream has a leader."""

        async def healthy() -> bool:
            answers = [await self._monitor(number, "/healthz") for number in self._processes]
            state = await self._monitor(next(iter(self._processes)), "/jsz")
            return all(answer is not None for answer in answers) and bool(
                (state or {}).get("meta_cluster", {}).get("leader")
            )

        await eventually(healthy, deadline_seconds=READY_SECONDS, every_seconds=0.1)

    async def declare(self, pools: Iterable[str] = ("general",)) -> None:
        """Declares streams, buckets and consumers with three replicas."""
        connection = await connect(self.url, "operator")
        try:
            changes = await topology.plan(connection, pools=pools, replicas=SIZE)
            await topology.apply(connection, changes)
        finally:
            await connection.close()

    async def leader(self, stream: str) -> int:
        """Returns the number of the server that leads a stream now, waiting for one to be chosen."""

        async def found() -> str:
            for number in self._processes:
                state = await self._monitor(number, "/jsz?streams=true&config=false")
                for account in (state or {}).get("account_details", ()):
                    for detail in account.get("stream_detail", ()):
                        if detail["name"] == stream and (name := detail.get("cluster", {}).get("leader")):
                            return name
            return ""

        name = await eventually(found, deadline_seconds=READY_SECONDS, every_seconds=0.1)
        return int(name.removeprefix("n"))

    def pid(self, number: int) -> int:
        """Returns a server's process id."""
        return self._processes[number].pid

    def kill(self, number: int) -> None:
        """Kills a server with SIGKILL."""
        process = self._processes.pop(number)
        process.kill()
        process.wait()

    async def restart(self, number: int) -> None:
        """Starts a killed server again on what it had, and waits until the cluster is whole."""
        self._start(number)
        await self.ready()

    async def _monitor(self, number: int, path: str) -> dict[str, Any] | None:
        try:
            status, body = await get(f"http://127.0.0.1:{self._monitors[number]}{path}")
        except (OSError, TimeoutError, BusError):
            return None
        if status != 200:
            return None
        return msgspec.json.decode(body)

    def _start(self, number: int) -> None:
        home = self._folder / f"n{number}"
        home.mkdir(parents=True, exist_ok=True)
        config = home / "nats.conf"
        config.write_text(self._config(number, home))
        with (home / "nats.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(  # noqa: S603 - the bundled server
                [str(binary_path()), "-c", str(config)], stdout=log, stderr=log, start_new_session=True
            )

    def _config(self, number: int, home: Path) -> str:
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._routes)
        return "\n".join(
            (
                f"server_name: n{number}",
                f'listen: "127.0.0.1:{self._clients[number]}"',
                f'http: "127.0.0.1:{self._monitors[number]}"',
                f'jetstream {{ store_dir: "{home / "store"}", max_file_store: {_FILE_BYTES_MAX} }}',
                f'cluster {{ name: chaos, listen: "127.0.0.1:{self._routes[number]}", routes: [{routes}] }}',
                "",
            )
        )

    def _end(self) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
                process.kill()
            process.wait()
        self._processes.clear()
