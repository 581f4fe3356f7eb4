"""Plans whose consensus is killed after an answer was run and before, or after, that is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from collegium_testing import ModelSimulator, eventually
from collegium_testing.platforms import configuration, make_key, running_platform
from collegium_testing.simulator import Behaviour, Rule

from tests.conftest import LoopThread

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

KEY = make_key("chaos")
TASKS = 6
KILLED = ("consensus.before-tested", "consensus.after-tested")
WRITES = {"small": "x + 2", "large": "x * x"}


@pytest.fixture
def model(loop_thread: LoopThread) -> Iterator[ModelSimulator]:
    simulator = loop_thread.run(ModelSimulator().__aenter__())
    code = {name: f"```python\ndef f(x):\n    return {text}\n```" for name, text in WRITES.items()}
    simulator.script(*(Rule(Behaviour(answer=text), model=name) for name, text in code.items()))
    yield simulator
    loop_thread.run(simulator.__aexit__(None, None, None))


def school(base_url: str) -> dict[str, Any]:
    config = configuration(base_url, tenants={"chaos": KEY})
    (pattern,) = config["models"]
    config["models"] = [
        {**pattern, "name": name, "rank": rank} for name, rank in (("small", "student"), ("large", "teacher"))
    ]
    return config


@pytest.mark.long
async def test_every_plan_comes_to_the_same_verdict(model: ModelSimulator, tmp_path: Path):
    done = tmp_path / "done"
    done.mkdir()
    environment = {
        "COLLEGIUM_FAILPOINTS": ",".join(f"{name}=kill:{hit}" for hit, name in enumerate(KILLED, 1)),
        "COLLEGIUM_FAILPOINTS_DONE": str(done),
    }
    with running_platform(tmp_path / "data", school(model.base_url), environment=environment) as platform:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(platform.http, headers=headers) as session:
            ids = await asyncio.gather(*(submit(session, number) for number in range(TASKS)))
            tasks = [await eventually(lambda one=one: settled(session, one), deadline_seconds=120) for one in ids]
    assert sorted(path.name for path in done.iterdir()) == sorted(KILLED), "every fault happened"
    for task in tasks:
        about = task["collegium"]
        assert (about["plan"], about["model"], about["stop_reason"]) == ("cascade", "large", "completed"), task
        assert about["tests"] == {"state": "passed", "passed": 2, "of": 2}
        assert about["attempts"] == 3
    assert len({task["collegium"]["confidence"] for task in tasks}) == 1


async def submit(session: aiohttp.ClientSession, number: int) -> str:
    tests = [{"call": "f(2)", "equals": 4}, {"call": "f(3)", "equals": 9}]
    body = {"input": f"square, please ({number})", "tests": tests, "deadline_seconds": 200, "max_tokens": 200}
    async with session.post("/v1/tasks", json=body) as response:
        assert response.status == 202, await response.text()
        return (await response.json())["id"]


async def settled(session: aiohttp.ClientSession, task_id: str) -> Any:
    async with session.get(f"/v1/tasks/{task_id}") as response:
        task = await response.json()
    return task if task["settled_at"] else None
