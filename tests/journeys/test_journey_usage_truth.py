"""What is billed is what was done: however a stream ends, and whichever door the work came by."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import Any

import aiohttp
import grpc.aio
import pytest
from collegium_protocol.v1.chat_pb2 import ChatMessage, ChatRequest
from collegium_protocol.v1.chat_pb2_grpc import ChatStub
from collegium_protocol.v1.tasks_pb2 import SubmitRequest
from collegium_protocol.v1.tasks_pb2_grpc import TasksStub
from collegium_testing import eventually
from collegium_testing.faults.spending import standings
from collegium_testing.simulator import Behaviour, Rule

from tests.conftest import Stage

CHAT = "/v1/chat/completions"
CHUNKS = 20
# Longer than it takes a client's going to reach the worker, so that at most one chunk more is generated.
CHUNK_MS = 250
WORDS = " ".join(f"word{'abcdefghijklmnopqrst'[number]}" for number in range(CHUNKS))
ASK = "say twenty words"


def question(**more: Any) -> dict[str, Any]:
    return {"model": "sim", "messages": [{"role": "user", "content": ASK}], **more}


async def purse(stage: Stage) -> tuple[str, str]:
    """Makes a tenant with a budget, so that money is held; returns its id and key."""
    tenant = f"left-{time.time_ns()}"
    async with stage.session(stage.platform.admin_key) as operator:
        async with operator.post("/v1/admin/tenants", json={"id": tenant, "tier": "enterprise"}) as response:
            assert response.status == 201
        async with operator.put(f"/v1/admin/budgets/{tenant}/purse", json={"usd": "5"}) as response:
            assert response.status == 200
        async with operator.post("/v1/admin/keys", json={"tenant": tenant}) as response:
            assert response.status == 201
            key: str = (await response.json())["key"]
    async with stage.session(key) as session:

        async def let_in() -> bool:
            async with session.get("/v1/models") as response:
                return response.status == 200

        await eventually(let_in)
    return tenant, key


async def read_and_leave(session: aiohttp.ClientSession, chunks: int, tag: str) -> None:
    """Reads so many chunks of a stream and hangs up; with none, as soon as the stream has begun."""
    options = {"tags": {tag: str(chunks)}}
    async with session.post(CHAT, json=question(stream=True, collegium=options)) as response:
        assert response.status == 200
        read = 0
        while read < chunks:
            line = await response.content.readline()
            # Chunks that came together are one event, and their words tell how many they were.
            read += line.count(b"word")
        response.close()


async def ask_and_leave(stage: Stage, session: aiohttp.ClientSession, tag: str) -> None:
    """Asks for a stream and hangs up while the model has been called and has not said anything."""
    before = stage.simulator.counts().totals.started
    body = question(stream=True, collegium={"tags": {tag: "early"}})
    asking = asyncio.create_task(session.post(CHAT, json=body))
    await eventually(lambda: stage.simulator.counts().totals.started > before)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def all_settled(session: aiohttp.ClientSession, count: int) -> list[dict[str, Any]]:
    """Waits until a tenant's tasks, so many, have ended."""

    async def found() -> list[dict[str, Any]] | None:
        async with session.get("/v1/tasks", params={"limit": "200"}) as response:
            tasks = (await response.json())["data"]
        ended = [task for task in tasks if task["state"] in ("canceled", "completed", "failed")]
        return ended if len(ended) == len(tasks) == count else None

    tasks = await eventually(found)
    assert tasks is not None
    return tasks


async def settled(session: aiohttp.ClientSession, task_id: str) -> dict[str, Any]:
    async def found() -> dict[str, Any] | None:
        async with session.get(f"/v1/tasks/{task_id}") as response:
            task = await response.json()
            return task if response.status == 200 and task["state"] in ("canceled", "completed", "failed") else None

    return await eventually(found)


async def test_a_stream_that_is_left_at_any_chunk_is_billed_for_what_was_generated(stage: Stage):
    """At every chunk at once, and before the first: each leaves one usage row, with as many tokens as were read or one
    more, and nothing is held afterwards."""
    stage.simulator.script(Rule(Behaviour(answer=WORDS, delay_ms=CHUNK_MS, token_delay_ms=CHUNK_MS)))
    tag, (tenant, key) = f"left{time.time_ns()}", await purse(stage)
    async with stage.session(key) as session:
        await ask_and_leave(stage, session, tag)
        await asyncio.gather(*(read_and_leave(session, chunks, tag) for chunks in range(CHUNKS + 1)))
        tasks = await all_settled(session, CHUNKS + 2)

        async def booked() -> list[dict[str, Any]] | None:
            async with session.get("/v1/usage", params={"group_by": "tag"}) as response:
                rows = [row for row in (await response.json())["data"] if row["tag"].startswith(f"{tag}=")]
            return rows if sum(row["requests"] for row in rows) == CHUNKS + 2 else None

        rows = {row["tag"].partition("=")[2]: row for row in await eventually(booked)}
        async with session.get("/v1/requests", params={"limit": "200"}) as response:
            logged = {row["task_id"]: row for row in (await response.json())["data"]}
    assert sorted(logged) == sorted(task["id"] for task in tasks)
    by_tag = {task["tags"][tag]: task for task in tasks}
    for chunks in range(CHUNKS + 1):
        row, task = rows[str(chunks)], by_tag[str(chunks)]
        tokens = task["usage"]["output_tokens"]
        assert chunks <= tokens <= chunks + 1, (chunks, tokens)
        assert (row["requests"], row["output_tokens"]) == (1, tokens)
        assert len(task["attempts"]) == 1
        assert row["charged_usd"] == task["usage"]["charged_usd"] != "0"
    # The endpoint had the prompt when it was left.
    nothing = logged[by_tag["early"]["id"]]
    assert (nothing["state"], nothing["output_tokens"]) == ("canceled", 0)
    assert nothing["input_tokens"] > 0
    assert Decimal(nothing["charged_usd"]) > 0

    async def given_back() -> bool:
        (budget,), holds = await standings(stage.platform.folder, tenant)
        charged = sum(Decimal(row["charged_usd"]) for row in rows.values())
        return not holds and budget.held_picos == 0 and budget.captured_picos == charged * 10**12

    await eventually(given_back)


async def by_every_door(stage: Stage) -> None:
    """Asks the same thing over HTTP and gRPC, as a chat and as a task, streamed and not."""
    metadata = (("authorization", f"Bearer {stage.key}"),)
    async with stage.session() as session:
        for body in (question(), question(stream=True)):
            async with session.post(CHAT, json=body) as response:
                assert response.status == 200
                await response.read()
        task = {"model": "sim", "input": question()["messages"]}
        async with session.post("/v1/tasks", json=task, headers={"Prefer": "wait=20"}) as response:
            assert response.status == 200
    messages = [ChatMessage(role="user", content=ASK)]
    async with grpc.aio.insecure_channel(stage.platform.ready["grpc"]) as channel:
        request = ChatRequest(model="sim", messages=messages)
        await ChatStub(channel).Complete(request, metadata=metadata)
        async for _ in ChatStub(channel).Stream(request, metadata=metadata):
            pass
        submit = SubmitRequest(model="sim", messages=messages, wait_seconds=20)
        await TasksStub(channel).Submit(submit, metadata=metadata)


@pytest.mark.parametrize("no_usage", [False, True])
async def test_the_same_work_costs_the_same_by_every_door(stage: Stage, no_usage: bool):
    stage.simulator.script(Rule(Behaviour(answer=WORDS, no_usage=no_usage)))
    await by_every_door(stage)
    calls = stage.simulator.counts().requests
    assert len(calls) == 6
    async with stage.session() as session:
        usages = [(await settled(session, call.request_id))["usage"] for call in calls]
    assert all(usage == usages[0] for usage in usages), usages
    assert usages[0]["estimated"] is no_usage
    assert usages[0]["output_tokens"] == CHUNKS
