"""Callbacks of tasks: refused where they may not go, and delivered once, signed, whatever the receiver does first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from collegium_testing import ModelSimulator, WebhookReceiver, eventually
from collegium_testing.platforms import PlatformProcess
from collegium_testing.webhooks import Reply

from tests.conftest import LoopThread
from tests.journeys.town import KEYS

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def platform(town: PlatformProcess) -> PlatformProcess:
    return town


@pytest.fixture
def hooks(loop_thread: LoopThread) -> Iterator[WebhookReceiver]:
    running = loop_thread.run(WebhookReceiver().__aenter__())
    yield running
    loop_thread.run(running.__aexit__(None, None, None))


@pytest.fixture
def _fresh(simulator: ModelSimulator) -> None:
    simulator.script()
    simulator.reset()


def session(platform: PlatformProcess) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(platform.http, headers={"Authorization": f"Bearer {KEYS['hooks']}"})


async def shown(http: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    async with http.get(path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


@pytest.mark.usefixtures("_fresh")
async def test_a_refused_callback_comes_again_and_holds_up_no_settlement(
    platform: PlatformProcess, hooks: WebhookReceiver
):
    hooks.script(Reply(500, delay_ms=2_000), 200)
    async with session(platform) as http:
        hooks.secret = (await shown(http, "/v1/webhooks/secret"))["secret"]
        body = {"input": "hello", "callback_url": f"{hooks.url}?who=me"}
        async with http.post("/v1/tasks", json=body, headers={"Prefer": "wait=10"}) as response:
            task = await response.json()
            # It settled while its receiver had not yet answered anything.
            assert (response.status, task["state"]) == (200, "completed")
        webhook = await shown(http, f"/v1/tasks/{task['id']}/webhook")
        assert (webhook["state"], webhook["last_status"]) in [("waiting", None), ("due", None)]

        async def delivered() -> dict[str, Any] | None:
            found = await shown(http, f"/v1/tasks/{task['id']}/webhook")
            return found if found["state"] == "delivered" else None

        webhook = await eventually(delivered, every_seconds=0.1)
        assert (webhook["attempts"], webhook["last_status"]) == (2, 200)
        task = await shown(http, f"/v1/tasks/{task['id']}")
    first, second = hooks.received
    assert (first.status, second.status) == (500, 200)
    assert (first.id, first.body) == (second.id, second.body)
    assert first.verified
    assert second.verified
    assert second.path == "/hook?who=me"
    assert second.event == {"type": "task.completed", "timestamp": task["settled_at"], "data": task}


@pytest.mark.usefixtures("_fresh")
async def test_many_callbacks_each_arrive_once(platform: PlatformProcess, hooks: WebhookReceiver):
    async with session(platform) as http:

        async def one(number: int) -> str:
            body = {"input": f"question {number}", "callback_url": hooks.url}
            async with http.post("/v1/tasks", json=body) as response:
                assert response.status == 202, await response.text()
                return (await response.json())["id"]

        ids = await asyncio.gather(*(one(number) for number in range(100)))
    await eventually(lambda: len(hooks.received) >= 100)
    assert sorted(got.event["data"]["id"] for got in hooks.received) == sorted(ids)
