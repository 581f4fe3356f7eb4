"""Starting, watching and ending everything that a platform on this machine consists of.

Servers first (broker, database, model), then declarations and migrations, then the services, the gateway last; ended in
the opposite order. What dies is started again on the same port. One rule: whatever this process started, it ends; and
what an earlier one left on the folder is ended before anything starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import structlog
from collegium_runtime import runtime_file
from collegium_runtime.runtime_file import EmbeddedModel, Runtime
from collegium_servers import model, nats, postgres
from collegium_servers.nats_config import NatsConfig, render_config
from collegium_servers.probe import get
from collegium_servers.process import Child, Claim, Command, Probe, claim, end_leftover, start_child
from collegium_settings import Settings

from collegium_cli.up.credentials import broker_users, make_credentials
from collegium_cli.up.layout import Group, free_port, left_out
from collegium_cli.up.leftovers import end_unrecorded
from collegium_cli.up.preparation import Preparation, PreparationError

log = structlog.get_logger(__name__)

# The operator is told before the broker has to refuse work.
DISK_BYTES_LOW: Final = 2 * 1024**3
SERVICE_READY_SECONDS: Final = 45.0
# Later than any gateway is ready on a folder that has all it needs.
SAY_WAITING_SECONDS: Final = 2.0
# Everything has ended within 20 s: the gateway may take 7 of the services' 13, the servers 4 more.
GATEWAY_STOP_SECONDS: Final = 7.0
SERVICES_STOP_SECONDS: Final = 13.0
SERVER_STOP_SECONDS: Final = 4.0
MAX_RESTARTS: Final = 20
RESTART_WINDOW_SECONDS: Final = 60.0
# For soaks, which kill more often than anything dies by itself.
MAX_RESTARTS_VARIABLE: Final = "COLLEGIUM_MAX_RESTARTS"
_READY_POLL_SECONDS: Final = 0.02
_OK: Final = 200
# The name in collegium_runtime.host, whose import would cost this process 20 MB; a test holds them together.
INSTANCE_VARIABLE: Final = "COLLEGIUM_INSTANCE"
_ANY_ADDRESS: Final = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound


class Running(Protocol):
    """A server or service process."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    async def stop(self, grace_seconds: float = ...) -> int:
        """Ends it."""
        ...

    async def wait(self) -> int:
        """Waits for its end."""
        ...


class GaveUpError(Exception):
    """Something died so often that starting it again makes no sense; the text says what and where its log is."""


class Supervisor:
    """One platform on one data folder."""

    def __init__(self, settings: Settings, config: Path | None, groups: list[Group]) -> None:
        self._settings = settings
        self._config = config.resolve() if config is not None else None
        self._groups = groups
        self._data = Path(settings.data_dir).resolve()
        self._running: dict[str, Running] = {}
        self._watching: list[asyncio.Task[None]] = []
        self._restarts: deque[tuple[float, str]] = deque()
        self._max_restarts = int(os.environ.get(MAX_RESTARTS_VARIABLE) or MAX_RESTARTS)
        self._held: Claim | None = None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.runtime = Runtime()

    async def start(self) -> Runtime:
        """Starts everything and returns once every readiness check is true."""
        self._data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._held = claim(self._data, "up")
        preparation = await Preparation.start(self._data, self._config)
        try:
            await self._end_leftover_services()
            await end_unrecorded(self._data)
            await _together(self._start_broker(), self._start_database(), self._start_model())
            self._write_runtime()
            await preparation.finish()
        except PreparationError as error:
            raise GaveUpError(f"streams or schemas could not be prepared:\n{error}") from error
        finally:
            await preparation.stop()
        await _together(*(self._start_group(group) for group in self._groups))
        ports = [item for group in self._groups for item in group.admin_ports.items()]
        await _together(*(self._wait_ready(service, port) for service, port in ports))
        self._write_runtime()
        return self.runtime

    async def stop(self) -> None:
        """Ends everything: services first, then the model, the broker and the database."""
        if self._held is None:
            return
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        deadline = time.monotonic() + SERVICES_STOP_SECONDS
        # The doors close first; the rest may drain together.
        gateway = self._running.pop("gateway", None)
        if gateway is not None:
            await gateway.stop(GATEWAY_STOP_SECONDS)
        names = [group.name for group in self._groups if group.name in self._running]
        left_seconds = max(0.0, deadline - time.monotonic())
        await asyncio.gather(*(self._running.pop(name).stop(left_seconds) for name in names))
        servers = list(self._running.values())
        self._running.clear()
        await asyncio.gather(*(server.stop(SERVER_STOP_SECONDS) for server in servers))
        # Nothing of this can be reached any more; the seeds stay for the next start.
        left = Runtime(credentials=self.runtime.credentials, admin_key_file=self.runtime.admin_key_file)
        runtime_file.write(self._data, left)
        self._held.release()

    async def _start_broker(self) -> None:
        if self._settings.nats.url is not None:
            self._learn(nats=self._settings.nats.url)
            return
        if (free := shutil.disk_usage(self._data).free) < DISK_BYTES_LOW:
            log.warning("little disk is free; streams that cannot grow refuse work", folder=str(self._data), bytes=free)
        files = make_credentials(self._data / "credentials")
        port, monitor_port = free_port(), free_port()
        config = render_config(
            NatsConfig(
                store_dir=self._data / "nats",
                port=port,
                monitor_port=monitor_port,
                durability=self._settings.durability,
                users=broker_users(files),
            )
        )

        async def start() -> Running:
            return await nats.start(self._data, port=port, config_text=config, durability=self._settings.durability)

        await self._run("nats", start)
        self._learn(
            nats=f"nats://127.0.0.1:{port}",
            nats_monitor=f"http://127.0.0.1:{monitor_port}",
            credentials={user: str(path) for user, path in files.items()},
        )

    async def _start_database(self) -> None:
        if self._settings.database.url is not None:
            return
        port = free_port()

        async def start() -> Running:
            server = await postgres.start(self._data, port=port)
            self._learn(database=server.url)
            return server

        await self._run("postgres", start)

    async def _start_model(self) -> None:
        if not self._settings.embedded_model:
            return
        port = free_port()

        async def start() -> Running:
            server = await model.start(self._data, port=port)
            self._learn(embedded_model=EmbeddedModel(server.model, server.base_url))
            return server

        await self._run("model", start)

    async def _end_leftover_services(self) -> None:
        for group in self._groups:
            held = claim(self._data, group.name)
            try:
                await end_leftover(held, grace_seconds=2.0)
            finally:
                held.release()

    async def _start_group(self, group: Group) -> None:
        async def start() -> Running:
            return await self._service_child(group)

        await self._run(group.name, start)

    async def _service_child(self, group: Group) -> Child:
        report = self._data / "run" / f"{group.name}.ready"
        report.unlink(missing_ok=True)
        arguments = [sys.executable, "-m", "collegium_cli", "serve", ",".join(group.services)]
        arguments += ["--data", str(self._data), "--report", str(report), "--parent", str(os.getpid())]
        arguments += [f"--admin-port={service}={port}" for service, port in group.admin_ports.items()]
        if self._config is not None:
            arguments += ["--config", str(self._config)]
        environment = {
            INSTANCE_VARIABLE: f"up-{group.name}",
            "COLLEGIUM_HTTP__PORT": str(self._settings.http.port),
            "COLLEGIUM_GRPC__PORT": str(self._settings.grpc.port),
        }

        def ready(_pid: int) -> Probe:
            async def probe() -> bool:
                return report.exists()

            return probe

        command = Command(group.name, arguments, str(report), environment=environment)
        return await start_child(command, claim(self._data, group.name), ready, SERVICE_READY_SECONDS)

    async def _wait_ready(self, service: str, port: int) -> None:
        host = self._settings.http.host
        host = "127.0.0.1" if host in _ANY_ADDRESS else host
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/health/ready"
        began = time.monotonic()
        hint = self._beside() if service == "gateway" else ""
        told = False
        while time.monotonic() < began + SERVICE_READY_SECONDS:
            with contextlib.suppress(OSError, TimeoutError):
                status, _ = await get(url)
                if status == _OK:
                    return
            if hint and not told and time.monotonic() > began + SAY_WAITING_SECONDS:
                log.warning("the gateway is not ready yet", why=hint)
                told = True
            await asyncio.sleep(_READY_POLL_SECONDS)
        raise GaveUpError(
            f"{service} is up and not ready; {f'{hint}; ' if hint else ''}see {url} and {self._data}/logs"
        )

    def _beside(self) -> str:
        """Says what has to run beside a gateway that would wait for it, empty where all of it was asked for."""
        names = left_out(self._groups)
        if not names:
            return ""
        start = f"`collegium serve {','.join(names)} --data {self._data}`"
        return f"it hears of tenants, keys and models from {' and '.join(names)}: add to --only, or run {start} beside"

    async def _run(self, name: str, start: Callable[[], Awaitable[Running]]) -> None:
        """Starts something and keeps it running."""
        self._running[name] = await start()
        self._watching.append(asyncio.create_task(self._watch(name, start), name=f"watch-{name}"))

    async def _watch(self, name: str, start: Callable[[], Awaitable[Running]]) -> None:
        while True:
            code = await self._running[name].wait()
            await self._running[name].stop(0)
            log.warning("process ended, starting it again", process=name, code=code)
            now = time.monotonic()
            self._restarts.append((now, name))
            while self._restarts and now - self._restarts[0][0] > RESTART_WINDOW_SECONDS:
                self._restarts.popleft()
            if len(self._restarts) > self._max_restarts:
                ended = f"processes ended more than {self._max_restarts} times within a minute, the last of them {name}"
                self._give_up(f"{ended}; see {self._data}/logs/{name}.log")
                return
            again = sum(1 for _, other in self._restarts if other == name)
            if again > 1:
                await asyncio.sleep(random.uniform(0.05, min(5.0, 0.1 * 2**again)))  # noqa: S311 - jitter
            if not await self._start_again(name, start):
                return

    async def _start_again(self, name: str, start: Callable[[], Awaitable[Running]]) -> bool:
        for remaining in range(4, -1, -1):
            try:
                self._running[name] = await start()
            except Exception as error:  # whatever hinders a start is tried again, and then told
                log.error("process does not start", process=name, error=str(error))
                if remaining == 0:
                    self._give_up(f"{name} does not start again: {error}")
                    return False
                await asyncio.sleep(1.0)
            else:
                self._write_runtime()
                return True
        return False

    def _give_up(self, reason: str) -> None:
        if not self.failed.done():
            self.failed.set_exception(GaveUpError(reason))

    def _learn(self, **fields: object) -> None:
        self.runtime = msgspec.structs.replace(self.runtime, **fields)

    def _write_runtime(self) -> None:
        pids: dict[str, int] = {}
        ports: dict[str, int] = {}
        for group in self._groups:
            ports.update(group.admin_ports)
            if (running := self._running.get(group.name)) is not None:
                pids.update(dict.fromkeys(group.services, running.pid))
        for name in ("nats", "postgres", "model"):
            if (running := self._running.get(name)) is not None:
                pids[name] = running.pid
        http, grpc = self._settings.http, self._settings.grpc
        self._learn(
            http=f"http://{http.host}:{http.port}",
            grpc=f"{grpc.host}:{grpc.port}",
            admin_key_file=str(self._data / "admin.key"),
            pids=pids,
            admin_ports=ports,
        )
        runtime_file.write(self._data, self.runtime)


async def _together(*parts: Coroutine[Any, Any, None]) -> None:
    """Runs parts side by side; the first failure cancels the others, waits for their end, and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
