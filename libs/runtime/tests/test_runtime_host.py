"""A hosted service is started with what it needs, tells the truth about itself, and is drained in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from collegium_bus.connection import Connection
from collegium_bus.errors import BrokerUnavailableError
from collegium_contracts.journey import Service
from collegium_runtime import host
from collegium_runtime.datakeys import reads_data_keys
from collegium_runtime.host import Hosted, connect_as, start_service, stop_service
from collegium_runtime.platform import CLOCK_OFFSET_VARIABLE, Platform, clock_from, unix_ms
from collegium_runtime.runtime_file import Runtime
from collegium_settings import Settings
from collegium_testing import eventually

# One that reads no content, and so needs no data keys: those of other tests may be on the broker.
SERVICE: Service = "router"
assert not reads_data_keys(SERVICE)


class FakeApp:
    """A service that does nothing and remembers what was asked of it."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.checks = {"store": True}
        self.told: list[str] = []
        self.hang = False

    async def start(self) -> None:
        self.told.append("start")

    async def stop(self) -> None:
        self.told.append(f"stop while connected: {self.platform.connection.is_connected}")
        if self.hang:
            await asyncio.Event().wait()

    def readiness(self) -> dict[str, bool]:
        return self.checks


@pytest.fixture
def fake_service(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(f"collegium_{SERVICE}.app")
    module.build = FakeApp  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"collegium_{SERVICE}.app", module)


@pytest_asyncio.fixture
async def hosted(fake_service: None, nats_url: str, tmp_path: Path) -> AsyncIterator[Hosted]:
    started = await start_service(SERVICE, Settings(data_dir=tmp_path), Runtime(nats=nats_url, database="from-runtime"))
    yield started
    await stop_service(started)


async def fetch(hosted: Hosted, path: str) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{hosted.admin.port}{path}") as response,
    ):
        return response.status, await response.read()


async def test_a_service_is_given_its_own_connection_and_what_runs_beside_it(hosted: Hosted, tmp_path: Path):
    platform = hosted.platform
    assert hosted.app.told == ["start"]
    assert (platform.service, platform.connection.service, platform.data_dir) == (SERVICE, SERVICE, tmp_path)
    assert platform.database_url == "from-runtime"
    assert platform.instance == platform.connection.instance
    assert platform.connection.inbox.startswith(f"_INBOX.{SERVICE}.")


async def test_a_replica_keeps_the_name_that_its_supervisor_gave_it(fake_service, nats_url, tmp_path, monkeypatch):
    monkeypatch.setenv(host.INSTANCE_VARIABLE, "again")
    started = await start_service(SERVICE, Settings(data_dir=tmp_path), Runtime(nats=nats_url))
    assert started.platform.instance == "again"
    await stop_service(started)


async def test_ready_is_everything_that_the_service_names_and_the_broker(hosted: Hosted):
    status, body = await fetch(hosted, "/health/ready")
    assert (status, msgspec.json.decode(body)["checks"]) == (200, {"broker": True, "store": True})
    hosted.app.checks = {"store": False}
    status, body = await fetch(hosted, "/health/ready")
    assert (status, msgspec.json.decode(body)) == (
        503, {"status": "not ready", "checks": {"broker": True, "store": False}},
    )  # fmt: skip
    assert (await fetch(hosted, "/health/live"))[0] == 200, "alive although not ready"


async def test_metrics_are_served_as_text(hosted: Hosted):
    status, body = await fetch(hosted, "/metrics")
    assert status == 200
    assert b"# TYPE" in body


async def test_a_drain_comes_before_the_connection_closes(fake_service, nats_url, tmp_path):
    started = await start_service(SERVICE, Settings(data_dir=tmp_path), Runtime(nats=nats_url))
    await stop_service(started)
    assert started.app.told == ["start", "stop while connected: True"]
    assert not started.platform.connection.is_connected


async def test_a_drain_that_hangs_is_cut(fake_service, nats_url, tmp_path, monkeypatch):
    monkeypatch.setattr(host, "DRAIN_SECONDS", 0.05)
    started = await start_service(SERVICE, Settings(data_dir=tmp_path), Runtime(nats=nats_url))
    started.app.hang = True
    async with asyncio.timeout(30):
        await stop_service(started)
    assert not started.platform.connection.is_connected


async def test_a_service_without_a_broker_does_not_start(fake_service, tmp_path):
    async with asyncio.timeout(30):
        with pytest.raises(BrokerUnavailableError, match="cannot connect"):
            await start_service(SERVICE, Settings(data_dir=tmp_path), Runtime(nats="nats://127.0.0.1:1"))


async def test_a_service_that_cannot_start_leaves_nothing_open(fake_service, nats_url, tmp_path, monkeypatch):
    connections: list[Connection] = []

    async def connected(*about: Any) -> Connection:
        connections.append(await connect_as(*about))
        return connections[-1]

    async def fails(_app: FakeApp) -> None:
        raise LookupError("no store")

    monkeypatch.setattr(host, "connect_as", connected)
    monkeypatch.setattr(FakeApp, "start", fails)
    with pytest.raises(LookupError, match="no store"):
        await start_service(SERVICE, Settings(data_dir=tmp_path), Runtime(nats=nats_url))
    [connection] = connections
    assert not connection.is_connected


async def test_a_run_reports_its_ports_and_ends_at_a_signal(fake_service, nats_url, tmp_path, monkeypatch):
    monkeypatch.setattr(host, "configure_logging", lambda _service: None)
    report = tmp_path / "report.json"
    running = asyncio.create_task(
        host.run([SERVICE], Settings(data_dir=tmp_path), Runtime(nats=nats_url), report=report)
    )
    await eventually(report.exists)
    told = msgspec.json.decode(report.read_bytes())
    assert told["pid"] == os.getpid()
    assert told["admin_ports"][SERVICE] > 0
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(30):
        await running
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)


def test_a_clock_can_be_put_off_for_tests():
    assert clock_from({}) is unix_ms
    ahead = clock_from({CLOCK_OFFSET_VARIABLE: "600"})
    behind = clock_from({CLOCK_OFFSET_VARIABLE: "-600"})
    assert 599_000 < ahead() - unix_ms() <= 600_000
    assert -600_000 <= behind() - unix_ms() < -599_000
    with pytest.raises(ValueError, match="soon"):
        clock_from({CLOCK_OFFSET_VARIABLE: "soon"})
