"""Platforms that journeys share: one that remembers, searches and keeps answers, and one of tenants of many kinds."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest
from collegium_testing import ModelSimulator
from collegium_testing.platforms import PlatformProcess, running_platform

from tests.conftest import Standing
from tests.journeys.knowledge import KEYS, knowing_of
from tests.journeys.town import town_of


class Knowing(NamedTuple):
    """The platform, the simulator behind it, and keys by name.

    ``acme`` and ``globex`` are tenants' own keys, ``acme-admin`` and ``globex-admin`` administrate them; ``red`` and
    ``blue`` are of acme's projects, ``chief`` is of blue and administrates.
    """

    platform: PlatformProcess
    simulator: ModelSimulator
    keys: dict[str, str]

    @property
    def runtime(self) -> dict[str, Any]:
        """Where its parts are."""
        return msgspec.json.decode((self.platform.folder / "runtime.json").read_bytes())

    def session(self, name: str = "acme") -> aiohttp.ClientSession:
        """An HTTP session with a key."""
        return aiohttp.ClientSession(self.platform.http, headers={"Authorization": f"Bearer {self.keys[name]}"})


@pytest.fixture(scope="module")
def _knowing(standing: Standing, tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator) -> Knowing:
    return standing.get("knowing", lambda: _set_up(tmp_path_factory, simulator))


@contextlib.contextmanager
def _set_up(tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator) -> Generator[Knowing]:
    config = knowing_of(simulator.base_url)
    with running_platform(tmp_path_factory.mktemp("knowing") / "data", config) as platform:
        yield Knowing(platform, simulator, KEYS)


@pytest.fixture
def knowing(_knowing: Knowing) -> Knowing:
    """The platform, with a simulator that follows no script and has counted nothing."""
    _knowing.simulator.script()
    _knowing.simulator.reset()
    return _knowing


@pytest.fixture(scope="module")
def town(standing: Standing, tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator) -> PlatformProcess:
    """The platform of ``town.py``, with a simulator that follows no script."""
    simulator.script()
    folder = tmp_path_factory.mktemp("town") / "data"
    return standing.get("town", lambda: running_platform(folder, town_of(simulator.base_url)))
