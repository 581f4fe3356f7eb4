"""Answers that are given again count as requests: at once from what is known, exactly with the owner, never twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from collegium_bus.errors import NoAnswerError
from collegium_contracts.messages import TaskRef
from collegium_contracts.requests import HoldAnswer, HoldAsk, Rates
from collegium_gateway.reuse.hits import FRESH_SECONDS, KEYS_MAX, Hits
from collegium_protocol.v1 import chat_pb2, chat_pb2_grpc
from collegium_settings.settings import CacheSettings
from collegium_testing.eventually import eventually
from collegium_testing.platform import RunningPlatform

TASK = TaskRef(id="t", tenant="acme", created_at_ms=0, deadline_ms=1, model="m", key_id="k")


class Owner:
    """Counts what it is told against a limit; away, it says nothing."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.counted = 0
        self.asked = 0
        self.away = False

    async def ask(self, ask: HoldAsk, *, budget_seconds: float) -> HoldAnswer:
        self.asked += 1
        if self.away:
            raise NoAnswerError(f"nobody within {budget_seconds}")
        code = "" if ask.are_given or self.counted < self.limit else "rate_limited"
        if not code:
            self.counted += ask.hits
        return HoldAnswer(code=code, rates=self.rates())

    def rates(self) -> Rates:
        return Rates(limit_requests=self.limit, remaining_requests=max(0, self.limit - self.counted))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def counting(limit: int) -> tuple[Owner, Clock, Hits]:
    owner, clock = Owner(limit), Clock()
    return owner, clock, Hits(owner, clock)  # pyright: ignore[reportArgumentType] - of what it asks alone


async def test_a_busy_key_asks_once_for_many_answers() -> None:
    owner, _, hits = counting(100)
    assert hits.take("acme", "k") is None, "nothing is known"
    assert await hits.ask(TASK) == HoldAnswer(rates=Rates(limit_requests=100, remaining_requests=99))
    shown = [hits.take("acme", "k") for _ in range(50)]
    assert [one.remaining_requests for one in shown if one is not None] == list(range(98, 48, -1))
    assert hits.take("acme", "other") is None, "keys are apart"
    assert owner.counted == 1

    async def told() -> bool:
        return owner.counted == 51

    await eventually(told)
    assert owner.asked == 2
    again = hits.take("acme", "k")
    assert again is not None
    assert again.remaining_requests == 48, "neither lost nor taken off twice"
    await hits.stop()
    assert owner.counted == 52, "the last one is told of before the end"


async def test_what_is_not_fresh_and_what_is_used_up_is_asked_for() -> None:
    owner, clock, hits = counting(2)
    assert (await hits.ask(TASK)) is not None
    assert hits.take("acme", "k") is not None
    assert hits.take("acme", "k") is None, "nothing is left"
    refusal = await hits.ask(TASK)
    assert refusal is not None
    assert refusal.code == "rate_limited"
    assert owner.counted == 2, "what was given is counted before, what is refused nowhere"
    owner.counted = 0
    hits.learn("acme", "k", owner.rates())
    clock.now += FRESH_SECONDS + 0.1
    assert hits.take("acme", "k") is None
    unlimited = Hits(owner, clock)  # pyright: ignore[reportArgumentType] - likewise
    unlimited.learn("acme", "k", Rates())
    assert unlimited.take("acme", "k") == Rates(), "without a limit there is nothing to run out of"
    await unlimited.stop()


async def test_an_owner_that_is_away_refuses_nothing_and_counts_it_later() -> None:
    owner, _, hits = counting(100)
    owner.away = True
    assert await hits.ask(TASK) is None
    hits.learn("acme", "k", owner.rates())
    assert hits.take("acme", "k") is not None
    tried = owner.asked

    async def tried_again() -> bool:
        return owner.asked > tried

    await eventually(tried_again)
    owner.away = False

    async def counted() -> bool:
        return owner.counted == 2

    await eventually(counted)
    await hits.stop()
    assert owner.counted == 2


async def test_what_is_remembered_is_bounded() -> None:
    _, _, hits = counting(100)
    for number in range(KEYS_MAX + 5):
        hits.learn("acme", f"k{number}", Rates())
    assert len(hits._standings) <= KEYS_MAX


@pytest.fixture
async def platform(clean_nats_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[RunningPlatform]:
    services = ("billing", "router", "worker-pool", "gateway")
    async with RunningPlatform(
        clean_nats_url, database_url, folder=tmp_path, services=services, cache=CacheSettings()
    ) as running:
        yield running


async def test_kept_answers_count_and_say_so_over_http_and_grpc(platform: RunningPlatform, tmp_path: Path) -> None:
    """The model is asked once; its answer is given until the minute's requests are used up."""
    (hosted,) = (one for one in platform._hosted if one.platform.service == "gateway")
    owner = {"authorization": f"Bearer {(tmp_path / 'admin.key').read_text().strip()}"}
    url = f"http://127.0.0.1:{hosted.app.port}"
    async with aiohttp.ClientSession(url, headers=owner) as session:

        async def admin(method: str, path: str, body: Any) -> Any:
            async with session.request(method, f"/v1/admin/{path}", json=body) as response:
                assert response.status in (200, 201), await response.text()
                return await response.json()

        await admin("POST", "tenants", {"id": "initech", "tier": "pro"})
        await admin("PUT", "tenants/initech/limits", {"requests_per_minute": 8})
        key = (await admin("POST", "keys", {"tenant": "initech", "scopes": ["chat"]}))["key"]
        bearer = f"Bearer {key}"

        async def chat(**fields: Any) -> tuple[int, Any, int]:
            body = {"model": "sim", "messages": [{"role": "user", "content": "hi"}], **fields}
            async with session.post("/v1/chat/completions", json=body, headers={"authorization": bearer}) as response:
                await response.read()
                left = response.headers.get("x-ratelimit-remaining-requests", "-1")
                return response.status, response.headers.get("x-collegium-cache"), int(left)

        async def known() -> bool:
            async with session.get("/v1/models", headers={"authorization": bearer}) as response:
                return response.status == 200

        async def refused_uncounted() -> list[tuple[int, str | None]]:
            told: list[tuple[int, str | None]] = []
            for path, body in (
                ("/v1/chat/completions", {"model": "nobody", "messages": [{"role": "user", "content": "hi"}]}),
                ("/v1/embeddings", {"model": "nobody", "input": "hi"}),
                ("/v1/tasks", {"input": []}),
            ):
                async with session.post(path, json=body, headers={"authorization": bearer}) as response:
                    told.append((response.status, response.headers.get("x-ratelimit-remaining-requests")))
            return told

        await eventually(known)
        assert await refused_uncounted() == [(400, None), (400, None), (403, None)], "nothing was heard yet"
        assert await chat() == (200, "miss", 7)
        assert await refused_uncounted() == [(400, "7"), (400, "7"), (403, "7")]
        assert [await chat() for _ in range(3)] == [(200, "hit_exact", left) for left in (6, 5, 4)]
        assert await chat(stream=True) == (200, "hit_exact", 3)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{hosted.app.grpc.port}") as channel:
            stub = chat_pb2_grpc.ChatStub(channel)
            message = chat_pb2.ChatMessage(role="user", content="hi")
            call = stub.Complete(
                chat_pb2.ChatRequest(model="sim", messages=[message]), metadata=(("authorization", bearer),)
            )
            await call
            trailing = dict(await call.trailing_metadata() or ())
            assert trailing["x-ratelimit-limit-requests"] == "8"
            assert trailing["x-ratelimit-remaining-requests"] == "2"
            assert [await chat() for _ in range(2)] == [(200, "hit_exact", left) for left in (1, 0)]
            assert await chat() == (429, None, 0)
            slow = {"model": "sim", "messages": [{"role": "user", "content": "something else"}]}
            async with session.post("/v1/chat/completions", json=slow, headers={"authorization": bearer}) as response:
                assert (response.status, "x-collegium-task-id" in response.headers) == (429, False)
            call = stub.Complete(
                chat_pb2.ChatRequest(model="sim", messages=[message]), metadata=(("authorization", bearer),)
            )
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            trailing = dict(refused.value.trailing_metadata())
            assert trailing["x-ratelimit-remaining-requests"] == "0"
