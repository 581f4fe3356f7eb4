"""Reused answers through the doors: who gets one, one call for many, replayed streams, and what is told of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import msgspec
import pytest
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.messages import AnswersReused
from collegium_contracts.state import Breaker, CachedAnswer
from collegium_gateway.admission.admission import asked_by_chat
from collegium_gateway.admission.requests import decode_chat, parse
from collegium_protocol.v1.chat_pb2 import ChatMessage, ChatRequest, Options, StreamOptions
from collegium_protocol.v1.chat_pb2_grpc import ChatStub
from collegium_settings.settings import CacheSettings
from collegium_testing import Behaviour, Rule, eventually
from collegium_testing.platform import RunningPlatform
from collegium_testing.simulator import ToolCall

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "sim", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
LONG = "It is Paris, which has been the capital of France for most of its history, and lies on the Seine. " * 4


@pytest.fixture
async def platform(clean_nats_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[RunningPlatform]:
    async with RunningPlatform(clean_nats_url, database_url, folder=tmp_path, cache=CacheSettings()) as running:
        yield running


async def ask(platform: RunningPlatform, body: dict[str, Any] = ASK, tenant: str = "acme", **headers: str) -> Any:
    async with platform.session(tenant) as http, http.post(CHAT, json=body, headers=headers) as response:
        assert response.headers.get("x-collegium-cache-stale") is None
        answer = await response.json()
        if response.status == 200:
            assert response.headers["x-collegium-cache"] == answer["collegium"]["cache"]
        return answer


async def stream(platform: RunningPlatform, body: dict[str, Any] = ASK, **fields: Any) -> tuple[str, list[Any]]:
    """Returns the header of a stream and its chunks."""
    async with platform.session() as http, http.post(CHAT, json=body | {"stream": True} | fields) as response:
        text = await response.text()
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return response.headers["x-collegium-cache"], [msgspec.json.decode(line) for line in lines[:-1]]


def options(**fields: Any) -> dict[str, Any]:
    return ASK | {"collegium": fields}


def cache_of(answer: Any) -> str:
    return answer["collegium"]["cache"]


def calls(platform: RunningPlatform) -> int:
    return platform.sim.counts().totals.started


async def test_a_stream_that_is_given_again_says_all_in_its_headers(platform: RunningPlatform):
    await ask(platform)
    body = ASK | {"stream": True}
    async with platform.session() as http, http.post("/v1/chat/completions", json=body) as response:
        await response.read()
        headers = response.headers
    told = {name: headers[f"x-collegium-{name}"] for name in ("model", "rank", "plan", "cache", "cost-usd")}
    assert told == {"model": "sim", "rank": "teacher", "plan": "single", "cache": "hit_exact", "cost-usd": "0"}


async def told(platform: RunningPlatform) -> list[Any]:
    messages = [codec.journey.decode(payload) for _, payload in await platform.read(s.EVENTS, s.REUSED_ALL)]
    return [answer for message in messages if isinstance(message, AnswersReused) for answer in message.answers]


async def test_the_same_again_is_answered_without_a_call_and_told_of(platform: RunningPlatform):
    first = await ask(platform)
    again = await ask(platform, ASK | {"messages": [{"content": ASK["messages"][0]["content"], "role": "user"}]})
    assert (cache_of(first), cache_of(again), calls(platform)) == ("miss", "hit_exact", 1)
    assert (again["choices"], again["usage"], again["model"]) == (first["choices"], first["usage"], "sim")
    assert again["id"] != first["id"]

    (one,) = await eventually(lambda: told(platform))
    assert (one.task.id, one.task.reused.original) == (again["collegium"]["task_id"], first["collegium"]["task_id"])
    assert (one.usage.charge_usd_picos, one.output.body) == (0, b"")
    assert [subject for subject, _ in await platform.read(s.EVENTS, s.task_settled("acme", one.task.id))] == []

    async def shown() -> Any:
        async with platform.session() as http, http.get(f"/v1/tasks/{one.task.id}") as response:
            return await response.json() if response.status == 200 else None

    task = await eventually(shown)
    assert (task["state"], task["output"]) == ("completed", first["choices"][0]["message"]["content"])
    assert task["collegium"]["cache"] == "hit_exact"
    assert task["collegium"]["trace_id"] == again["collegium"]["trace_id"] != first["collegium"]["trace_id"]
    async with platform.session() as http, http.get("/v1/tasks") as response:
        listed = (await response.json())["data"]
    assert {view["output"] for view in listed} == {task["output"]}
    async with platform.session() as http, http.get("/metrics") as response:
        metrics = await response.text()
    assert 'collegium_cache_requests_total{result="hit_exact"} 1.0' in metrics
    assert 'collegium_cache_requests_total{result="miss"} 1.0' in metrics


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k1"}], ids=["off", "key"])
async def test_who_wants_none_of_it_neither_writes_nor_reads(platform: RunningPlatform, headers: dict[str, str]):
    body = ASK if headers else options(cache="off")
    assert cache_of(await ask(platform, body, **headers)) == "off"
    assert cache_of(await ask(platform)) == "miss"
    again = dict.fromkeys(headers, "k2")
    assert cache_of(await ask(platform, body, **again)) == "off"
    assert calls(platform) == 3


@pytest.mark.parametrize("own", [{"conversation": "c1"}, {"plan": "panel"}], ids=str)
async def test_conversations_and_panels_get_no_kept_answer(platform: RunningPlatform, own: dict[str, Any]):
    """Neither can be carried out here, without context and consensus: an answer could only be a kept one."""
    await ask(platform)
    assert "error" in await ask(platform, options(**own, deadline_seconds=0.5))
    assert "error" in await ask(platform, options(**own, deadline_seconds=0.5) | {"stream": True})


async def test_refresh_asks_again_and_replaces_what_is_kept(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer="old"), times=1), Rule(Behaviour(answer="new")))
    answers = [await ask(platform, body) for body in (ASK, options(cache="refresh"), ASK)]
    assert [cache_of(answer) for answer in answers] == ["miss", "miss", "hit_exact"]
    assert [answer["choices"][0]["message"]["content"] for answer in answers] == ["old", "new", "new"]


async def test_tenants_and_parameters_are_kept_apart(platform: RunningPlatform):
    for body, tenant in ((ASK, "acme"), (ASK, "globex"), (ASK | {"temperature": 0.5}, "acme")):
        assert cache_of(await ask(platform, body, tenant)) == "miss"
    assert calls(platform) == 3


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(answer="one two three four"), Behaviour(status=400)],
    ids=["cut short", "failed"],
)
async def test_only_whole_answers_are_kept(platform: RunningPlatform, behaviour: Behaviour):
    platform.sim.script(Rule(behaviour))
    for _ in range(2):
        answer = await ask(platform, ASK | {"max_tokens": 2})
        assert "error" in answer or cache_of(answer) == "miss"
    assert calls(platform) == 2


async def test_identical_requests_share_one_call(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer="Paris.", delay_ms=300)))
    answers = await asyncio.gather(*(ask(platform) for _ in range(5)), stream(platform))
    *plain, (header, chunks) = answers
    assert calls(platform) == 1
    found = sorted([cache_of(answer) for answer in plain] + [header])
    assert found == ["hit_exact"] * 5 + ["miss"]
    assert {answer["choices"][0]["message"]["content"] for answer in plain} == {text_of(chunks)} == {"Paris."}
    assert len({answer["id"] for answer in plain}) == 5


async def test_where_the_call_fails_another_is_made_for_those_who_waited(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(status=400, delay_ms=200), times=1), Rule(Behaviour(answer="Paris.")))
    answers = await asyncio.gather(*(ask(platform) for _ in range(4)))
    assert sum("error" in answer for answer in answers) == 1
    found = sorted(cache_of(answer) for answer in answers if "error" not in answer)
    assert found == ["hit_exact", "hit_exact", "miss"]
    assert calls(platform) == 2


async def test_a_leader_that_goes_away_fails_nobody_and_a_follower_ends_nothing(platform: RunningPlatform):
    platform.sim.script(
        Rule(Behaviour(answer="one two three", token_delay_ms=200), times=1), Rule(Behaviour(answer="3"))
    )
    flights = platform.app("gateway")._chats.flights
    async with platform.session() as http:
        leading = await http.post(CHAT, json=ASK | {"stream": True})
        await eventually(lambda: calls(platform) == 1)
        leaving = asyncio.create_task(stream(platform))
        staying = asyncio.create_task(ask(platform))
        await eventually(lambda: flights.followers == 2)
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
        await eventually(lambda: flights.followers == 1)
        assert platform.sim.counts().totals.open == 1, "the call goes on"
        leading.close()
        answer = await staying
    assert (answer["choices"][0]["message"]["content"], cache_of(answer)) == ("3", "miss")
    assert calls(platform) == 2
    assert flights.followers == 0
    assert not flights._flights


async def test_a_client_that_reads_slowly_keeps_nobody_waiting(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer="one two three", token_delay_ms=20)))
    chats = platform.app("gateway")._chats
    principal = chats.directory.keys.authenticate(f"Bearer {platform.key}")
    asked = asked_by_chat(parse(decode_chat, msgspec.json.encode(ASK | {"stream": True})))
    leading = chats.begin(principal, asked, chats.tasks.prepare(principal, asked, waits=True))
    pieces = leading.stream(platform.hosted("gateway").platform.tracing.root("test", "server"))
    assert (await anext(pieces)).text
    answer = await ask(platform)
    assert (cache_of(answer), answer["choices"][0]["message"]["content"]) == ("hit_exact", "one two three")
    await pieces.aclose()
    assert calls(platform) == 1


def text_of(chunks: list[Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


async def test_a_replayed_stream_has_the_shape_of_a_live_one(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer=LONG.strip())))
    asked = {"stream_options": {"include_usage": True}}
    live_header, live = await stream(platform, **asked)
    header, replayed = await stream(platform, **asked)
    assert (live_header, header, calls(platform)) == ("miss", "hit_exact", 1)
    assert text_of(replayed) == text_of(live) == LONG.strip()
    assert len(replayed) > 2

    def shape(chunks: list[Any]) -> tuple[Any, ...]:
        first, *_, last, usage = chunks
        return (
            first["choices"][0]["delta"]["role"],
            last["choices"][0]["finish_reason"],
            sorted(first),
            sorted(last),
            usage["usage"],
            usage["choices"],
        )

    assert shape(replayed) == shape(live)
    assert {chunk["id"] for chunk in replayed} != {chunk["id"] for chunk in live}
    assert replayed[-1]["collegium"]["cache"] == "hit_exact"
    plain = await ask(platform)
    assert (cache_of(plain), plain["choices"][0]["message"]["content"]) == ("hit_exact", LONG.strip())


async def test_tool_calls_and_choices_are_replayed(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(tool_calls=(ToolCall("weather", '{"city":"Paris"}'),)), times=1))
    tools = ASK | {"tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}]}
    _, live = await stream(platform, tools)
    header, replayed = await stream(platform, tools)
    assert header == "hit_exact"
    assert [chunk["choices"] for chunk in replayed] == [chunk["choices"] for chunk in live]
    assert replayed[-1]["choices"][0]["finish_reason"] == "tool_calls"
    first, again = [await ask(platform, ASK | {"n": 2}) for _ in range(2)]
    assert (cache_of(again), again["choices"]) == ("hit_exact", first["choices"])


async def test_grpc_reads_what_http_wrote(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer=LONG.strip())))
    first = await ask(platform)
    request = ChatRequest(model="sim", messages=[ChatMessage(role="user", content=ASK["messages"][0]["content"])])
    metadata = (("authorization", f"Bearer {platform.key}"),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{platform.app('gateway').grpc.port}") as channel:
        chat = ChatStub(channel)
        plain = await chat.Complete(request, metadata=metadata)
        request.stream_options.CopyFrom(StreamOptions(include_usage=True))
        chunks = [chunk async for chunk in chat.Stream(request, metadata=metadata)]
        request.collegium.CopyFrom(Options(cache="off"))
        off = await chat.Complete(request, metadata=metadata)
    assert (plain.collegium.cache, plain.collegium.HasField("stale"), off.collegium.cache) == (
        "hit_exact",
        False,
        "off",
    )
    assert plain.choices[0].message.content == first["choices"][0]["message"]["content"]
    assert "".join(choice.delta.content for chunk in chunks for choice in chunk.choices) == LONG.strip()
    assert (len(chunks) > 2, chunks[-1].collegium.cache) == (True, "hit_exact")
    assert chunks[-1].usage.completion_tokens == first["usage"]["completion_tokens"]
    assert calls(platform) == 2


async def test_a_second_gateway_follows_and_a_refreshed_answer_replaces_its_own(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer="old"), times=1), Rule(Behaviour(answer="new")))
    await ask(platform)
    first = platform.app("gateway")
    second = await platform.start("gateway")
    other: Any = second.app
    await eventually(lambda: len(other._chats.shelf) == 1)
    assert platform.app("gateway") is other
    found = await ask(platform)
    assert (cache_of(found), found["choices"][0]["message"]["content"]) == ("hit_exact", "old")
    await ask(platform, options(cache="refresh"))
    await eventually(lambda: len(first._chats.memory) == 0)
    await platform.stop(second)
    answer = await ask(platform)
    assert (cache_of(answer), answer["choices"][0]["message"]["content"]) == ("hit_exact", "new")
    assert calls(platform) == 2


async def test_what_is_read_is_checked_against_the_key(platform: RunningPlatform):
    """A value of another tenant under this tenant's key is not shown, whoever put it there."""
    bucket = Bucket(platform.connection, s.KV_CACHE)
    await ask(platform, tenant="globex")
    (entry,) = await eventually(lambda: entries(bucket))
    value = codec.state.decode(entry.value)
    assert isinstance(value, CachedAnswer)
    assert entry.key == s.cache_key("globex", value.digest)
    chats = platform.app("gateway")._chats
    assert await chats.shelf.get("globex", value.digest) is not None
    await bucket.put(s.cache_key("acme", value.digest), entry.value)
    assert await chats.shelf.get("acme", value.digest) is None
    await bucket.put(s.cache_key("acme", value.digest), b"nothing of ours")
    assert await chats.shelf.get("acme", value.digest) is None


async def entries(bucket: Bucket) -> list[Any]:
    return [entry async for entry in bucket.entries()]


async def test_what_was_reused_is_told_of_before_the_gateway_ends(platform: RunningPlatform):
    await ask(platform)
    for _ in range(3):
        await ask(platform)
    await platform.stop(platform.hosted("gateway"))
    assert len(await told(platform)) == 3


async def test_a_full_book_reuses_nothing(platform: RunningPlatform, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("collegium_gateway.reuse.reusebook.MAX_COLLECTED", 0)
    assert [cache_of(await ask(platform)) for _ in range(2)] == ["miss", "miss"]


async def test_an_open_breaker_alone_makes_no_stale_answer_of_a_fresh_one(platform: RunningPlatform):
    await ask(platform)
    opened = Breaker(model="sim", open_until_ms=2**62)
    await Bucket(platform.connection, s.KV_BREAKERS).put(s.state_key("sim"), codec.encode(opened))
    await eventually(lambda: "sim" in platform.app("gateway")._directory.breakers)
    answer = await ask(platform)
    assert (cache_of(answer), "stale" in answer["collegium"]) == ("hit_exact", False)


async def test_tasks_say_off_and_refuse_refresh(platform: RunningPlatform):
    await ask(platform)
    async with platform.session() as http:
        body = {"input": ASK["messages"], "model": "sim"}
        async with http.post("/v1/tasks", json=body, headers={"Prefer": "wait=10"}) as response:
            task = await response.json()
        async with http.post("/v1/tasks", json=body | {"cache": "refresh"}) as response:
            refused = await response.json()
    assert (task["collegium"]["cache"], calls(platform)) == ("off", 2)
    assert (refused["error"]["code"], refused["error"]["param"]) == ("unsupported_option", "cache")
