"""Webhooks on a running platform: sent, signed, tried again, shared between gateways, and never in the way."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest
from collegium_bus.kv import Bucket
from collegium_bus.schedules import ScheduleStream
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.state import CronSchedule
from collegium_gateway.webhooks import sender as webhook_sender
from collegium_runtime.platform import unix_ms
from collegium_settings.settings import WebhookSettings
from collegium_store import open_pool
from collegium_testing import Behaviour, Rule, eventually
from collegium_testing.platform import RunningPlatform
from collegium_testing.webhooks import Reply, WebhookReceiver


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as running:
        yield running


@pytest.fixture
async def open_platform(clean_nats_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[RunningPlatform]:
    """A platform whose webhooks may go to this machine."""
    allowed = WebhookSettings(allow_private_addresses=True)
    async with RunningPlatform(clean_nats_url, database_url, folder=tmp_path, webhooks=allowed) as running:
        yield running


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await open_pool(database_url, application_name="gateway-test")
    yield pool
    await pool.close()


async def submit(http: aiohttp.ClientSession, url: str, **body: Any) -> str:
    async with http.post("/v1/tasks", json={"input": "hello", "callback_url": url, **body}) as response:
        assert response.status == 202, await response.text()
        return (await response.json())["id"]


async def webhook(http: aiohttp.ClientSession, task_id: str) -> dict[str, Any]:
    async with http.get(f"/v1/tasks/{task_id}/webhook") as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def in_state(http: aiohttp.ClientSession, task_id: str, state: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        shown = await webhook(http, task_id)
        return shown if shown["state"] == state else None

    return await eventually(look)


async def secret_of(http: aiohttp.ClientSession) -> str:
    async with http.get("/v1/webhooks/secret") as response:
        assert response.headers["cache-control"] == "no-store"
        return (await response.json())["secret"]


async def tried(http: aiohttp.ClientSession, task_id: str, times: int) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        shown = await webhook(http, task_id)
        return shown if shown["attempts"] == times and shown["last_error"] else None

    return await eventually(look)


async def metric(http: aiohttp.ClientSession, result: str) -> float:
    async with http.get("/metrics") as response:
        for line in (await response.text()).splitlines():
            if line.startswith(f'collegium_webhooks_total{{result="{result}"}}'):
                return float(line.split(" ")[1])
    return 0


async def test_the_receiver_gets_the_task_as_it_is_shown(open_platform: RunningPlatform, receiver: WebhookReceiver):
    async with open_platform.session() as http:
        receiver.secret = await secret_of(http)
        open_platform.sim.script(Rule(Behaviour(answer="done", delay_ms=300)))
        task_id = await submit(http, receiver.url, tags={"team": "x"})
        shown = await webhook(http, task_id)
        assert shown == {
            "url": receiver.url,
            "state": "waiting",
            "attempts": 0,
            "last_status": None,
            "last_error": None,
            "next_try_at": None,
        }
        shown = await in_state(http, task_id, "delivered")
        assert (shown["attempts"], shown["last_status"], shown["next_try_at"]) == (1, 200, None)
        async with http.get(f"/v1/tasks/{task_id}") as response:
            task = await response.json()
        assert await metric(http, "delivered") == 1
    (got,) = receiver.received
    assert got.verified
    assert got.event == {"type": "task.completed", "timestamp": task["settled_at"], "data": task}
    assert task["output"] == "done"


async def test_failed_and_canceled_tasks_are_told_too(open_platform: RunningPlatform, receiver: WebhookReceiver):
    async with open_platform.session() as http:
        open_platform.sim.script(Rule(Behaviour(status=400)))
        failed = await submit(http, receiver.url)
        await in_state(http, failed, "delivered")
        open_platform.sim.script(Rule(Behaviour(hang=True)))
        canceled = await submit(http, receiver.url)
        async with http.post(f"/v1/tasks/{canceled}/cancel") as response:
            assert response.status == 200
        await in_state(http, canceled, "delivered")
    assert [got.event["type"] for got in receiver.received] == ["task.failed", "task.canceled"]
    assert [got.event["data"]["id"] for got in receiver.received] == [failed, canceled]


async def test_a_failed_task_that_is_run_again_calls_back_again(
    open_platform: RunningPlatform, receiver: WebhookReceiver
):
    async with open_platform.session() as http:
        open_platform.sim.script(Rule(Behaviour(status=400)))
        failed = await submit(http, receiver.url)
        await in_state(http, failed, "delivered")
        open_platform.sim.script()
        async with http.post(f"/v1/tasks/{failed}/retry") as response:
            again = (await response.json())["id"]
        assert (await in_state(http, again, "delivered"))["url"] == receiver.url
    assert [(got.event["type"], got.event["data"]["id"]) for got in receiver.received] == [
        ("task.failed", failed),
        ("task.completed", again),
    ]


async def test_each_firing_of_a_schedule_calls_back(open_platform: RunningPlatform, receiver: WebhookReceiver):
    task = {"input": "hello", "callback_url": receiver.url}
    async with open_platform.session() as http:
        async with http.post("/v1/schedules", json={"cron": "0 0 1 1 *", "task": task}) as response:
            made = await response.json()
        async with http.get(f"/v1/schedules/{made['id']}") as response:
            assert (await response.json())["task"]["callback_url"] == receiver.url
        await fire_now(open_platform, made["id"])
        await eventually(lambda: receiver.received)
        (got,) = receiver.received
        assert (await in_state(http, got.event["data"]["id"], "delivered"))["url"] == receiver.url


async def fire_now(running: RunningPlatform, schedule_id: str) -> None:
    """Moves a schedule's next firing to now."""
    bucket = Bucket(running.connection, s.KV_SCHEDULES)
    entry = await bucket.get(s.schedule_key("acme", schedule_id))
    assert entry is not None
    schedule = codec.state.decode(entry.value)
    assert isinstance(schedule, CronSchedule)
    soon = msgspec.structs.replace(schedule, next_at_ms=unix_ms() + 200)
    await bucket.put(entry.key, codec.encode(soon), expected_revision=entry.revision)
    await ScheduleStream(running.connection, running.publisher).arm(soon, unix_ms())


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "ftp://example.org/"])
async def test_a_schedule_that_may_not_call_back_is_refused(platform: RunningPlatform, url: str):
    body = {"cron": "0 0 1 1 *", "task": {"input": "hello", "callback_url": url}}
    async with platform.session() as http, http.post("/v1/schedules", json=body) as response:
        assert (response.status, (await response.json())["error"]["param"]) == (400, "task.callback_url")


async def test_a_refused_message_comes_again_the_same(
    open_platform: RunningPlatform, receiver: WebhookReceiver, pool: asyncpg.Pool
):
    receiver.script(500, 302)
    async with open_platform.session() as http:
        receiver.secret = await secret_of(http)
        task_id = await submit(http, receiver.url)
        shown = await tried(http, task_id, 1)
        assert (shown["state"], shown["last_status"], shown["last_error"]) == ("due", 500, "status")
        assert shown["next_try_at"] is not None
        for times in (2, 3):
            await pool.execute("UPDATE gateway.webhooks SET next_try_at_ms = 0")
            if times == 2:
                await tried(http, task_id, 2)
        shown = await in_state(http, task_id, "delivered")
        assert (shown["attempts"], shown["last_status"]) == (3, 200)
        assert (await metric(http, "retried"), await metric(http, "delivered")) == (2, 1)
    assert len({(got.id, got.body) for got in receiver.received}) == 1
    assert [got.verified for got in receiver.received] == [True] * 3


async def test_a_receiver_that_is_gone_is_left_alone(open_platform: RunningPlatform, receiver: WebhookReceiver):
    receiver.script(410)
    async with open_platform.session() as http:
        task_id = await submit(http, receiver.url)
        assert (await in_state(http, task_id, "gone"))["last_status"] == 410
    assert len(receiver.received) == 1


async def test_after_a_day_a_message_is_given_up_and_says_so(
    open_platform: RunningPlatform, receiver: WebhookReceiver, pool: asyncpg.Pool
):
    receiver.script(500, 500)
    async with open_platform.session() as http:
        task_id = await submit(http, receiver.url)
        await tried(http, task_id, 1)
        await pool.execute(
            "UPDATE gateway.webhooks SET next_try_at_ms = 0, first_try_at_ms = first_try_at_ms - 86400000"
        )
        shown = await in_state(http, task_id, "failed")
        assert (shown["attempts"], shown["last_status"], shown["next_try_at"]) == (2, 500, None)
        assert await metric(http, "failed") == 1


async def test_a_receiver_that_does_not_answer_holds_up_nobody(
    open_platform: RunningPlatform, receiver: WebhookReceiver
):
    receiver.script(*[Reply(200, delay_ms=60_000)] * 40)
    async with WebhookReceiver() as quick, open_platform.session() as http, open_platform.session("globex") as other:
        for _ in range(20):
            await submit(http, receiver.url)
        await eventually(lambda: len(receiver.received) == 8)
        last = await submit(http, quick.url)
        stranger = await submit(other, quick.url)
        await in_state(http, last, "delivered")
        await in_state(other, stranger, "delivered")
        async with http.post("/v1/tasks", json={"input": "x"}, headers={"Prefer": "wait=10"}) as response:
            assert (await response.json())["state"] == "completed"
        assert len(receiver.received) == 8


async def test_of_two_gateways_one_sends(open_platform: RunningPlatform, receiver: WebhookReceiver):
    await open_platform.start("gateway")
    async with open_platform.session() as http:
        ids = [await submit(http, receiver.url) for _ in range(30)]
        for task_id in ids:
            await in_state(http, task_id, "delivered")
    assert sorted(got.event["data"]["id"] for got in receiver.received) == sorted(ids)


async def test_a_stopping_gateway_hands_back_what_another_then_sends(
    open_platform: RunningPlatform, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(webhook_sender, "DRAIN_SECONDS", 0.05)
    receiver.script(Reply(200, delay_ms=60_000))
    async with open_platform.session() as http:
        task_id = await submit(http, receiver.url)
        await eventually(lambda: len(receiver.received) == 1)
    await open_platform.stop(open_platform.hosted("gateway"))
    await open_platform.start("gateway")
    async with open_platform.session() as http:
        assert (await in_state(http, task_id, "delivered"))["attempts"] == 2


async def test_a_new_key_signs_beside_the_old_one_for_its_grace(
    open_platform: RunningPlatform, receiver: WebhookReceiver
):
    async with open_platform.session() as http:
        old = await secret_of(http)
        async with http.post("/v1/webhooks/secret/rotate") as response:
            rotated = await response.json()
        assert rotated["secret"] == await secret_of(http) != old
        assert rotated["earlier_valid_until"] is not None
        receiver.secret = old
        await in_state(http, await submit(http, receiver.url), "delivered")
        receiver.secret = rotated["secret"]
        await in_state(http, await submit(http, receiver.url), "delivered")
        async with http.post("/v1/webhooks/secret/rotate", json={"grace_seconds": 0}) as response:
            assert (await response.json())["earlier_valid_until"] is None
        await in_state(http, await submit(http, receiver.url), "delivered")
    assert [got.verified for got in receiver.received] == [True, True, False]


@pytest.mark.parametrize("body", [{"grace_seconds": -1}, {"grace_seconds": 10**9}, {"grace": 1}, []])
async def test_a_wrong_rotation_is_refused(open_platform: RunningPlatform, body: Any):
    async with open_platform.session() as http, http.post("/v1/webhooks/secret/rotate", json=body) as response:
        assert response.status == 400


async def test_tenants_have_keys_of_their_own_and_see_no_others_callback(
    open_platform: RunningPlatform, receiver: WebhookReceiver
):
    async with open_platform.session() as http, open_platform.session("globex") as stranger:
        assert await secret_of(http) != await secret_of(stranger)
        task_id = await submit(http, receiver.url)
        async with stranger.get(f"/v1/tasks/{task_id}/webhook") as response:
            assert (response.status, (await response.json())["error"]["code"]) == (404, "not_found")
        async with aiohttp.ClientSession(open_platform.http) as nobody:
            for method, path in (("GET", "/v1/webhooks/secret"), ("POST", "/v1/webhooks/secret/rotate")):
                async with nobody.request(method, path) as response:
                    assert response.status == 401


async def test_a_task_without_a_callback_has_no_webhook(open_platform: RunningPlatform):
    async with open_platform.session() as http:
        async with http.post("/v1/tasks", json={"input": "hello"}) as response:
            task_id = (await response.json())["id"]
        for one in (task_id, "tsk_" + "0" * 26, "no id"):
            async with http.get(f"/v1/tasks/{one}/webhook") as response:
                assert response.status == 404


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:1/hook", "callback_address_refused"),
        ("http://localhost/hook", "callback_address_refused"),
        ("http://[::ffff:10.0.0.1]/", "callback_address_refused"),
        ("http://169.254.169.254/latest/meta-data", "callback_address_refused"),
        ("ftp://example.org/", "invalid_value"),
        ("https://user:pass@example.org/", "invalid_value"),
    ],
)
async def test_a_callback_that_may_not_be_called_is_refused_before_anything_is_stored(
    platform: RunningPlatform, url: str, code: str
):
    body = {"input": "hello", "callback_url": url}
    async with platform.session() as http, http.post("/v1/tasks", json=body) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["param"]) == (400, code, "callback_url")
    assert platform.sim.counts().totals.started == 0


async def test_a_name_that_leads_inside_is_taken_and_never_called(
    platform: RunningPlatform, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
):
    """As it is with every name: what it leads to is found out when it is called."""
    port = int(receiver.url.rpartition(":")[2].partition("/")[0])

    def inside(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr("collegium_gateway.webhooks.client.socket.getaddrinfo", inside)
    async with platform.session() as http:
        task_id = await submit(http, f"http://hooks.example.org:{port}/hook")
        shown = await tried(http, task_id, 1)
    assert (shown["state"], shown["last_status"], shown["last_error"]) == ("due", None, "address_refused")
    assert not receiver.received
