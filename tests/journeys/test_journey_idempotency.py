"""The same key and body through the whole platform, over two gateways and a crash: one task, one answer, one charge."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from collegium_bus.kv import Bucket
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.state import IdempotencyClaim
from collegium_gateway.admission.idempotency import claim_name, fingerprint
from collegium_runtime import runtime_file
from collegium_runtime.host import connect_as
from collegium_runtime.platform import unix_ms
from collegium_settings import Settings
from collegium_testing import eventually
from collegium_testing.platforms import ServedProcess
from collegium_testing.simulator import Behaviour, Rule

from tests.conftest import Stage

CHAT = "/v1/chat/completions"
QUESTION = {"model": "sim", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
BODY = msgspec.json.encode(QUESTION)
STREAM = msgspec.json.encode({**QUESTION, "stream": True})


class Answer(msgspec.Struct):
    status: int
    replayed: bool
    task_id: str
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


async def post(http: str, path: str, body: bytes, bearer: str, key: str) -> Answer:
    headers = {"Authorization": f"Bearer {bearer}", "Idempotency-Key": key}
    async with aiohttp.ClientSession(http) as session, session.post(path, data=body, headers=headers) as response:
        found = response.headers
        replayed = found.get("idempotent-replayed") == "true"
        return Answer(response.status, replayed, found.get("x-collegium-task-id", ""), await response.read())


def text_of(answer: Answer) -> str:
    chunks = [msgspec.json.decode(line[6:]) for line in answer.body.split(b"\n\n") if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@pytest.fixture(scope="module")
def second(_stage: Stage) -> Iterator[ServedProcess]:
    """A second gateway in a process of its own."""
    with _stage.platform.serving("gateway") as served:
        yield served


@pytest.fixture
def key() -> str:
    return secrets.token_hex(8)


async def totals(http: str, bearer: str) -> Any:
    async with (
        aiohttp.ClientSession(http, headers={"Authorization": f"Bearer {bearer}"}) as session,
        session.get("/v1/usage") as response,
    ):
        return (await response.json())["totals"]


async def test_a_second_gateway_has_ports_of_its_own(stage: Stage, second: ServedProcess):
    assert second.http != stage.http
    assert second.ready["grpc"] != stage.platform.ready["grpc"]
    async with aiohttp.ClientSession() as session:
        for address in (second.http, f"http://127.0.0.1:{second.ready['admin_ports']['gateway']}"):
            async with session.get(f"{address}/health/ready") as response:
                assert response.status == 200


async def test_a_new_tenants_key_is_shown_again_and_its_question_charged_once(
    stage: Stage, second: ServedProcess, key: str
):
    admin, tenant = stage.platform.admin_key, f"t-{key}"
    made = [
        await post(http, "/v1/admin/tenants", msgspec.json.encode({"id": tenant}), admin, key)
        for http in (stage.http, second.http)
    ]
    assert [(one.status, one.replayed) for one in made] == [(201, False), (201, True)]
    wanted = msgspec.json.encode({"tenant": tenant})
    doors = [stage.http, second.http] * 5
    keys = await asyncio.gather(*(post(http, "/v1/admin/keys", wanted, admin, f"{key}-key") for http in doors))
    assert [one.status for one in keys] == [201] * 10
    assert [one.replayed for one in keys].count(False) == 1
    (bearer,) = {one.json()["key"] for one in keys}
    assert (await post(stage.http, "/v1/admin/keys", b'{"tenant":"acme"}', admin, f"{key}-key")).status == 409

    async def let_in() -> Answer | None:
        answer = await post(second.http, CHAT, BODY, bearer, key)
        return answer if answer.status == 200 else None

    first = await eventually(let_in)
    again = await post(stage.http, CHAT, BODY, bearer, key)
    assert (again.body, again.task_id, again.replayed) == (first.body, first.task_id, True)
    assert stage.simulator.counts().totals.started == 1
    # A barrier: once this one is in the books, a second charge for the one before would be, too.
    await post(stage.http, CHAT, BODY, bearer, f"{key}-barrier")

    async def booked() -> Any:
        found = await totals(stage.http, bearer)
        return found if found["requests"] >= 2 else None

    books = await eventually(booked)
    cost = again.json()["collegium"]["cost_usd"]
    assert books["requests"] == 2
    assert float(books["charged_usd"]) == pytest.approx(2 * float(cost))


async def test_twenty_at_once_over_two_gateways_are_one_call(stage: Stage, second: ServedProcess, key: str):
    stage.simulator.script(Rule(Behaviour(answer="Paris.", delay_ms=300)))
    doors = [stage.http, second.http] * 10
    answers = await asyncio.gather(*(post(http, CHAT, BODY, stage.key, key) for http in doors))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1
    assert stage.simulator.counts().totals.started == 1
    other = await post(second.http, CHAT, BODY + b"\n", stage.key, key)
    assert (other.status, other.json()["error"]["code"]) == (409, "idempotency_conflict")


async def test_a_stream_and_its_double_bring_the_same_text(stage: Stage, second: ServedProcess, key: str):
    stage.simulator.script(Rule(Behaviour(answer="word " * 20, token_delay_ms=20)))
    first, double = await asyncio.gather(
        *(post(http, CHAT, STREAM, stage.key, key) for http in (stage.http, second.http))
    )
    late = await post(stage.http, CHAT, STREAM, stage.key, key)
    assert text_of(first) == text_of(double) == text_of(late) == "word " * 20
    assert {first.task_id, double.task_id} == {late.task_id}
    assert stage.simulator.counts().totals.started == 1


async def test_a_gateway_killed_in_the_middle_leaves_its_answer_to_the_other(stage: Stage, key: str):
    stage.simulator.script(Rule(Behaviour(answer="Paris.", delay_ms=700)))
    with stage.platform.serving("gateway") as doomed:
        lost = asyncio.create_task(post(doomed.http, CHAT, BODY, stage.key, key))

        async def called() -> bool:
            return stage.simulator.counts().totals.started == 1

        await eventually(called)
        doomed.process.kill()
        with pytest.raises(aiohttp.ClientError):
            await lost
    answer = await post(stage.http, CHAT, BODY, stage.key, key)
    assert (answer.status, answer.replayed) == (200, True)
    assert answer.json()["choices"][0]["message"]["content"] == "Paris."
    assert stage.simulator.counts().totals.started == 1


async def test_a_gateway_that_died_between_claim_and_task_costs_a_retry(stage: Stage, second: ServedProcess, key: str):
    task_id = await leave_claim(stage, key)
    doors = [stage.http, second.http] * 3
    answers = await asyncio.gather(*(post(http, CHAT, BODY, stage.key, key) for http in doors))
    assert {(answer.status, answer.task_id) for answer in answers} == {(200, task_id)}
    assert stage.simulator.counts().totals.started == 1


async def leave_claim(stage: Stage, key: str) -> str:
    """Puts what a gateway leaves that died after its claim, half a minute ago; returns the claim's task id."""
    then = unix_ms() - 30_000
    claim = IdempotencyClaim(
        fingerprint=fingerprint(key, "POST", CHAT, BODY),
        state="claimed",
        holder="dead.1",
        created_at_ms=then,
        changed_at_ms=then,
        task_id=ids.task_id_from_key("acme", key, then),
    )
    folder: Path = stage.platform.folder
    runtime = runtime_file.read(folder)
    assert runtime is not None
    connection = await connect_as("operator", Settings(data_dir=folder), runtime)
    try:
        bucket = Bucket(connection, s.KV_IDEMPOTENCY)
        await bucket.put(claim_name("acme", key), codec.encode(claim), expected_revision=0)
    finally:
        await connection.close()
    return claim.task_id
