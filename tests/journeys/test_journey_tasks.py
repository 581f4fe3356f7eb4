"""Tasks that nobody waits for: submitted, looked up, listed, followed, canceled."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from collegium_testing import eventually
from collegium_testing.simulator import Behaviour, Rule

from tests.conftest import Stage


async def submit(session: aiohttp.ClientSession, **body: Any) -> dict[str, Any]:
    async with session.post("/v1/tasks", json={"input": "hello", **body}) as response:
        assert response.status == 202, await response.text()
        return await response.json()


async def settled(session: aiohttp.ClientSession, task_id: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        async with session.get(f"/v1/tasks/{task_id}") as response:
            task = await response.json()
            return task if task["settled_at"] else None

    return await eventually(look)


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, str, Any]]:
    name, event_id = "", ""
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("id: "):
            event_id = line[4:]
        elif line.startswith("data: "):
            yield name, event_id, json.loads(line[6:])
            name, event_id = "", ""


async def test_a_task_is_found_at_once_and_completes(stage: Stage):
    stage.simulator.script(Rule(Behaviour(answer="done", delay_ms=300)))
    async with stage.session() as session:
        task = await submit(session, tags={"team": "x"})
        async with session.get(f"/v1/tasks/{task['id']}") as response:
            assert response.status == 200
            assert (await response.json())["state"] in ("submitted", "working")
        task = await settled(session, task["id"])
    assert (task["state"], task["output"], task["stop_reason"]) == ("completed", "done", "completed")
    assert task["attempts"][0]["model"] == "sim"
    assert task["tags"] == {"team": "x"}


async def test_prefer_wait_answers_with_the_result(stage: Stage):
    async with (
        stage.session() as session,
        session.post("/v1/tasks", json={"input": "hello"}, headers={"Prefer": "wait=10"}) as response,
    ):
        assert response.status == 200
        assert (await response.json())["state"] == "completed"


async def test_another_tenants_task_is_not_there(stage: Stage):
    async with stage.session() as session, stage.session(stage.other_key) as stranger:
        task = await submit(session)
        for method, path in (("GET", ""), ("POST", "/cancel"), ("GET", "/events")):
            async with stranger.request(method, f"/v1/tasks/{task['id']}{path}") as response:
                assert response.status == 404
                assert (await response.json())["error"]["code"] == "not_found"
        async with stranger.get("/v1/tasks") as response:
            assert task["id"] not in [one["id"] for one in (await response.json())["data"]]


async def test_the_list_is_newest_first_and_pages_without_gaps(stage: Stage):
    async with stage.session() as session:
        ids = [(await submit(session))["id"] for _ in range(5)]
        for task_id in ids:
            await settled(session, task_id)

        async def listed() -> list[str] | None:
            found: list[str] = []
            cursor = ""
            while len(found) < 5:
                async with session.get("/v1/tasks", params={"limit": "2", "cursor": cursor}) as response:
                    page = await response.json()
                found += [one["id"] for one in page["data"]]
                cursor = page["next_cursor"] or ""
                if not cursor:
                    break
            return found[:5] if set(found[:5]) == set(ids) else None

        assert await eventually(listed) == ids[::-1]


async def test_events_tell_states_tokens_and_the_result_and_resume_after_an_id(stage: Stage):
    stage.simulator.script(Rule(Behaviour(answer="a b c d e f g h", token_delay_ms=60)))
    async with stage.session() as session:
        task = await submit(session)
        seen: list[tuple[str, str, Any]] = []
        async with session.get(f"/v1/tasks/{task['id']}/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            async for event in events(response):
                seen.append(event)
                if event[0] == "done":
                    break
        names = [name for name, _, _ in seen]
        assert names[0] == "state"
        assert "token" in names
        assert seen[-1][2]["output"] == "a b c d e f g h"
        tokens = "".join(data["text"] for name, _, data in seen if name == "token")
        assert "a b c d e f g h".endswith(tokens)
        first_id = seen[0][1]
        async with session.get(f"/v1/tasks/{task['id']}/events", headers={"Last-Event-ID": first_id}) as response:
            again = [event async for event in events(response)]
    assert [event_id for _, event_id, _ in again if event_id] == [i for _, i, _ in seen[1:] if i]
    assert again[-1][0] == "done"


async def test_a_long_stream_leaves_checkpoints(stage: Stage):
    stage.simulator.script(Rule(Behaviour(answer="word " * 60, token_delay_ms=40)))
    async with stage.session() as session:
        task = await submit(session)
        async with session.get(f"/v1/tasks/{task['id']}/events") as response:
            seen = [event async for event in events(response)]
    checkpoints = [data for name, _, data in seen if name == "checkpoint"]
    assert checkpoints
    assert seen[-1][2]["output"].startswith(checkpoints[0]["text"])


async def test_a_running_task_is_canceled_and_its_call_ended(stage: Stage):
    stage.simulator.script(Rule(Behaviour(hang=True)))
    async with stage.session() as session:
        task = await submit(session)

        async def called() -> bool:
            return stage.simulator.counts().totals.started == 1

        await eventually(called)
        async with session.post(f"/v1/tasks/{task['id']}/cancel") as response:
            assert response.status == 200
            assert (await response.json())["state"] == "canceled"
        async with session.post(f"/v1/tasks/{task['id']}/cancel") as response:
            assert response.status == 409
            assert (await response.json())["error"]["code"] == "task_terminal"

    async def aborted() -> bool:
        return stage.simulator.counts().totals.aborted == 1

    await eventually(aborted)


async def test_a_large_prompt_travels_by_claim_check(stage: Stage):
    stage.simulator.script(Rule(Behaviour(answer="read")))
    text = "word " * 100_000  # 500 KB: twice what travels in a message
    async with (
        stage.session() as session,
        session.post("/v1/tasks", json={"input": text}, headers={"Prefer": "wait=20"}) as response,
    ):
        assert (await response.json())["state"] == "completed"
    assert stage.simulator.counts().requests[0].messages[0].content == text
