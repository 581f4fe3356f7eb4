"""Cascades whose consensus and router are killed between asking for an attempt and dispatching it."""

from __future__ import annotations

import asyncio
from collections import Counter
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
SCHOOL = {"small": "student", "little": "student", "middle": "ta", "large": "teacher"}
KILLED = ("consensus.after-note", "consensus.after-ask", "router.before-again")


@pytest.fixture
def model(loop_thread: LoopThread) -> Iterator[ModelSimulator]:
    simulator = loop_thread.run(ModelSimulator().__aenter__())
    simulator.script(*(Rule(Behaviour(answer=f"it is {name}"), model=name) for name in SCHOOL))
    yield simulator
    loop_thread.run(simulator.__aexit__(None, None, None))


def school(base_url: str) -> dict[str, Any]:
    config = configuration(base_url, tenants={"chaos": KEY})
    (pattern,) = config["models"]
    config["models"] = [{**pattern, "name": name, "rank": rank} for name, rank in SCHOOL.items()]
    return config


@pytest.mark.long
async def test_every_cascade_makes_the_same_climb_and_pays_for_it_once(model: ModelSimulator, tmp_path: Path):
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

            async def booked() -> Any:
                async with session.get("/v1/usage") as response:
                    totals = (await response.json())["totals"]
                    return totals if totals["requests"] == TASKS else None

            totals = await eventually(booked)
    assert sorted(path.name for path in done.iterdir()) == sorted(KILLED), "every fault happened"
    for task in tasks:
        calls = [call for call in task["attempts"] if call["succeeded"]]
        assert Counter(call["number"] for call in calls) == Counter([1, 2, 3, 4]), task
        assert {call["number"]: call["rank"] for call in calls} == {1: "student", 2: "student", 3: "ta", 4: "teacher"}
        assert (task["collegium"]["model"], task["output"]) == ("large", "it is large")
    assert len({task["collegium"]["confidence"] for task in tasks}) == 1, "the same answers are worth the same"
    charged = sum(float(task["usage"]["charged_usd"]) for task in tasks)
    assert float(totals["charged_usd"]) == pytest.approx(charged)


async def submit(session: aiohttp.ClientSession, number: int) -> str:
    body = {"input": f"question {number}", "plan": "cascade", "deadline_seconds": 200}
    async with session.post("/v1/tasks", json=body) as response:
        assert response.status == 202, await response.text()
        return (await response.json())["id"]


async def settled(session: aiohttp.ClientSession, task_id: str) -> Any:
    async with session.get(f"/v1/tasks/{task_id}") as response:
        task = await response.json()
    return task if task["settled_at"] else None
