"""What clients may hold the HTTP door to beside the answers: trace ids, headers, named parameters."""

from __future__ import annotations

import json
from typing import Any

from collegium_contracts import subjects as s
from collegium_testing import Behaviour, Rule, eventually
from collegium_testing.platform import RunningPlatform

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACED = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
ASK: dict[str, Any] = {"model": "sim", "messages": [{"role": "user", "content": "What is the capital of France?"}]}


async def chunks_of(platform: RunningPlatform, body: dict[str, Any], **headers: str) -> tuple[list[Any], Any]:
    """Returns a stream's chunks and its headers."""
    sent = body | {"stream": True}
    async with platform.session() as http, http.post("/v1/chat/completions", json=sent, headers=headers) as response:
        assert response.status == 200, await response.text()
        lines = (await response.text()).split("\n\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(one) for one in data[:-1]], response.headers


async def waited(platform: RunningPlatform, **headers: str) -> dict[str, Any]:
    """Returns a task that its client waited for."""
    sent = {"Prefer": "wait=10", **headers}
    async with platform.session() as http, http.post("/v1/tasks", json={"input": "hi"}, headers=sent) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def shown(platform: RunningPlatform, path: str) -> Any:
    async with platform.session() as http, http.get(path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def test_a_task_names_the_trace_of_its_journey_wherever_it_is_shown(platform: RunningPlatform):
    task = await waited(platform, **TRACED)
    path = f"/v1/tasks/{task['id']}"
    assert task["collegium"]["trace_id"] == TRACE
    assert await shown(platform, path) == task

    async def listed() -> list[Any]:
        return (await shown(platform, "/v1/tasks?state=completed"))["data"]

    assert await eventually(listed) == [task]
    await platform.connection.api(f"STREAM.PURGE.{s.EVENTS}")
    assert await shown(platform, path) == task, "from the read model"


async def test_the_events_of_a_task_end_with_its_trace(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(delay_ms=100)))
    async with platform.session() as http:
        async with http.post("/v1/tasks", json={"input": "hi"}, headers=TRACED) as response:
            task_id = (await response.json())["id"]
        async with http.get(f"/v1/tasks/{task_id}/events") as response:
            blocks = (await response.text()).strip().split("\n\n")
    assert f'"trace_id":"{TRACE}"' in blocks[-1]


async def test_a_stream_names_its_trace_where_it_finishes(platform: RunningPlatform):
    chunks, _ = await chunks_of(platform, ASK | {"stream_options": {"include_usage": True}}, **TRACED)
    told = [chunk["collegium"]["trace_id"] for chunk in chunks if "collegium" in chunk]
    assert told == [TRACE, TRACE]
