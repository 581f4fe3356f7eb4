"""The supervisor itself killed; every other fault stands in the matrix."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from collegium_testing import ModelSimulator, eventually
from collegium_testing.platforms import configuration, make_key, running_platform, start_platform
from collegium_testing.simulator import Behaviour, Rule

from tests.conftest import LoopThread

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

TASKS = 60
KEY = make_key("chaos")


@pytest.fixture
def model(loop_thread: LoopThread) -> Iterator[ModelSimulator]:
    simulator = loop_thread.run(ModelSimulator().__aenter__())
    simulator.script(Rule(Behaviour(answer="done", delay_ms=400)))
    yield simulator
    loop_thread.run(simulator.__aexit__(None, None, None))


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def slow(model: ModelSimulator) -> dict[str, Any]:
    """A configuration that makes eight calls at a time, so that work is always in hand, waiting and done."""
    config = configuration(model.base_url, tenants={"chaos": KEY})
    config["models"][0]["limits"] = {"concurrency": 8}
    return config


async def submit(http: str, count: int) -> list[str]:
    async with aiohttp.ClientSession(http, headers={"Authorization": f"Bearer {KEY}"}) as session:

        async def one(number: int) -> str:
            body = {"input": f"question {number}", "deadline_seconds": 200}
            async with session.post("/v1/tasks", json=body) as response:
                assert response.status == 202, await response.text()
                return (await response.json())["id"]

        return await asyncio.gather(*(one(number) for number in range(count)))


async def all_completed(http: str, ids: list[str], deadline_seconds: float) -> None:
    async with aiohttp.ClientSession(http, headers={"Authorization": f"Bearer {KEY}"}) as session:

        async def states() -> bool:
            open_tasks = []
            for task_id in ids:
                async with session.get(f"/v1/tasks/{task_id}") as response:
                    assert response.status == 200, f"task {task_id} is lost: {await response.text()}"
                    task = await response.json()
                    if task["settled_at"] is None:
                        open_tasks.append(task_id)
                    else:
                        assert task["state"] == "completed", task
                        assert len(task["attempts"]) == 1
            assert not open_tasks, f"{len(open_tasks)} tasks are open, {open_tasks[0]} among them"
            return True

        await eventually(states, deadline_seconds=deadline_seconds, every_seconds=0.5)


async def test_a_killed_supervisor_is_followed_by_one_that_takes_over(model: ModelSimulator, tmp_path: Path):
    config = slow(model)
    platform = start_platform(tmp_path / "data", config)
    old = platform.pids()
    ids = await submit(platform.http, TASKS)
    platform.process.kill()
    platform.process.wait()
    assert platform.process.stdout is not None
    platform.process.stdout.close()
    with running_platform(tmp_path / "data", config) as again:
        await all_completed(again.http, ids, deadline_seconds=90)
        for name, pid in old.items():
            assert not alive(pid), f"{name} of the killed platform is still there"
    for pid in again.ready["pids"].values():
        assert not alive(pid)
