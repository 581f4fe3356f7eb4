"""Dead letters over HTTP, on real parts: exact filters, dry runs, requeues that repeat without doing anything twice."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from zlib import crc32

import aiohttp
import msgspec
import pytest
from collegium_bus.dead import DeadLetters, Original
from collegium_bus.kv import Bucket
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.code_tests import CodeTest, encode_tests
from collegium_contracts.errors import TaskError
from collegium_contracts.ids import API_KEY
from collegium_contracts.messages import (
    AttemptRef,
    RunAttempt,
    Sampling,
    TaskAccepted,
    TaskDispatched,
    TaskFailed,
    TaskRef,
    TaskSubmitted,
)
from collegium_contracts.money import Price, Usage
from collegium_contracts.state import KeyRecord, TenantRecord
from collegium_testing import eventually
from collegium_testing.platform import RunningPlatform
from collegium_testing.platforms import make_key

PATH = "/v1/admin/dead-letters"


class Door:
    """An administrator's and a tenant's session, and a way to write letters."""

    def __init__(self, platform: RunningPlatform, admin: aiohttp.ClientSession, tenant: aiohttp.ClientSession) -> None:
        self.platform = platform
        self.admin = admin
        self.tenant = tenant

    async def get(self, query: str = "", status: int = 200) -> Any:
        async with self.admin.get(f"{PATH}{query}") as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def post(self, action: str, body: Any, status: int = 200) -> Any:
        async with self.admin.post(f"{PATH}/{action}", json=body) as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def retry(self, task_id: str, status: int) -> Any:
        async with self.tenant.post(f"/v1/tasks/{task_id}/retry") as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def bury(self, service: str, subject: str, payload: bytes = b"\xff", *, stream: str, tenant: str) -> None:
        original = Original(subject, payload, {s.H_TENANT: tenant}, stream, crc32(f"{service} {subject}".encode()), 1)
        letters = DeadLetters(self.platform.publisher, service)
        assert await letters.bury(original, "undecodable_message", "no message")

    async def fail(self, text: str, *, service: str = "worker-pool", **fields: Any) -> TaskSubmitted:
        """Settles a task as failed and keeps its input, as a settler does."""
        submitted = self.platform.submission(text, **fields)
        task = submitted.task
        settled = TaskFailed(
            task=task, plan="single", stop_reason="failed", usage=Usage(), attempts=[],
            settled_at_ms=task.created_at_ms, error=TaskError(code="upstream_rejected", message="it answered 400"),
        )  # fmt: skip
        subject = s.task_settled(task.tenant, task.id)
        await self.platform.send(subject, settled, message_id=f"{task.id}.settled", tenant=task.tenant)
        original = Original("x", codec.encode(submitted), {})
        assert await DeadLetters(self.platform.publisher, service).keep_failed(settled, original)
        return submitted

    async def letters(self) -> int:
        return await self.platform.standing(s.DEAD)


@pytest.fixture
async def door(clean_nats_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[Door]:
    async with RunningPlatform(clean_nats_url, database_url, folder=tmp_path) as platform:
        key = make_key("operator")
        match = API_KEY.match(key)
        assert match is not None
        digest = hashlib.sha256(match[2].encode()).hexdigest()
        record = TenantRecord(
            id="operator", tier="pro", keys=[KeyRecord(id=match[1], secret_sha256=digest, scopes=["admin"])]
        )
        await Bucket(platform.connection, s.KV_TENANTS).put("operators", codec.encode(record))
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(platform.http, headers=headers) as admin, platform.session() as tenant:

            async def known() -> bool:
                async with admin.get(PATH) as response:
                    return response.status == 200

            await eventually(known)
            yield Door(platform, admin, tenant)


async def test_only_operators_see_letters(door: Door):
    for method, path in (("GET", PATH), ("GET", f"{PATH}/1"), ("POST", f"{PATH}/requeue"), ("POST", f"{PATH}/discard")):
        async with door.tenant.request(method, path, json={}) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (403, "insufficient_scope")


async def test_letters_are_listed_by_exact_filters_and_pages(door: Door):
    for tenant in ("acme", "acme-2", "globex"):
        await door.bury("billing", s.task_settled(tenant, "x"), stream=s.EVENTS, tenant=tenant)
    await door.bury("router", s.task_submitted("low", 1, "acme"), stream=s.INGRESS, tenant="acme")
    failed = await door.fail("hello")
    rows = (await door.get())["data"]
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["id"] for row in (await door.get("?tenant=acme"))["data"]] == [1, 4, 5]
    assert [row["id"] for row in (await door.get("?service=billing&tenant=acme"))["data"]] == [1]
    assert [row["id"] for row in (await door.get("?cause=task_failed"))["data"]] == [5]
    assert [row["id"] for row in (await door.get(f"?task={failed.task.id}"))["data"]] == [5]
    assert (await door.get(f"?since={rows[0]['at']}"))["data"] == rows
    assert (await door.get("?since=2999-01-01"))["data"] == []
    first = await door.get("?limit=3")
    assert (await door.get(f"?limit=3&cursor={first['next_cursor']}"))["data"] == rows[3:]
    assert rows[4]["code"] == "upstream_rejected"
    for wrong in ("tenant=*", "tenant=acme.x", "service=>", "task=tsk_1", "cause=A", "since=x", "limit=0", "cursor=a"):
        error = (await door.get(f"?{wrong}", 400))["error"]
        assert error["param"] == wrong.partition("=")[0]


async def test_a_letter_is_shown_with_its_bytes_and_a_summary_without_content(door: Door):
    submitted = await door.fail("a secret question")
    shown = await door.get("/1")
    assert base64.b64decode(shown["payload_base64"]) == codec.encode(submitted)
    assert shown["message"]["task"]["id"] == submitted.task.id
    assert "secret" not in msgspec.json.encode(shown["message"]).decode()
    assert (await door.get("/2", 404))["error"]["code"] == "not_found"
    assert (await door.get("/x", 400))["error"]["param"] == "id"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "ids"),
        ({"ids": [1], "filter": {}}, "ids"),
        ({"ids": [0]}, "ids"),
        ({"ids": list(range(1, 600))}, "ids"),
        ({"filter": {}, "limit": 0}, "limit"),
        ({"filter": {"tenant": "a*"}}, "tenant"),
    ],
)
async def test_an_action_says_what_it_means_or_is_refused(door: Door, body: Any, param: str):
    for action in ("requeue", "discard"):
        assert (await door.post(action, body, 400))["error"]["param"] == param


async def test_a_dry_run_says_what_would_be_and_changes_nothing(door: Door):
    submitted = await door.fail("hello")
    await door.bury("router", s.task_submitted("low", 1, "acme"), stream=s.INGRESS, tenant="acme")
    answer = await door.post("requeue", {"filter": {}, "dry_run": True})
    assert [(one["state"], one.get("task"), one.get("to")) for one in answer["data"]] == [
        ("requeued", ids.retry_id("acme", submitted.task.id), None),
        ("requeued", None, s.task_submitted("low", 1, "acme")),
    ]
    assert [one["state"] for one in (await door.post("discard", {"ids": [1], "dry_run": True}))["data"]] == [
        "discarded"
    ]
    assert await door.letters() == 2
    assert await door.platform.standing(s.INGRESS) == 0


async def test_what_was_garbage_comes_back_as_a_letter_of_its_own_and_may_be_discarded(door: Door):
    subject = s.task_submitted("low", ids.shard_of("acme"), "acme")
    await door.bury("router", subject, stream=s.INGRESS, tenant="acme")
    answer = await door.post("requeue", {"ids": [1]})
    assert answer["data"] == [{"id": 1, "state": "requeued", "to": subject}]

    async def buried_again() -> Any:
        return [row for row in (await door.get())["data"] if row["id"] == 2]

    (row,) = await eventually(buried_again)
    assert (row["service"], row["subject"], row["bytes"]) == ("router", subject, 1)
    assert [one["state"] for one in (await door.post("requeue", {"ids": [1, 7]}))["data"]] == [
        "already_done",
        "not_found",
    ]
    assert (await door.post("discard", {"filter": {"service": "router"}}))["data"] == [{"id": 2, "state": "discarded"}]
    assert await door.letters() == 0


async def test_a_failed_task_runs_again_once_however_often_it_is_requeued(door: Door):
    submitted = await door.fail("hello")
    answers = await asyncio.gather(*(door.post("requeue", {"ids": [1]}) for _ in range(3)))
    states = sorted(answer["data"][0]["state"] for answer in answers)
    assert "requeued" in states
    assert set(states) <= {"requeued", "already_done"}
    again = msgspec.structs.replace(submitted.task, id=ids.retry_id("acme", submitted.task.id))
    settled = await door.platform.settled(again)
    assert (type(settled).__name__, settled.task.tags) == ("TaskCompleted", {"retry_of": submitted.task.id})
    # As if the first requeue had died before it removed the letter, longer ago than duplicates are known.
    await DeadLetters(door.platform.publisher, "router").bury(
        Original("x", codec.encode(submitted), {s.H_TENANT: "acme"}, s.INGRESS, 5, 1), "handler_failed", "as before"
    )
    answer = await door.post("requeue", {"filter": {"tenant": "acme"}})
    assert [(one["state"], one["task"]) for one in answer["data"]] == [("requeued", again.id)]
    assert await door.letters() == 0

    async def nothing_queued() -> bool:
        return await door.platform.standing(s.INGRESS) == 0

    await eventually(nothing_queued)
    assert door.platform.sim.counts().totals.completed == 1


async def forget_duplicates(door: Door) -> None:
    """Lets the broker forget every message id that it has seen so far."""
    connection = door.platform.connection
    for stream in (s.INGRESS, s.WORK, s.EVENTS):
        config = msgspec.json.decode(await connection.api(f"STREAM.INFO.{stream}"))["config"]
        config["duplicate_window"] = 100_000_000
        reply = msgspec.json.decode(await connection.api(f"STREAM.UPDATE.{stream}", msgspec.json.encode(config)))
        assert "error" not in reply
    probe = s.cancel("probe", "x")

    async def forgotten() -> bool:
        return not (await door.platform.publisher.publish(probe, b"", message_id="probe")).duplicate

    await forgotten()
    # The window's length after the probe was first stored, everything that came before it is forgotten as well.
    await eventually(forgotten)


async def test_an_attempt_that_was_buried_is_run_again_with_its_tasks_tests(door: Door):
    platform = door.platform
    sealed = platform.keyring.seal("acme", encode_tests([CodeTest(call="f(2)", equals=4)]))
    attempt = AttemptRef(number=1, of=1, model="sim", rank="ta", pool="general", price=Price(), charge=Price())

    async def buried(priority: Any, *, is_kept: bool) -> tuple[TaskRef, Any]:
        """Buries an attempt of a task whose time is over, and requeues it."""
        submitted = msgspec.structs.replace(platform.submission("hello", tests=1), tests=sealed)
        past_ms = submitted.task.created_at_ms - 120_000
        task = msgspec.structs.replace(submitted.task, created_at_ms=past_ms, deadline_ms=past_ms + 100_000)
        begun = TaskDispatched(
            task=task, plan="single", models=["sim"], at_ms=1,
            submitted=msgspec.structs.replace(submitted, task=task) if is_kept else None,
        )  # fmt: skip
        await platform.send(s.task_changed("acme", task.id), begun, message_id=f"{task.id}.begun", tenant="acme")
        run = RunAttempt(task=task, attempt=attempt, prompt=submitted.prompt, sampling=Sampling(), prompt_bytes=9)
        work = s.work("general", priority)
        await door.bury("worker-pool", work, codec.encode(run), stream=s.WORK, tenant="acme")
        [letter] = (await door.get("?service=worker-pool&cause=undecodable_message"))["data"]
        [outcome] = (await door.post("requeue", {"ids": [letter["id"]]}))["data"]
        return task, outcome

    task, outcome = await buried("normal", is_kept=True)
    again = msgspec.structs.replace(task, id=ids.retry_id("acme", task.id))
    assert (outcome["state"], outcome["task"]) == ("requeued", again.id)

    async def began_with() -> TaskSubmitted | None:
        told = [event for event in await platform.events(again) if isinstance(event, TaskDispatched)]
        return next((event.submitted for event in told if event.submitted is not None), None)

    assert (await eventually(began_with, deadline_seconds=60)).tests == sealed
    _, outcome = await buried("low", is_kept=False)
    assert outcome["state"] == "impossible"
    assert "submit it again with its tests" in outcome["reason"]


async def test_a_requeue_that_died_before_it_removed_the_letter_is_finished_by_the_next(door: Door):
    submitted = await door.fail("hello")
    again = msgspec.structs.replace(submitted.task, id=ids.retry_id("acme", submitted.task.id))
    letter = await door.platform.direct.at(s.DEAD, 1)
    assert letter is not None
    await door.post("requeue", {"ids": [1]})
    await door.platform.settled(again)
    before = len(await door.platform.events(again))
    await forget_duplicates(door)
    await door.platform.publisher.publish(letter.subject, letter.payload, message_id="as it stood")
    answer = await door.post("requeue", {"ids": [2]})
    assert [(one["state"], one["task"]) for one in answer["data"]] == [("requeued", again.id)]
    assert await door.letters() == 0
    assert len(await door.platform.events(again)) == before
    assert door.platform.sim.counts().totals.completed == 1


async def test_an_event_requeued_twice_stands_once(door: Door):
    subject = s.task_settled("acme", "tsk_" + "7" * 26)
    await door.bury("billing", subject, stream=s.EVENTS, tenant="acme")
    letter = await door.platform.direct.at(s.DEAD, 1)
    assert letter is not None
    await door.platform.publisher.publish(
        s.again("billing", 1, subject), b"\xff", message_id="an earlier try, long ago", create_once=True
    )
    assert (await door.post("requeue", {"ids": [1]}))["data"][0]["state"] == "requeued"
    assert len(await door.platform.read(s.EVENTS, s.AGAIN_ALL)) == 1
    assert await door.letters() == 0


async def test_a_tenant_runs_its_failed_task_again_and_gets_the_same_one_when_it_asks_again(door: Door):
    submitted = await door.fail("hello")
    first = await door.retry(submitted.task.id, 202)
    assert first["tags"] == {"retry_of": submitted.task.id}
    settled = await door.platform.settled(msgspec.structs.replace(submitted.task, id=first["id"]))
    assert type(settled).__name__ == "TaskCompleted"
    assert (await door.retry(submitted.task.id, 200))["id"] == first["id"]
    assert door.platform.sim.counts().totals.completed == 1
    assert await door.letters() == 0


async def test_what_cannot_be_run_again_is_refused_with_what_to_do(door: Door):
    foreign = await door.fail("hello", tenant="globex")
    assert (await door.retry(foreign.task.id, 404))["error"]["code"] == "not_found"
    async with door.tenant.post("/v1/tasks", json={"input": "hi"}, headers={"Prefer": "wait=10"}) as response:
        done = await response.json()
    error = (await door.retry(done["id"], 409))["error"]
    assert error["code"] == "input_not_kept"
    assert "POST /v1/tasks" in error["message"]
    running = door.platform.submission("hello").task
    accepted = TaskAccepted(task=running, at_ms=1)
    await door.platform.send(s.task_changed("acme", running.id), accepted, message_id="accepted", tenant="acme")
    assert (await door.retry(running.id, 409))["error"]["code"] == "task_not_terminal"
    failed = await door.fail("hello")
    await door.post("discard", {"filter": {"task": failed.task.id}})
    assert (await door.retry(failed.task.id, 409))["error"]["code"] == "input_not_kept"
