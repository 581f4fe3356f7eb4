"""Storage on a running platform: what is stored is counted, and a tenant at its tier's bound stores nothing more."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import grpc.aio
import pytest
from collegium_protocol.v1.chat_pb2 import ChatMessage
from collegium_protocol.v1.tasks_pb2 import SubmitRequest
from collegium_protocol.v1.tasks_pb2_grpc import TasksStub
from collegium_testing import Behaviour, ModelSimulator, Rule, eventually
from collegium_testing.platforms import PlatformProcess

from tests.journeys.town import KEYS, TIGHT

pytestmark = pytest.mark.timeout(180)

CHAT = "/v1/chat/completions"
LIMIT_BYTES = TIGHT["storage_bytes"]
KEY, OTHER = KEYS["small"], KEYS["large"]


@pytest.fixture(scope="module")
def platform(town: PlatformProcess) -> PlatformProcess:
    return town


def session(platform: PlatformProcess, key: str = KEY) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(platform.http, headers={"Authorization": f"Bearer {key}"})


def chat(**options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"question {time.time_ns()}"}]
    return {"model": "sim", "messages": messages, "collegium": {"cache": "off", **options}}


async def stored(platform: PlatformProcess, tenant: str = "small") -> dict[str, Any]:
    path = f"/v1/admin/tenants/{tenant}/storage"
    async with session(platform, platform.admin_key) as operator, operator.get(path) as response:
        assert response.status == 200
        return await response.json()


async def fill(platform: PlatformProcess) -> tuple[dict[str, Any], int]:
    """Stores tasks until the tenant is at its bound; returns the refusal, and how many were accepted."""
    accepted = 0
    async with session(platform) as tenant:

        async def full() -> dict[str, Any] | None:
            async with tenant.post("/v1/tasks", json={"input": "tell me", "model": "sim"}) as response:
                body = await response.json()
                assert response.status in (202, 403), body
                nonlocal accepted
                accepted += response.status == 202
                return body["error"] if response.status == 403 else None

        refusal = await eventually(full)
    assert refusal is not None
    return refusal, accepted


async def test_a_tenant_at_its_bound_stores_nothing_more_and_chats_on(
    platform: PlatformProcess, simulator: ModelSimulator
):
    simulator.script(Rule(Behaviour(answer="word " * 400)))
    refusal, accepted = await fill(platform)
    assert (refusal["code"], refusal["type"]) == ("storage_full", "insufficient_quota")
    assert "tenant small stores " in refusal["message"]
    assert f"of the {LIMIT_BYTES} that its tier tight allows" in refusal["message"]

    async def settled() -> dict[str, Any] | None:
        async with session(platform) as tenant, tenant.get("/v1/tasks", params={"state": "completed"}) as response:
            completed = len((await response.json())["data"])
        now = await stored(platform)
        is_full = now["stored_bytes"] >= LIMIT_BYTES and now["tasks"] == accepted
        return now if is_full and completed == min(accepted, 50) else None

    before = await eventually(settled)
    assert before is not None
    assert before["limit_bytes"] == LIMIT_BYTES
    in_an_hour = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    task = {"input": "x", "model": "sim"}
    async with session(platform) as tenant:
        for path, body in (
            ("/v1/tasks", task),
            ("/v1/tasks", {**task, "not_before": in_an_hour}),
            ("/v1/schedules", {"cron": "0 3 * * *", "task": task}),
            (CHAT, chat(conversation="talk")),
            (CHAT, {**chat(conversation="talk"), "stream": True}),
        ):
            async with tenant.post(path, json=body) as response:
                assert response.status == 403, (path, body)
                assert (await response.json())["error"]["code"] == "storage_full"
        async with tenant.post(CHAT, json=chat()) as response:
            assert response.status == 200, "a plain chat goes on"
        for path, body in (
            ("/v1/documents", {"content": "a sentence", "type": "text"}),
            ("/v1/memories", {"text": "likes tea", "path": "/team"}),
        ):
            async with tenant.post(path, json=body) as response:
                assert (response.status, (await response.json())["error"]["code"]) == (403, "storage_full"), path
        async with tenant.put("/v1/contexts/plan", json={"fields": {"step": 1}}) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (403, "storage_full")
        async with tenant.get("/v1/schedules") as response:
            assert (await response.json())["data"] == []
    async with grpc.aio.insecure_channel(platform.ready["grpc"]) as channel:
        request = SubmitRequest(model="sim", messages=[ChatMessage(role="user", content="x")])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await TasksStub(channel).Submit(request, metadata=(("authorization", f"Bearer {KEY}"),))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    async with session(platform, OTHER) as other, other.post("/v1/tasks", json=task) as response:
        assert response.status == 202, "others have their own"

    async def counted() -> bool:
        return (await stored(platform))["tasks"] == accepted + 1

    await eventually(counted)


async def test_a_larger_tier_and_a_repeated_request_are_let_in(platform: PlatformProcess, simulator: ModelSimulator):
    simulator.script(Rule(Behaviour(answer="word " * 400)))
    async with session(platform) as tenant, session(platform, platform.admin_key) as operator:
        accepted: dict[str, str] = {}

        async def full() -> bool:
            name = f"key-{time.time_ns()}"
            body = {"input": "tell me", "model": "sim"}
            async with tenant.post("/v1/tasks", json=body, headers={"Idempotency-Key": name}) as response:
                if response.status == 202:
                    accepted[name] = (await response.json())["id"]
                return response.status == 403

        async with operator.patch("/v1/admin/tenants/small", json={"tier": "pro"}) as response:
            assert response.status == 200

        async def let_in() -> bool:
            await full()
            return bool(accepted)

        await eventually(let_in)
        async with operator.patch("/v1/admin/tenants/small", json={"tier": "tight"}) as response:
            assert response.status == 200
        await eventually(full)
        name, task_id = next(iter(accepted.items()))
        body = {"input": "tell me", "model": "sim"}
        async with tenant.post("/v1/tasks", json=body, headers={"Idempotency-Key": name}) as response:
            assert response.status in (200, 202), "what was accepted is told again"
            assert (await response.json())["id"] == task_id


async def test_turns_count_beside_tasks(platform: PlatformProcess, simulator: ModelSimulator):
    simulator.script(Rule(Behaviour(answer="word " * 40)))
    async with session(platform, OTHER) as other, other.post(CHAT, json=chat(conversation="talk")) as response:
        assert response.status == 200

    async def both() -> bool:
        now = await stored(platform, "large")
        parts = now["parts"]
        return parts.keys() == {"gateway", "context"} and now["stored_bytes"] == sum(
            part["bytes"] for part in parts.values()
        )

    await eventually(both)
