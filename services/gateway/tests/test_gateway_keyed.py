"""Keyed requests on a real broker: two gateways, one task; and what a gateway that died leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
from collegium_bus.errors import QueueFullError
from collegium_bus.kv import Bucket
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.messages import TaskAccepted
from collegium_contracts.state import IdempotencyClaim
from collegium_gateway.admission import claimbook
from collegium_gateway.admission.idempotency import Patience, claim_name, fingerprint
from collegium_gateway.tasks import keyed as keyed_tasks
from collegium_runtime.platform import unix_ms
from collegium_testing import Behaviour, Rule, eventually
from collegium_testing.platform import RunningPlatform

CHAT = "/v1/chat/completions"
BODY = msgspec.json.encode(
    {"model": "sim", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
)
STREAM = msgspec.json.encode({**msgspec.json.decode(BODY), "stream": True})
TASK = b'{"input":"hello"}'
IMPATIENT = Patience(stale_seconds=0.3, wait_seconds=1.0, believes_clocks=False)


class Answer(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def replayed(self) -> bool:
        return self.headers.get("idempotent-replayed") == "true"

    @property
    def task_id(self) -> str:
        return self.headers["x-collegium-task-id"]

    @property
    def code(self) -> str:
        return msgspec.json.decode(self.body)["error"]["code"]


class Caller:
    """A tenant's client of every gateway that runs."""

    def __init__(self, platform: RunningPlatform) -> None:
        self.platform = platform
        self.doors = [f"http://127.0.0.1:{platform.app('gateway').port}"]
        self._http = aiohttp.ClientSession()

    async def another_gateway(self) -> None:
        hosted: Any = await self.platform.start("gateway")
        self.doors.append(f"http://127.0.0.1:{hosted.app.port}")

    async def post(
        self, path: str, body: bytes, key: str | None, *, door: int = 0, tenant: str = "acme", **headers: str
    ) -> Answer:
        sent = {"Authorization": f"Bearer {self.platform.keys[tenant]}", **headers}
        if key is not None:
            sent["Idempotency-Key"] = key
        async with self._http.post(self.doors[door] + path, data=body, headers=sent) as response:
            found = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, found, await response.read())

    async def close(self) -> None:
        await self._http.close()

    def calls(self) -> int:
        return self.platform.sim.counts().totals.started

    async def claim(self, key: str, tenant: str = "acme") -> IdempotencyClaim | None:
        entry = await Bucket(self.platform.connection, s.KV_IDEMPOTENCY).get(claim_name(tenant, key))
        value = codec.state.decode(entry.value) if entry is not None else None
        assert value is None or isinstance(value, IdempotencyClaim)
        return value

    async def leave_claim(self, key: str, path: str, body: bytes, *, age_ms: int, **fields: Any) -> str:
        """Puts what a gateway leaves that died after it had claimed a key; returns the task's id."""
        then = unix_ms() - age_ms
        values: dict[str, Any] = {
            "fingerprint": fingerprint(key, "POST", path, body),
            "state": "claimed",
            "holder": "dead.1",
            "created_at_ms": then,
            "changed_at_ms": then,
            "task_id": ids.task_id_from_key("acme", key, then),
        }
        left = IdempotencyClaim(**(values | fields))
        name = claim_name("acme", key)
        await Bucket(self.platform.connection, s.KV_IDEMPOTENCY).put(name, codec.encode(left), expected_revision=0)
        return left.task_id


@pytest.fixture
async def caller(platform: RunningPlatform) -> AsyncIterator[Caller]:
    running = Caller(platform)
    yield running
    await running.close()


async def test_a_chat_twice_is_one_call_and_one_answer(caller: Caller):
    first = await caller.post(CHAT, BODY, "k")
    second = await caller.post(CHAT, BODY, "k")
    assert (first.status, first.replayed, second.status, second.replayed) == (200, False, 200, True)
    assert (second.body, second.task_id) == (first.body, first.task_id)
    assert caller.calls() == 1


async def test_without_a_key_nothing_is_claimed_and_nothing_shared(caller: Caller):
    answers = [await caller.post(CHAT, BODY, None) for _ in range(2)]
    assert answers[0].task_id != answers[1].task_id
    assert await caller.platform.standing(f"KV_{s.KV_IDEMPOTENCY}") == 0


async def test_twenty_at_once_over_two_gateways_are_one_call(caller: Caller):
    await caller.another_gateway()
    caller.platform.sim.script(Rule(Behaviour(answer="Paris.", delay_ms=300)))
    answers = await asyncio.gather(*(caller.post(CHAT, BODY, "k", door=number % 2) for number in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1
    assert caller.calls() == 1


async def test_another_body_path_or_door_is_refused(caller: Caller):
    await caller.post(CHAT, BODY, "k")
    for path, body in ((CHAT, BODY + b" "), ("/v1/tasks", TASK), ("/v1/tasks/tsk_1/cancel", b"")):
        refused = await caller.post(path, body, "k")
        assert (refused.status, refused.code) == (409, "idempotency_conflict"), path
    assert caller.calls() == 1


async def test_the_same_key_of_another_tenant_is_another_key(caller: Caller):
    first = await caller.post(CHAT, BODY, "k")
    other = await caller.post(CHAT, BODY, "k", tenant="globex")
    assert (other.status, other.replayed) == (200, False)
    assert other.task_id != first.task_id


async def test_a_request_that_is_refused_at_the_door_claims_nothing(caller: Caller):
    wrong = BODY.replace(b'"sim"', b'"nosuch"')
    assert (await caller.post(CHAT, wrong, "k")).code == "unknown_model"
    assert (await caller.post("/v1/tasks", b"{}", "k")).status == 400
    assert (await caller.post(CHAT, BODY, "ü".encode().decode("latin-1"))).code == "invalid_value"
    assert (await caller.post("/v1/tasks/x/cancel", b"", "x" * 256)).code == "invalid_value"
    assert await caller.claim("k") is None
    assert (await caller.post(CHAT, BODY, "k")).status == 200


async def test_a_failure_is_repeated_too(caller: Caller):
    caller.platform.sim.script(Rule(Behaviour(status=401)))
    first = await caller.post(CHAT, BODY, "k")
    second = await caller.post(CHAT, BODY, "k")
    assert (first.status, first.code) == (second.status, second.code) == (502, "upstream_auth")
    assert second.task_id == first.task_id
    assert caller.calls() == 1


async def test_a_stream_again_replays_its_text(caller: Caller):
    caller.platform.sim.script(Rule(Behaviour(answer="one two three", token_delay_ms=10)))
    first = await caller.post(CHAT, STREAM, "k")
    second = await caller.post(CHAT, STREAM, "k")
    assert (text_of(first), text_of(second)) == ("one two three", "one two three")
    assert (second.replayed, second.task_id) == (True, first.task_id)
    assert second.body.endswith(b"data: [DONE]\n\n")
    assert caller.calls() == 1


async def test_a_stream_that_joins_a_running_one_ends_with_the_same_text(caller: Caller):
    await caller.another_gateway()
    caller.platform.sim.script(Rule(Behaviour(answer="word " * 20, token_delay_ms=20)))
    first = asyncio.create_task(caller.post(CHAT, STREAM, "k"))
    await eventually(lambda: caller.calls() == 1)
    second = await caller.post(CHAT, STREAM, "k", door=1)
    assert text_of(second) == text_of(await first) == "word " * 20
    assert caller.calls() == 1


async def test_a_keyed_stream_outlives_its_client(caller: Caller):
    caller.platform.sim.script(Rule(Behaviour(answer="one two three four", token_delay_ms=50)))
    leaving = asyncio.create_task(caller.post(CHAT, STREAM, "k"))
    await eventually(lambda: caller.calls() == 1)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert text_of(await caller.post(CHAT, STREAM, "k")) == "one two three four"
    assert (caller.calls(), caller.platform.sim.counts().totals.aborted) == (1, 0)


async def test_a_task_again_is_the_same_promise(caller: Caller):
    first = await caller.post("/v1/tasks", TASK, "k")
    second = await caller.post("/v1/tasks", TASK, "k")
    assert (first.status, second.status, second.replayed) == (202, 202, True)
    assert second.body == first.body
    waited = await caller.post("/v1/tasks", TASK, "k", Prefer="wait=10")
    assert (waited.status, msgspec.json.decode(waited.body)["state"]) == (200, "completed")
    assert caller.calls() == 1


@pytest.mark.parametrize(("path", "body"), [(CHAT, BODY), (CHAT, STREAM), ("/v1/tasks", TASK)])
async def test_a_claim_that_was_never_stored_is_taken_over_under_its_id(caller: Caller, path: str, body: bytes):
    task_id = await caller.leave_claim("k", path, body, age_ms=30_000)
    answers = await asyncio.gather(*(caller.post(path, body, "k") for _ in range(5)))
    assert {answer.task_id for answer in answers} == {task_id}
    assert {answer.status for answer in answers} <= {200, 202}
    assert [answer.replayed for answer in answers].count(False) == 1
    claim = await caller.claim("k")
    assert claim is not None
    assert claim.state == "stored"
    found = await caller.platform.settled(caller.platform.submission("", id=task_id).task)
    assert found.task.id == task_id
    assert caller.calls() == 1


async def test_a_task_that_was_stored_before_its_gateway_died_is_not_stored_again(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
):
    task_id = await caller.leave_claim("k", CHAT, BODY, age_ms=300_000)
    task = await caller.platform.submit("first", id=task_id)
    await caller.platform.settled(task)
    # Beyond the duplicate window the broker would store a second message; the events of the task forbid to send it.
    published = counted(caller.platform.hosted("gateway").platform.publisher, monkeypatch)
    again = await caller.post(CHAT, BODY, "k")
    assert (again.status, again.task_id, caller.calls()) == (200, task_id, 1)
    assert [subject for subject in published if subject.startswith("task.submitted")] == []


async def test_a_task_in_hand_is_followed_after_a_takeover(caller: Caller):
    """Within the duplicate window the broker drops the second message, whoever sends it."""
    caller.platform.sim.script(Rule(Behaviour(answer="Paris.", delay_ms=500)))
    task_id = await caller.leave_claim("k", CHAT, BODY, age_ms=30_000)
    await caller.platform.submit("first", id=task_id)
    again = await caller.post(CHAT, BODY, "k")
    assert (again.status, again.task_id, caller.calls()) == (200, task_id, 1)


async def test_a_task_that_began_before_its_gateway_could_tell_of_it_is_told_of(caller: Caller):
    """The first gateway died between the task and its acceptance, which says where the callback goes."""
    body = b'{"input":"hello","callback_url":"https://example.org/hook"}'
    task_id = await caller.leave_claim("k", "/v1/tasks", body, age_ms=30_000)
    task = await caller.platform.submit("first", id=task_id, surface="tasks")
    await caller.platform.settled(task)
    again = await caller.post("/v1/tasks", body, "k")
    assert (again.status, again.task_id, caller.calls()) == (202, task_id, 1)
    accepted = [event for event in await caller.platform.events(task) if isinstance(event, TaskAccepted)]
    assert [event.callback is not None for event in accepted] == [True]


async def test_a_young_claim_is_waited_for(caller: Caller, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keyed_tasks, "FOR_TASKS", IMPATIENT)
    task_id = await caller.leave_claim("k", CHAT, BODY, age_ms=-600_000)
    again = await caller.post(CHAT, BODY, "k")
    assert (again.status, again.task_id, caller.calls()) == (200, task_id, 1)


async def test_a_key_is_free_again_where_the_queue_was_full(caller: Caller, monkeypatch: pytest.MonkeyPatch):
    publisher = caller.platform.hosted("gateway").platform.publisher
    publish = publisher.publish

    async def full(subject: str, payload: bytes, **options: Any) -> Any:
        raise QueueFullError("full")

    monkeypatch.setattr(publisher, "publish", full)
    assert (await caller.post(CHAT, BODY, "k")).code == "tenant_queue_full"
    monkeypatch.setattr(publisher, "publish", publish)
    assert (await caller.post(CHAT, BODY + b" ", "k")).status == 200
    assert caller.calls() == 1


async def test_a_full_bucket_refuses_keys_and_nothing_else(caller: Caller, monkeypatch: pytest.MonkeyPatch):
    async def full(*_arguments: Any, **_options: Any) -> Any:
        raise QueueFullError("full")

    monkeypatch.setattr(claimbook.Bucket, "put", full)
    refused = await caller.post(CHAT, BODY, "k")
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (429, "idempotency_full", "60")
    assert (await caller.post(CHAT, BODY, None)).status == 200


async def test_a_cancel_again_gets_the_first_reply(caller: Caller):
    caller.platform.sim.script(Rule(Behaviour(hang=True)))
    task_id = (await caller.post("/v1/tasks", TASK, None)).task_id
    path = f"/v1/tasks/{task_id}/cancel"
    first, second = await caller.post(path, b"", "k"), await caller.post(path, b"", "k")
    assert (first.status, first.replayed, second.status, second.replayed) == (200, False, 200, True)
    assert second.body == first.body
    assert second.headers["content-type"] == "application/json"
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert (await caller.post(path, b"", None)).code == "task_terminal"
    kept = await caller.post(path, b"", "other")
    assert (kept.code, (await caller.post(path, b"", "other")).replayed) == ("task_terminal", True)


async def test_a_defect_is_told_as_one_and_leaves_the_key_free(caller: Caller, monkeypatch: pytest.MonkeyPatch):
    app = caller.platform.app("gateway")

    async def broken(*_arguments: Any) -> Any:
        raise RuntimeError("broken")

    with monkeypatch.context() as patched:
        patched.setattr(app.tasks, "cancel", broken)
        refused = await caller.post("/v1/tasks/x/cancel", b"", "k")
    assert (refused.status, refused.code) == (500, "internal_error")
    assert (await caller.post("/v1/tasks/y/cancel", b"", "k")).code == "not_found"


async def test_a_routed_post_needs_a_right_key_of_ours_first(caller: Caller):
    refused = await caller.post("/v1/tasks/x/cancel", b"", "k", Authorization="Bearer nobody")
    assert (refused.status, refused.code) == (401, "invalid_api_key")
    assert refused.headers["x-request-id"]


def counted(publisher: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Takes down the subjects of what is published from now on."""
    subjects: list[str] = []
    publish = publisher.publish

    async def counting(subject: str, payload: bytes, **options: Any) -> Any:
        subjects.append(subject)
        return await publish(subject, payload, **options)

    monkeypatch.setattr(publisher, "publish", counting)
    return subjects


def text_of(answer: Answer) -> str:
    events = [line.removeprefix("data: ") for line in answer.body.decode().split("\n\n") if line]
    assert events.pop() == "[DONE]"
    chunks = [msgspec.json.decode(event) for event in events]
    assert all("error" not in chunk for chunk in chunks), chunks
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
