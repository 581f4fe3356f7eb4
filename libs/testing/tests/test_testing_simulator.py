"""The simulator as its clients see it: the official `openai` client, and sockets where it hides too much."""

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import ClientPayloadError, ClientResponse, ClientSession
from collegium_testing import Behaviour, ModelSimulator, Recording, Rule, eventually
from collegium_testing.simulator import RecordedUsage, ToolCall
from openai import AsyncOpenAI


@pytest.fixture
async def simulator() -> AsyncIterator[ModelSimulator]:
    async with ModelSimulator() as running:
        yield running


@pytest.fixture
async def client(simulator: ModelSimulator) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=simulator.base_url, api_key="any", max_retries=0, timeout=10) as made:
        yield made


def ask(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def test_a_plain_answer_with_usage(simulator: ModelSimulator, client: AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(
        model="m", messages=ask("Hello there"), extra_headers={"x-request-id": "r1", "x-collegium-attempt": "t1/1"}
    )
    assert reply.model == "m"
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.choices[0].message.content or "").startswith("Hello there: ")
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (2, 10, 12)
    counts = simulator.counts()
    served = counts.models["m"]
    assert (served.started, served.completed, served.open) == (1, 1, 0)
    assert (served.prompt_tokens, served.completion_tokens) == (2, 10)
    (call,) = counts.requests
    assert (call.number, call.outcome, call.request_id, call.attempt) == (1, "completed", "r1", "t1/1")
    assert [(message.role, message.text()) for message in call.messages] == [("user", "Hello there")]


async def test_a_streamed_answer_is_the_plain_one(client: AsyncOpenAI) -> None:
    plain = await client.chat.completions.create(model="m", messages=ask("Hello there"))
    chunks = [
        chunk
        async for chunk in await client.chat.completions.create(
            model="m", messages=ask("Hello there"), stream=True, stream_options={"include_usage": True}
        )
    ]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == plain.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert (chunks[-1].choices, chunks[-1].usage) == ([], plain.usage)
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_without_include_usage_a_stream_has_none(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="m", messages=ask("Hi"), stream=True)
    assert all([chunk.usage is None and chunk.choices async for chunk in stream])


@pytest.mark.parametrize("stream", [False, True])
async def test_n_answers_differ_and_are_counted_together(
    simulator: ModelSimulator, client: AsyncOpenAI, stream: bool
) -> None:
    texts = ["", "", ""]
    if stream:
        async for chunk in await client.chat.completions.create(model="m", messages=ask("Hi"), n=3, stream=True):
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    else:
        reply = await client.chat.completions.create(model="m", messages=ask("Hi"), n=3)
        texts = [choice.message.content or "" for choice in reply.choices]
    assert len(set(texts)) == 3
    assert simulator.counts().models["m"].completion_tokens == 27


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_max_tokens_cuts_the_answer(simulator: ModelSimulator, client: AsyncOpenAI, name: str) -> None:
    simulator.script(Rule(Behaviour(answer="one two three four", ignore_max_tokens=True), model="deaf"))
    simulator.record(Recording("count", {"m": "one two three four"}))
    limit: Any = {name: 2}
    reply = await client.chat.completions.create(model="m", messages=ask("count"), **limit)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("one two", "length")
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 2
    deaf = await client.chat.completions.create(model="deaf", messages=ask("count"), **limit)
    assert (deaf.choices[0].message.content, deaf.choices[0].finish_reason) == ("one two three four", "stop")


async def test_recorded_answers_usage_and_cost(simulator: ModelSimulator, client: AsyncOpenAI) -> None:
    usage = RecordedUsage(prompt_tokens=100, completion_tokens=50, cached_tokens=80, cost_usd=0.25)
    simulator.record(Recording("2+2?", {"a": "4", "*": "5"}, usage))
    earlier: Any = [{"role": "system", "content": "Be brief."}, *ask("Hi"), {"role": "assistant", "content": "Hi."}]
    reply = await client.chat.completions.create(model="a", messages=earlier + ask("2+2?"))
    assert reply.choices[0].message.content == "4"
    assert reply.usage is not None
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens == 80
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (100, 50)
    other = await client.chat.completions.create(model="b", messages=ask("2+2?"))
    assert other.choices[0].message.content == "5"
    assert simulator.counts().totals.cost_usd == 0.5
    assert simulator.counts().models["a"].cached_tokens == 80


async def test_a_transcript_shows_what_the_model_saw(simulator: ModelSimulator, client: AsyncOpenAI) -> None:
    simulator.script(Rule("transcript"))
    parts: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    reply = await client.chat.completions.create(model="m", messages=parts)
    assert reply.choices[0].message.content == "system: Be brief.\nuser: Hi"


async def test_tool_calls(simulator: ModelSimulator, client: AsyncOpenAI) -> None:
    wanted = (ToolCall("add", '{"a": 1}'), ToolCall("now"))
    simulator.script(Rule(Behaviour(tool_calls=wanted)))
    reply = await client.chat.completions.create(model="m", messages=ask("Hi"))
    (choice,) = reply.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    calls: Any = choice.message.tool_calls
    assert [ToolCall(call.function.name, call.function.arguments) for call in calls] == list(wanted)
    deltas: list[Any] = []
    async for chunk in await client.chat.completions.create(model="m", messages=ask("Hi"), stream=True):
        deltas += chunk.choices[0].delta.tool_calls or []
    assert [(delta.index, delta.function.name) for delta in deltas] == [(0, "add"), (1, "now")]
    assert simulator.counts().models["m"].completion_tokens == 2 * 5


async def test_scripted_errors_reach_the_client_typed(simulator: ModelSimulator, client: AsyncOpenAI) -> None:
    cases: list[tuple[Rule, type[openai.APIStatusError], str]] = [
        (Rule(Behaviour(status=429, retry_after_seconds=7)), openai.RateLimitError, "rate_limit_exceeded"),
        (Rule("server_error"), openai.InternalServerError, "server_error"),
        (Rule("context_length"), openai.BadRequestError, "context_length_exceeded"),
        (Rule("unauthorized"), openai.AuthenticationError, "invalid_api_key"),
        (Rule(Behaviour(status=503, error_code="overloaded")), openai.InternalServerError, "overloaded"),
    ]
    for rule, kind, code in cases:
        simulator.script(rule)
        for stream in (False, True):
            with pytest.raises(kind) as caught:
                await client.chat.completions.create(model="m", messages=ask("Hi"), stream=stream)
            assert caught.value.code == code
            if kind is openai.RateLimitError:
                assert caught.value.response.headers["retry-after"] == "7"
    counts = simulator.counts().models["m"]
    assert (counts.started, counts.failed, counts.prompt_tokens) == (10, 10, 0)


async def test_the_client_gets_through_after_a_rule_is_used_up(simulator: ModelSimulator) -> None:
    simulator.script(Rule(Behaviour(status=429, retry_after_seconds=0.01), times=2))
    async with AsyncOpenAI(base_url=simulator.base_url, api_key="any", max_retries=2) as client:
        assert (await client.chat.completions.create(model="m", messages=ask("Hi"))).choices
    assert (simulator.counts().totals.failed, simulator.counts().totals.completed) == (2, 1)


async def test_no_usage(simulator: ModelSimulator, client: AsyncOpenAI) -> None:
    simulator.script(Rule("no_usage"))
    assert (await client.chat.completions.create(model="m", messages=ask("Hi"))).usage is None
    stream = await client.chat.completions.create(
        model="m", messages=ask("Hi"), stream=True, stream_options={"include_usage": True}
    )
    assert all([chunk.choices and chunk.usage is None async for chunk in stream])
    assert simulator.counts().models["m"].completion_tokens == 18


@pytest.mark.parametrize(("kind", "start"), [("json", b'{"id"'), ("shape", b'{"object"'), ("html", b"<!doctype html>")])
async def test_garbage(simulator: ModelSimulator, kind: Any, start: bytes) -> None:
    simulator.script(Rule(Behaviour(garbage=kind)))
    async with (
        ClientSession() as session,
        session.post(f"{simulator.base_url}/chat/completions", json={"model": "m", "messages": ask("Hi")}) as reply,
    ):
        assert reply.status == 200
        assert (await reply.read()).startswith(start)
    assert simulator.counts().models["m"].failed == 1


async def test_a_cut_stream_ends_without_done(simulator: ModelSimulator) -> None:
    simulator.script(Rule(Behaviour(cut_stream_after=3)))
    body = {"model": "m", "messages": ask("Hi there you"), "stream": True}
    received: list[bytes] = []

    async def read(reply: ClientResponse) -> None:
        async for data in reply.content.iter_any():
            received.append(data)

    async with ClientSession() as session:
        async with session.post(f"{simulator.base_url}/chat/completions", json=body) as reply:
            with pytest.raises(ClientPayloadError):
                await read(reply)
        assert b"".join(received).count(b"data: ") == 4
        assert b"[DONE]" not in b"".join(received)
        async with session.post(f"{simulator.base_url}/chat/completions", json=body | {"stream": False}) as reply:
            with pytest.raises(ClientPayloadError):
                await reply.read()
    counts = simulator.counts().models["m"]
    assert (counts.failed, counts.partial_prompt_tokens, counts.partial_completion_tokens) == (2, 6, 3)


async def test_a_hanging_call_is_aborted_when_the_client_goes(simulator: ModelSimulator, client: AsyncOpenAI) -> None:
    simulator.script(Rule("hang"))
    call = asyncio.create_task(client.chat.completions.create(model="m", messages=ask("Hi there")))
    await eventually(lambda: simulator.counts().totals.started == 1)
    assert simulator.counts().requests[0].outcome == "open"
    call.cancel()
    await eventually(lambda: simulator.counts().totals.aborted == 1)
    assert simulator.counts().totals.open == 0
    assert simulator.counts().totals.partial_prompt_tokens == 2


async def test_a_disconnect_in_mid_stream_is_seen_and_ends_the_answer(
    simulator: ModelSimulator, client: AsyncOpenAI
) -> None:
    simulator.script(Rule(Behaviour(answer="word " * 10_000, token_delay_ms=1)))
    stream = await client.chat.completions.create(model="m", messages=ask("Hi"), stream=True)
    chunks = [await anext(stream) for _ in range(4)]
    assert chunks[3].choices[0].delta.content == " word"
    await stream.close()
    counts = await eventually(lambda: simulator.counts() if simulator.counts().totals.aborted else None)
    assert 3 <= counts.totals.partial_completion_tokens < 10_000
    assert counts.requests[0].outcome == "aborted"
    assert simulator.counts().totals.partial_completion_tokens == counts.totals.partial_completion_tokens


async def test_delays_come_before_the_first_byte_and_between_chunks(
    simulator: ModelSimulator, client: AsyncOpenAI
) -> None:
    simulator.script(Rule(Behaviour(answer="a b c", delay_ms=60, token_delay_ms=40)))
    clock = asyncio.get_running_loop().time
    begin = clock()
    stream = await client.chat.completions.create(model="m", messages=ask("Hi"), stream=True)
    assert clock() - begin >= 0.055
    assert len([chunk async for chunk in stream]) == 5
    assert clock() - begin >= 0.130


async def test_embeddings_are_deterministic_and_sized(simulator: ModelSimulator, client: AsyncOpenAI) -> None:
    as_base64 = await client.embeddings.create(model="e", input=["red apple", "engine oil"])
    as_floats = await client.embeddings.create(model="e", input=["red apple", "engine oil"], encoding_format="float")
    assert [item.embedding for item in as_base64.data] == [pytest.approx(item.embedding) for item in as_floats.data]
    assert len(as_floats.data[0].embedding) == 384
    assert as_floats.usage.prompt_tokens == 4
    assert len((await client.embeddings.create(model="e", input=[1, 2, 3], dimensions=16)).data[0].embedding) == 16
    counts = simulator.counts()
    assert (counts.models["e"].completed, counts.models["e"].prompt_tokens) == (3, 11)
    assert counts.requests[0].input == ["red apple", "engine oil"]
    simulator.script(Rule("server_error"))
    with pytest.raises(openai.InternalServerError):
        await client.embeddings.create(model="e", input="x")


async def test_a_fixed_roster_and_a_key() -> None:
    async with ModelSimulator(api_key="secret", models=["a", "b"]) as simulator:
        async with AsyncOpenAI(base_url=simulator.base_url, api_key="wrong", max_retries=0) as stranger:
            with pytest.raises(openai.AuthenticationError):
                await stranger.models.list()
        async with AsyncOpenAI(base_url=simulator.base_url, api_key="secret", max_retries=0) as client:
            assert [model.id async for model in client.models.list()] == ["a", "b"]
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="c", messages=ask("Hi"))
        assert simulator.counts().totals.started == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b'{"model": 1, "messages": []}', 400),
        ("POST", "/v1/chat/completions", b'{"model": "m", "messages": []}', 400),
        (
            "POST",
            "/v1/chat/completions",
            b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 0}',
            400,
        ),
        (
            "POST",
            "/v1/chat/completions",
            b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":0}',
            400,
        ),
        ("POST", "/v1/embeddings", b'{"model": "m", "input": "x", "dimensions": 100000}', 400),
        ("GET", "/v1/chat/completions", b"", 405),
        ("POST", "/v1/nothing", b"", 404),
        ("POST", "/control/script", b'[{"behaviour": "nonsense"}]', 400),
    ],
)
async def test_bad_requests_get_typed_errors(
    simulator: ModelSimulator, method: str, path: str, body: bytes, status: int
) -> None:
    async with ClientSession() as session, session.request(method, simulator.url + path, data=body) as reply:
        assert reply.status == status
        assert (await reply.json())["error"]["type"] == "invalid_request_error"
    assert simulator.counts().totals.started == 0


async def test_the_control_api(simulator: ModelSimulator, client: AsyncOpenAI) -> None:
    async with ClientSession() as session:
        script = {
            "rules": [{"behaviour": {"answer": "scripted"}, "model": "m", "times": 1}],
            "recordings": [{"input": "Hi", "answers": {"*": "recorded"}}],
        }
        async with session.post(f"{simulator.url}/control/script", json=script) as reply:
            assert await reply.json() == {"rules": 1, "recordings": 1}
        for said in ("scripted", "recorded", "recorded"):
            answer = await client.chat.completions.create(model="m", messages=ask("Hi"))
            assert answer.choices[0].message.content == said
        async with session.get(f"{simulator.url}/control/counts?requests=2") as reply:
            counts = await reply.json()
        assert counts["models"]["m"]["completed"] == counts["totals"]["completed"] == 3
        assert [call["number"] for call in counts["requests"]] == [2, 3]
        assert counts["requests"][0]["messages"] == [{"role": "user", "content": "Hi"}]
        async with session.post(f"{simulator.url}/control/script", json=[{"behaviour": {"answer": "listed"}}]) as reply:
            assert await reply.json() == {"rules": 1, "recordings": 0}
        answer = await client.chat.completions.create(model="other", messages=ask("Hi"))
        assert answer.choices[0].message.content == "listed"
        async with session.post(f"{simulator.url}/control/reset") as reply:
            assert reply.status == 200
        assert simulator.counts().models == {}


async def test_a_call_open_over_a_reset_is_not_counted_after_it(simulator: ModelSimulator, client: AsyncOpenAI) -> None:
    simulator.script(Rule("hang"))
    call = asyncio.create_task(client.chat.completions.create(model="m", messages=ask("Hi")))
    await eventually(lambda: simulator.counts().totals.started == 1)
    simulator.reset()
    call.cancel()
    await eventually(lambda: simulator.counts().connections_open == 0)
    assert (simulator.counts().totals.started, simulator.counts().totals.aborted) == (0, 0)


async def test_the_log_is_bounded() -> None:
    async with (
        ModelSimulator(max_logged_calls=2) as simulator,
        AsyncOpenAI(base_url=simulator.base_url, api_key="any") as client,
    ):
        for _ in range(3):
            await client.chat.completions.create(model="m", messages=ask("Hi"))
        assert [call.number for call in simulator.counts().requests] == [2, 3]
        assert simulator.counts().totals.completed == 3


def test_the_command_serves_a_script_and_ends_on_sigterm(tmp_path: Path) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text('{"input": "Hi", "answers": {"m": "Hello."}}\n')
    command = [sys.executable, "-m", "collegium_testing.simulator", "--script", str(path), "--api-key", "k"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["ready"] is True
        request = urllib.request.Request(
            f"{ready['base_url']}/chat/completions",
            json.dumps({"model": "m", "messages": ask("Hi")}).encode(),
            {"authorization": "Bearer k"},
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert json.load(reply)["choices"][0]["message"]["content"] == "Hello."
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_the_command_names_a_wrong_script(tmp_path: Path) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text("{}\n")
    command = [sys.executable, "-m", "collegium_testing.simulator", "--script", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "script.jsonl:1: " in ended.stderr
