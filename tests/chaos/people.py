"""Scenarios: processes that die while tasks wait for people, and while people answer."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from collegium_testing import eventually

from tests.chaos.kills import IN_FLIGHT, NOTHING_IN_FLIGHT
from tests.chaos.stage import OPEN, Stage

TASKS = 12
# Each task waits twice, for the same client: before it begins, and with its answer in hand.
BOTH = {"approval": {"before": "client", "after": "client"}}


async def at_a_failpoint(stage: Stage, name: str) -> None:
    """Kills the process that comes by a failpoint while tasks are asked about or answered."""
    await stage.up(fail=f"{name}=kill:{stage.chance.randint(1, 3)}")
    ids = await stage.work(TASKS, **BOTH)
    await _answered(stage, ids)
    await stage.happened(name)
    await stage.recovered()
    await stage.checked(NOTHING_IN_FLIGHT)


async def while_waiting(stage: Stage) -> None:
    """Kills everything while half of the tasks wait to begin and half of them to leave; then all are answered."""
    await stage.up()
    first = await stage.work(TASKS, **BOTH)
    last = await stage.work(TASKS, approval={"after": "client"})
    await _waiting(stage, [*first, *last])
    assert stage.platform is not None
    stage.fault("kill -9 of everything, while all tasks wait for people")
    await asyncio.to_thread(stage.platform.kill_everything)
    await stage.up_again()
    await _waiting(stage, [*first, *last])
    await _answered(stage, [*first, *last])
    await stage.recovered()
    await stage.checked(IN_FLIGHT)


async def _waiting(stage: Stage, ids: list[str]) -> None:
    async def all_wait() -> bool:
        async with _session(stage) as http:
            shown = [await _shown(http, one) for one in ids]
        return all(one["state"] == "input_required" for one in shown)

    await eventually(all_wait, deadline_seconds=90, every_seconds=0.2)


async def _answered(stage: Stage, ids: list[str]) -> None:
    """Says yes to whatever is asked, and asks again where that was not heard, until nothing is asked any more."""

    async def ended() -> bool:
        async with _session(stage) as http:
            shown = [await _shown(http, one) for one in ids]
            await asyncio.gather(*(_agree(http, one) for one in shown if one["state"] == "input_required"))
        return not any(one["state"] in OPEN for one in shown)

    await eventually(ended, deadline_seconds=120, every_seconds=0.2)


async def _agree(http: aiohttp.ClientSession, task: dict[str, Any]) -> None:
    for question in task["input_required"]["questions"]:
        body = {"question": question["id"], "decision": "approve"}
        try:
            async with http.post(f"/v1/tasks/{task['id']}/input", json=body) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            # The gateway may be the one that was killed.
            return


async def _shown(http: aiohttp.ClientSession, task_id: str) -> dict[str, Any]:
    try:
        async with http.get(f"/v1/tasks/{task_id}") as response:
            return await response.json() if response.status == 200 else {"state": "missing"}
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return {"state": "missing"}


def _session(stage: Stage) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(stage.http, headers={"Authorization": f"Bearer {stage.keys['chaos']}"})
