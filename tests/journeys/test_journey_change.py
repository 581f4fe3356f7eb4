"""Change under load: the configuration is taken as a whole or not at all, and restarts of services fail no task."""

from __future__ import annotations

import asyncio
import copy
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from collegium_testing import Behaviour, ModelSimulator, Rule, eventually
from collegium_testing.platforms import PlatformProcess, configuration, make_key, running_platform

from tests.conftest import LoopThread

pytestmark = pytest.mark.timeout(240)
KEY = make_key("change")
GROUPS = ("worker-pool", "billing", "gateway")


@pytest.fixture
def model(loop_thread: LoopThread) -> Iterator[ModelSimulator]:
    simulator = loop_thread.run(ModelSimulator().__aenter__())
    simulator.script(Rule(Behaviour(answer="yes", delay_ms=20)))
    yield simulator
    loop_thread.run(simulator.__aexit__(None, None, None))


@pytest.fixture
def config(model: ModelSimulator) -> dict[str, Any]:
    return configuration(model.base_url, tenants={"acme": KEY})


def session(platform: PlatformProcess, key: str = KEY) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(platform.http, headers={"Authorization": f"Bearer {key}"})


def write(platform: PlatformProcess, config: dict[str, Any]) -> None:
    """Replaces the file as an editor does."""
    file = platform.folder.parent / f"{platform.folder.name}.yaml"
    draft = file.with_suffix(".new")
    draft.write_bytes(msgspec.json.encode(config))
    draft.replace(file)


async def reloads(platform: PlatformProcess, result: str) -> float:
    """How many changes the gateway accepted or refused."""
    async with aiohttp.ClientSession(platform.http) as client, client.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    wanted = f'collegium_config_reloads_total{{result="{result}"}}'
    return next((float(line.split()[-1]) for line in lines if line.startswith(wanted)), 0.0)


async def test_a_changed_configuration_is_taken_without_a_restart_and_a_wrong_one_is_not(
    config: dict[str, Any], tmp_path: Path
):
    late_key = make_key("late")
    with running_platform(tmp_path / "data", config) as platform:
        pids = platform.pids()
        changed = copy.deepcopy(config)
        changed["models"].append({**config["models"][0], "name": "added"})
        changed["tenants"].append({"id": "latecomer", "tier": "free", "api_key": late_key})
        write(platform, changed)

        async def answers() -> bool:
            body = {"model": "added", "messages": [{"role": "user", "content": "hi"}]}
            async with session(platform, late_key) as client, client.post("/v1/chat/completions", json=body) as reply:
                return reply.status == 200

        await eventually(answers, every_seconds=0.2)
        assert await reloads(platform, "accepted") == 1
        for wrong in ({"models": [{"name": "x"}]}, {"durability": "power"}):
            before = await reloads(platform, "refused")
            write(platform, {**changed, **wrong})

            async def refused(before: float = before) -> bool:
                return await reloads(platform, "refused") > before

            await eventually(refused, every_seconds=0.1)
            assert await answers(), "the last good configuration stays"
        assert platform.pids() == pids


@pytest.mark.long
async def test_a_rolling_restart_under_load_fails_no_task(config: dict[str, Any], tmp_path: Path):
    config["tenants"][0]["tier"] = "enterprise"
    with running_platform(tmp_path / "data", config) as platform:
        ids: list[str] = []
        stop = asyncio.Event()

        async def keep_asking() -> None:
            """Submits as an application with its own retries would: a refused connection is asked again."""
            async with session(platform) as client:
                number = 0
                while not stop.is_set():
                    number += 1
                    try:
                        async with client.post("/v1/tasks", json={"input": f"{number}"}) as reply:
                            assert reply.status in (202, 503), await reply.text()
                            if reply.status == 202:
                                ids.append((await reply.json())["id"])
                    except aiohttp.ClientConnectionError:
                        await asyncio.wait([asyncio.create_task(stop.wait())], timeout=0.05)

        load = [asyncio.create_task(keep_asking()) for _ in range(8)]
        for name in GROUPS:
            before = len(ids)
            old = platform.pids()[name]
            os.kill(old, signal.SIGTERM)

            def restarted(name: str = name, old: int = old, before: int = before) -> bool:
                return platform.pids()[name] != old and len(ids) > before + 50

            await eventually(restarted, every_seconds=0.1)
        stop.set()
        await asyncio.gather(*load)
        async with session(platform) as client:

            async def all_completed() -> bool:
                for task_id in ids:
                    async with client.get(f"/v1/tasks/{task_id}") as reply:
                        task = await reply.json()
                    assert task["state"] in ("submitted", "working", "completed"), task
                    if task["state"] != "completed":
                        return False
                return True

            await eventually(all_completed, every_seconds=0.5)
