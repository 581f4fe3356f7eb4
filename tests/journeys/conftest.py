"""A platform that remembers, searches and keeps answers, for the journeys that are about that: one a test worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest
from collegium_testing import ModelSimulator
from collegium_testing.platforms import PlatformProcess, configuration, make_key, running_platform

SCOPES = ["chat", "tasks", "usage", "knowledge"]


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


@pytest.fixture(scope="session")
def _knowing(tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator) -> Iterator[Knowing]:
    names = ("acme", "globex", "acme-admin", "globex-admin", "red", "blue", "chief")
    keys = {name: make_key(name.replace("-", "")) for name in names}
    tenants = {name: keys[name] for name in ("acme", "globex")}
    config = configuration(simulator.base_url, tenants=tenants, cache={"semantic": True})
    for tenant in config["tenants"]:
        tenant["keys"] = [{"api_key": keys[f"{tenant['id']}-admin"], "scopes": ["admin"]}]
    config["tenants"][0]["projects"] = [{"id": "red"}, {"id": "blue"}]
    config["tenants"][0]["keys"] += [
        {"api_key": keys["red"], "project": "red", "scopes": SCOPES},
        {"api_key": keys["blue"], "project": "blue", "scopes": SCOPES},
        {"api_key": keys["chief"], "project": "blue", "scopes": [*SCOPES, "admin"]},
    ]
    with running_platform(tmp_path_factory.mktemp("knowing") / "data", config) as platform:
        yield Knowing(platform, simulator, keys)


@pytest.fixture
def knowing(_knowing: Knowing) -> Knowing:
    """The platform, with a simulator that follows no script and has counted nothing."""
    _knowing.simulator.script()
    _knowing.simulator.reset()
    return _knowing
