"""Platforms that modules share: each stands while modules that use it run, and ends with the last of them.

One of them is the stage: ``collegium up`` with the simulator as its model and a receiver for its traces.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar, cast

import aiohttp
import pytest
from collegium_testing import ModelSimulator
from collegium_testing.otlp import OtlpReceiver
from collegium_testing.platforms import PlatformProcess, close_breakers, configuration, make_key, running_platform
from collegium_testing.spreading import group_of

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


class Standing:
    """The shared platforms that stand in this worker."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        self._by_name: dict[str, object] = {}

    def get(self, name: str, start: Callable[[], AbstractContextManager[T]]) -> T:
        """Returns what stands under a name; started where nothing does."""
        if name not in self._by_name:
            self._by_name[name] = self._held.enter_context(start())
        return cast("T", self._by_name[name])

    def end(self) -> None:
        """Ends all of them."""
        self._by_name.clear()
        self._held.close()


_standing = Standing()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """Ends shared platforms once a test of another group is next: one that stands idle costs what tests could use."""
    yield
    root = item.config.rootpath
    groups = [group_of(one.path, one.path.relative_to(root).as_posix()) for one in (item, nextitem) if one is not None]
    if len(set(groups)) != 1 or nextitem is None:
        _standing.end()


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
def standing() -> Iterator[Standing]:
    """The shared platforms of this worker."""
    yield _standing
    _standing.end()


@pytest.fixture(scope="module")
def _stage(
    standing: Standing, tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator, receiver: OtlpReceiver
) -> Stage:
    return standing.get("stage", lambda: _set_up(tmp_path_factory, simulator, receiver))


@contextlib.contextmanager
def _set_up(
    tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator, receiver: OtlpReceiver
) -> Generator[Stage]:
    keys = {"acme": make_key("acme"), "globex": make_key("globex")}
    config = configuration(simulator.base_url, otlp_endpoint=receiver.endpoint, tenants=keys)
    config["roster"] = {
        "keys": {"sim": {"api_key": "simulated", "hosts": [simulator.base_url]}},
        "allow_private_addresses": True,
    }
    with running_platform(tmp_path_factory.mktemp("platform") / "data", config) as platform:
        yield Stage(platform, simulator, receiver, keys["acme"], keys["globex"])


@pytest.fixture
def stage(_stage: Stage, loop_thread: LoopThread) -> Stage:
    """The platform, with a simulator that follows no script and has counted nothing."""
    _stage.simulator.script()
    _stage.simulator.reset()
    loop_thread.run(close_breakers(_stage.platform))
    return _stage
