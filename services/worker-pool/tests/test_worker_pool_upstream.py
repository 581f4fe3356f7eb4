"""The pooled client against the simulator: each way a call can end has its code."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from collegium_contracts.messages import Sampling
from collegium_testing import Behaviour, ModelSimulator, Rule, eventually
from collegium_testing.simulator import ToolCall
from collegium_worker_pool.upstream import upstream as upstream_module
from collegium_worker_pool.upstream.endpoints import Endpoint
from collegium_worker_pool.upstream.failures import CallFailed
from collegium_worker_pool.upstream.upstream import CallResult, Upstream
from collegium_worker_pool.upstream.wire import StreamedAnswer, request_body

PROMPT = b'[{"role":"user","content":"What is the capital of France?"}]'


class Caller:
    """A client with an endpoint, and what was passed on of the streams."""

    def __init__(self, simulator: ModelSimulator, upstream: Upstream) -> None:
        self.simulator = simulator
        self.upstream = upstream
        self.endpoint = Endpoint(
            url=f"{simulator.base_url}/chat/completions",
            headers={"Content-Type": "application/json"},
            upstream_model="real-name",
            provider="openai-compatible",
            timeout_seconds=5,
            concurrency=None,
        )
        self.passed_on: list[str] = []
        self.streamed = StreamedAnswer()

    def behave(self, **behaviour: Any) -> None:
        self.simulator.script(Rule(Behaviour(**behaviour)))

    async def call(self, *, stream: bool, n: int = 1, max_tokens: int = 100) -> CallResult:
        body = request_body("real-name", PROMPT, None, Sampling(max_tokens=max_tokens, n=n, stream=stream))
        if not stream:
            return await self.upstream.complete("m", self.endpoint, body, {"x-request-id": "tsk_1"})
        self.streamed = StreamedAnswer()
        return await self.upstream.stream(
            "m", self.endpoint, body, {"x-request-id": "tsk_1"}, into=self.streamed, on_text=self.passed_on.append
        )

    async def failure(self, *, stream: bool) -> Any:
        with pytest.raises(CallFailed) as raised:
            await self.call(stream=stream)
        return raised.value.error


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with ModelSimulator() as simulator:
        upstream = Upstream()
        await upstream.open()
        yield Caller(simulator, upstream)
        await upstream.close()


both = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


@both
async def test_an_answer_comes_with_the_endpoints_usage_and_name(caller: Caller, stream: bool):
    caller.behave(answer="Paris, of course.", cached_tokens=2)
    result = await caller.call(stream=stream)
    assert [choice.text for choice in result.answer.choices] == ["Paris, of course."]
    assert (result.model, result.answer.choices[0].finish_reason) == ("real-name", "stop")
    counted = caller.simulator.counts().models["real-name"]
    assert result.usage is not None
    assert result.usage.prompt_tokens == counted.prompt_tokens
    assert result.usage.completion_tokens == counted.completion_tokens
    assert result.usage.prompt_tokens_details is not None
    assert result.usage.prompt_tokens_details.cached_tokens == 2
    assert "".join(caller.passed_on) == ("Paris, of course." if stream else "")
    assert caller.simulator.counts().requests[0].request_id == "tsk_1"


@both
async def test_usage_that_the_endpoint_does_not_give_is_none(caller: Caller, stream: bool):
    caller.behave(answer="Paris.", no_usage=True)
    assert (await caller.call(stream=stream)).usage is None


@both
async def test_the_bound_ends_an_answer(caller: Caller, stream: bool):
    caller.behave(answer="one two three four")
    result = await caller.call(stream=stream, max_tokens=2)
    assert result.answer.choices[0].finish_reason == "length"


async def test_a_streams_first_token_is_timed(caller: Caller):
    caller.behave(answer="one two three four", delay_ms=30, token_delay_ms=40)
    began = time.monotonic()
    await caller.call(stream=True)
    took = time.monotonic() - began
    first = caller.streamed.first_token_seconds
    assert first is not None
    assert 0.03 <= first <= took - 0.08, "three more tokens came after it"


async def test_a_stream_that_is_refused_has_no_first_token(caller: Caller):
    caller.behave(status=400)
    await caller.failure(stream=True)
    assert caller.streamed.first_token_seconds is None


@both
async def test_several_choices(caller: Caller, stream: bool):
    result = await caller.call(stream=stream, n=3)
    assert len({choice.text for choice in result.answer.choices}) == 3


@both
async def test_tool_calls(caller: Caller, stream: bool):
    caller.behave(tool_calls=(ToolCall("weather", '{"city":"Paris"}'), ToolCall("time")))
    (choice,) = (await caller.call(stream=stream)).answer.choices
    calls = b"".join(bytes(call) for call in choice.tool_calls or ())
    assert choice.finish_reason == "tool_calls"
    assert calls.count(b'"type":"function"') == 2
    assert b'"arguments":"{\\"city\\":\\"Paris\\"}"' in calls


@both
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "context_length_exceeded"),
        (401, "upstream_auth"),
        (403, "upstream_auth"),
        (404, "upstream_rejected"),
        (429, "upstream_rate_limited"),
        (500, "upstream_error"),
        (503, "upstream_error"),
    ],
)
async def test_an_error_status(caller: Caller, stream: bool, status: int, code: str):
    caller.behave(status=status, retry_after_seconds=7)
    error = await caller.failure(stream=stream)
    assert (error.code, error.upstream_status, error.retry_after_seconds) == (code, status, 7.0)


@pytest.mark.parametrize("kind", ["json", "shape", "html"])
async def test_a_plain_answer_that_is_no_completion(caller: Caller, kind: str):
    caller.behave(garbage=kind)
    assert (await caller.failure(stream=False)).code == "upstream_garbage"


@pytest.mark.parametrize("kind", ["json", "shape", "html"])
async def test_a_stream_without_events_is_cut(caller: Caller, kind: str):
    caller.behave(garbage=kind)
    assert (await caller.failure(stream=True)).code == "upstream_cut"


async def test_a_cut_stream_keeps_what_came(caller: Caller):
    caller.behave(answer="one two three four five", cut_stream_after=3)
    error = await caller.failure(stream=True)
    assert error.code == "upstream_cut"
    assert caller.streamed.text == "".join(caller.passed_on)
    assert caller.streamed.text.startswith("one two three")
    assert "five" not in caller.streamed.text
    assert str(len(caller.streamed.text)) in error.message


async def test_a_plain_answer_cut_in_its_middle(caller: Caller):
    caller.behave(answer="one two three", cut_stream_after=1)
    assert (await caller.failure(stream=False)).code == "upstream_cut"


@both
async def test_a_call_that_hangs_ends_with_its_scope_and_is_aborted_upstream(caller: Caller, stream: bool):
    caller.behave(hang=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await caller.call(stream=stream)
    await eventually(lambda: caller.simulator.counts().totals.aborted == 1)
    await eventually(lambda: caller.simulator.counts().connections_open == 0)


async def test_a_scope_that_ends_within_a_stream_keeps_what_came(caller: Caller):
    caller.behave(answer="one two three", token_delay_ms=60_000)
    call = asyncio.create_task(caller.call(stream=True))
    await eventually(lambda: caller.passed_on)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert caller.streamed.text == "".join(caller.passed_on) != ""
    await eventually(lambda: caller.simulator.counts().totals.aborted == 1)


async def test_nobody_at_the_address(caller: Caller, unused_tcp_port: int):
    caller.endpoint = msgspec.structs.replace(caller.endpoint, url=f"http://127.0.0.1:{unused_tcp_port}/v1")
    error = await caller.failure(stream=False)
    assert error.code == "upstream_unreachable"
    assert str(unused_tcp_port) not in error.message, "where an endpoint is, is the operator's business"


@both
async def test_an_answer_over_the_bound_is_not_taken(caller: Caller, stream: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upstream_module, "MAX_ANSWER_BYTES", 10_000)
    caller.behave(answer="word " * 20_000, ignore_max_tokens=True)
    error = await caller.failure(stream=stream)
    assert error.code == "upstream_garbage"
    assert "10000 bytes" in error.message
    assert len(caller.streamed.text) <= 10_000 + len("word ")
    if stream:
        await eventually(lambda: caller.simulator.counts().connections_open == 0)


@pytest.fixture
async def odd_endpoint(caller: Caller) -> AsyncIterator[Callable[[bytes], None]]:
    """Gives a way to say what an endpoint that is not the simulator answers, with status 200."""
    said = b""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=said)

    def say(body: bytes) -> None:
        nonlocal said
        said = body

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with TestServer(app) as server:
        caller.endpoint = msgspec.structs.replace(caller.endpoint, url=str(server.make_url("/v1/chat/completions")))
        yield say
        await caller.upstream.close()


async def test_an_answer_without_choices(caller: Caller, odd_endpoint: Callable[[bytes], None]):
    odd_endpoint(b'{"model":"x","choices":[]}')
    assert (await caller.failure(stream=False)).code == "upstream_garbage"


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (b'data: {"error":{"message":"overloaded","code":529}}', "upstream_error"),
        (b'data: {"choices":"none"}', "upstream_garbage"),
        (b"data: <html>", "upstream_garbage"),
        (b"data: [DONE]", "upstream_cut"),
        (b"", "upstream_cut"),
    ],
)
async def test_a_stream_that_goes_wrong_after_its_start(
    caller: Caller, odd_endpoint: Callable[[bytes], None], event: bytes, code: str
):
    odd_endpoint(b': hello\n\ndata: {"choices":[{"delta":{"content":"half"}}]}\n\n' + event + b"\n\n")
    error = await caller.failure(stream=True)
    assert error.code == code
    assert caller.streamed.text == "half"


async def test_a_stream_may_have_comments_and_lines_of_any_ending(
    caller: Caller, odd_endpoint: Callable[[bytes], None]
):
    odd_endpoint(
        b': keep-alive\r\n\r\nevent: x\r\ndata:{"choices":[{"delta":{"content":"all"}}]}\r\n\r\n'
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )
    assert (await caller.call(stream=True)).answer.choices[0].text == "all"


async def test_an_event_that_comes_in_pieces_is_put_together(caller: Caller, odd_endpoint: Callable[[bytes], None]):
    # More than one network read, cut wherever it may be.
    events = [b'data: {"choices":[{"delta":{"content":"%06d "}}]}\n\n' % number for number in range(20_000)]
    odd_endpoint(b"".join(events) + b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
    text = (await caller.call(stream=True)).answer.choices[0].text
    assert text == "".join(f"{number:06d} " for number in range(20_000))


async def test_an_event_without_an_end_is_not_taken(
    caller: Caller, odd_endpoint: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(upstream_module, "MAX_EVENT_BYTES", 10_000)
    odd_endpoint(b'data: {"choices":[{"delta":{"content":"' + b"a" * 300_000)
    assert (await caller.failure(stream=True)).code == "upstream_garbage"


async def test_connections_are_used_again(caller: Caller):
    for number in range(6):
        await caller.call(stream=number % 2 == 0)
    counts = caller.simulator.counts()
    assert (counts.totals.completed, counts.connections_open) == (6, 1)


async def test_after_an_error_the_connection_is_used_again(caller: Caller):
    caller.simulator.script(Rule(Behaviour(status=500), times=3), Rule(Behaviour(answer="ok")))
    for _ in range(3):
        await caller.failure(stream=False)
    await caller.call(stream=False)
    assert caller.simulator.counts().connections_open == 1


async def test_the_key_is_sent_and_never_told(caller: Caller):
    async with ModelSimulator(api_key="sk-right") as guarded:
        url = f"{guarded.base_url}/chat/completions"
        caller.endpoint = msgspec.structs.replace(
            caller.endpoint, url=url, headers={**caller.endpoint.headers, "Authorization": "Bearer sk-wrong-key"}
        )
        error = await caller.failure(stream=False)
        assert error.code == "upstream_auth"
        assert "sk-wrong-key" not in error.message
        caller.endpoint = msgspec.structs.replace(
            caller.endpoint, headers={**caller.endpoint.headers, "Authorization": "Bearer sk-right"}
        )
        await caller.call(stream=False)
        # The connections of the pool outlast this endpoint.
        await caller.upstream.close()
