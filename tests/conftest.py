"""One platform a test worker: ``collegium up`` with the simulator as its model and a receiver for its traces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, NamedTuple, TypeVar

import aiohttp
import pytest
from collegium_testing import ModelSimulator
from collegium_testing.otlp import OtlpReceiver
from collegium_testing.platforms import PlatformProcess, close_breakers, configuration, make_key, running_platform

T = TypeVar("T")


class LoopThread:
    """An event loop on a thread of its own, for what must outlive a test's loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine there and returns its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        """Ends the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Stage(NamedTuple):
    """What journeys play on: the platform, the simulator behind it, the receiver, and two tenants' keys."""

    platform: PlatformProcess
    simulator: ModelSimulator
    receiver: OtlpReceiver
    key: str
    other_key: str

    @property
    def http(self) -> str:
        """The gateway's address."""
        return self.platform.http

    def session(self, key: str | None = None) -> aiohttp.ClientSession:
        """An HTTP session of a tenant (the first unless another key is given)."""
        return aiohttp.ClientSession(self.http, headers={"Authorization": f"Bearer {key or self.key}"})


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def simulator(loop_thread: LoopThread) -> Iterator[ModelSimulator]:
    running = loop_thread.run(ModelSimulator().__aenter__())
    yield running
    loop_thread.run(running.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


@pytest.fixture(scope="session")
def _stage(
    tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator, receiver: OtlpReceiver
) -> Iterator[Stage]:
    keys = {"acme": make_key("acme"), "globex": make_key("globex")}
    config = configuration(simulator.base_url, otlp_endpoint=receiver.endpoint, tenants=keys)
    with running_platform(tmp_path_factory.mktemp("platform") / "data", config) as platform:
        yield Stage(platform, simulator, receiver, keys["acme"], keys["globex"])


@pytest.fixture
def stage(_stage: Stage, loop_thread: LoopThread) -> Stage:
    """The platform, with a simulator that follows no script and has counted nothing."""
    _stage.simulator.script()
    _stage.simulator.reset()
    loop_thread.run(close_breakers(_stage.platform))
    return _stage
