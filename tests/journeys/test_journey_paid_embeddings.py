"""An embedder that costs money, behind an endpoint: held before, booked once, whatever dies in between."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from collegium_testing import ModelSimulator, eventually
from collegium_testing.platforms import PlatformProcess, close_breakers, configuration, make_key, running_platform
from collegium_testing.simulator import Behaviour, Rule
from openai import AsyncOpenAI

from tests.conftest import LoopThread

PATH = "/v1/embeddings"
MODEL = "embed-large"
KEY, POOR = make_key("acme"), make_key("poor")
USD_PER_TOKEN = Decimal("0.000100")


@pytest.fixture(scope="module")
def _platform(tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator) -> Iterator[PlatformProcess]:
    config = configuration(
        simulator.base_url,
        tenants={"acme": KEY, "poor": POOR},
        cache={},
        embeddings={
            "base_url": simulator.base_url,
            "model": MODEL,
            "dimensions": 64,
            "timeout_seconds": 4,
            "price": {"input_usd_per_mtok": "100"},
            "charge": {"markup": "2"},
        },
    )
    config["tenants"][1]["budget"] = {"usd": "0.000001"}
    environment = {"COLLEGIUM_MAX_RESTARTS": "50"}
    with running_platform(tmp_path_factory.mktemp("paid") / "data", config, environment=environment) as platform:
        yield platform


@pytest.fixture
def platform(_platform: PlatformProcess, simulator: ModelSimulator, loop_thread: LoopThread) -> PlatformProcess:
    simulator.script()
    simulator.reset()
    loop_thread.run(close_breakers(_platform))
    return _platform


def session(platform: PlatformProcess, key: str = KEY) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(platform.http, headers={"Authorization": f"Bearer {key}"})


def asking(tag: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": ["one two three", "four"], "collegium": {"tags": {tag: "yes"}}, **more}


async def row(platform: PlatformProcess, tag: str) -> dict[str, Any] | None:
    async with session(platform) as http, http.get("/v1/usage?group_by=tag,model") as response:
        rows = (await response.json())["data"]
    found = [one for one in rows if one["tag"] == f"{tag}=yes"]
    return found[0] if found else None


async def laws_hold(platform: PlatformProcess) -> None:
    async def broken() -> list[Any]:
        async with session(platform, platform.admin_key) as http, http.get("/v1/admin/ledger/audit") as response:
            assert response.status == 200, await response.text()
            return [law for law in (await response.json())["data"] if law["violations"]]

    async def hold() -> bool:
        return not await broken()

    assert await eventually(hold), await broken()


async def test_its_tokens_cost_what_its_price_says(platform: PlatformProcess, simulator: ModelSimulator):
    tag = f"paid{time.time_ns()}"
    async with AsyncOpenAI(base_url=f"{platform.http}/v1", api_key=KEY, max_retries=0) as sdk:
        raw = await sdk.embeddings.with_raw_response.create(
            model=MODEL, input=["one two three", "four"], extra_body={"collegium": {"tags": {tag: "yes"}}}
        )
        shorter = await sdk.embeddings.create(model=MODEL, input="five", dimensions=8)
    answer = raw.parse()
    assert [len(one.embedding) for one in answer.data] == [64, 64]
    assert len(shorter.data[0].embedding) == 8
    tokens = answer.usage.prompt_tokens
    assert tokens == 4
    assert Decimal(raw.headers["x-collegium-cost-usd"]) == tokens * USD_PER_TOKEN
    counted = await eventually(lambda: row(platform, tag))
    assert (counted["model"], counted["requests"], counted["input_tokens"]) == (MODEL, 1, tokens)
    assert Decimal(counted["cost_usd"]) == tokens * USD_PER_TOKEN
    assert Decimal(counted["charged_usd"]) == 2 * tokens * USD_PER_TOKEN
    assert simulator.counts().totals.started == 2
    await laws_hold(platform)


async def test_what_it_may_cost_is_held_before_it_is_called(platform: PlatformProcess, simulator: ModelSimulator):
    async with session(platform, POOR) as http, http.post(PATH, json=asking("poor")) as response:
        assert response.status == 402
        assert (await response.json())["error"]["code"] == "insufficient_quota"
    assert simulator.counts().totals.started == 0


async def test_a_failure_that_passes_is_tried_again(platform: PlatformProcess, simulator: ModelSimulator):
    simulator.script(Rule(Behaviour(status=503), times=1), Rule(Behaviour()))
    tag = f"again{time.time_ns()}"
    async with session(platform) as http, http.post(PATH, json=asking(tag)) as response:
        body = await response.json()
        assert response.status == 200, body
    assert body["collegium"]["attempts"] == 2
    counted = await eventually(lambda: row(platform, tag))
    assert Decimal(counted["cost_usd"]) == 4 * USD_PER_TOKEN
    assert counted["requests"] == 1


async def test_a_gateway_killed_in_the_call_leaves_one_call_booked_once(
    platform: PlatformProcess, simulator: ModelSimulator
):
    simulator.script(Rule(Behaviour(delay_ms=1500)))
    tag = f"killed{time.time_ns()}"

    async def ask() -> None:
        async with session(platform) as http, http.post(PATH, json=asking(tag)) as response:
            await response.read()

    asked = asyncio.create_task(ask())
    await eventually(lambda: simulator.counts().totals.started == 1)
    os.kill(platform.pids()["gateway"], signal.SIGKILL)
    with pytest.raises(aiohttp.ClientError):
        await asked

    async def booked() -> dict[str, Any] | None:
        try:
            return await row(platform, tag)
        except aiohttp.ClientError:
            return None

    counted = await eventually(booked)
    assert Decimal(counted["cost_usd"]) == 4 * USD_PER_TOKEN
    assert Decimal(counted["charged_usd"]) == 8 * USD_PER_TOKEN
    assert simulator.counts().totals.started == 1
    await laws_hold(platform)


async def call(platform: PlatformProcess, method: str, url: str, body: Any = None, **headers: str) -> Any:
    async with session(platform) as http, http.request(method, url, json=body, headers=headers) as response:
        assert response.status in (200, 201, 202), f"{method} {url}: {response.status} {await response.text()}"
        return await response.json()


@pytest.mark.parametrize("fault", [Behaviour(status=503), Behaviour(hang=True)], ids=["refuses", "hangs"])
async def test_while_the_endpoint_is_away_words_answer_everybody_says_so_and_nothing_is_lost(
    platform: PlatformProcess, simulator: ModelSimulator, fault: Behaviour
):
    word = f"orchid{time.time_ns()}"
    document = {"content": f"The {word} blooms in spring.", "title": "Flowers"}
    made = await call(platform, "POST", "/v1/documents", document, Prefer="wait=60")
    assert made["state"] == "indexed", made
    memory = await call(platform, "POST", "/v1/memories", {"text": f"Ada waters the {word}.", "path": f"away/{word}"})
    search = {"query": f"when does the {word} bloom?", "explain": True}
    assert (await call(platform, "POST", "/v1/search", search))["degraded"] is None

    simulator.script(Rule(fault, model=MODEL), Rule(Behaviour(answer="In spring.")))
    found = await call(platform, "POST", "/v1/search", {**search, "limit": 5})
    assert (found["mode"], found["degraded"], found["cached"]) == ("words", "embedder_unavailable", False)
    assert found["data"][0]["document"] == made["id"]
    assert found["data"][0]["explain"]["dense"] is None
    body = {"query": f"the {word}", "mode": "dense"}
    async with session(platform) as http, http.post("/v1/search", json=body) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (503, "embedder_unavailable")
        assert int(response.headers["retry-after"]) >= 1

    # Answers come, with the memories that words find, and the caches say that they looked for letters alone.
    asked = [{"role": "user", "content": f"Who waters the {word}?"}]
    told = await call(
        platform,
        "POST",
        "/v1/chat/completions",
        {"model": "sim", "messages": asked, "collegium": {"memory": f"away/{word}", "cache": "off"}},
    )
    assert told["collegium"]["memory"] == {"path": f"away/{word}", "state": "words", "recalled": [memory["id"]]}
    async with session(platform) as http:
        asked = {"model": "sim", "messages": asked, "collegium": {"cache": "use"}}
        async with http.post("/v1/chat/completions", json=asked) as response:
            assert response.status == 200
            assert response.headers["x-collegium-cache"] == "miss"
            assert response.headers["x-collegium-cache-degraded"] in ("embedder_unavailable", "context_unavailable")
        async with http.post("/v1/chat/completions", json=asked) as response:
            assert response.headers["x-collegium-cache"] == "hit_exact"
            assert "x-collegium-cache-degraded" not in response.headers

    # What comes meanwhile is kept, and found when the endpoint is back.
    later = await call(platform, "POST", "/v1/documents", {"content": f"A second {word} blooms in autumn."})
    assert later["state"] == "accepted"
    simulator.script()

    async def indexed() -> bool:
        return (await call(platform, "GET", f"/v1/documents/{later['id']}"))["state"] == "indexed"

    await eventually(indexed)

    async def whole() -> bool:
        found = await call(platform, "POST", "/v1/search", {**search, "query": f"the {word} in autumn"})
        return found["degraded"] is None and later["id"] in {one["document"] for one in found["data"]}

    await eventually(whole)


async def test_vectors_that_cannot_be_had_are_refused_with_when_to_ask_again(
    platform: PlatformProcess, simulator: ModelSimulator
):
    simulator.script(Rule(Behaviour(status=503), model=MODEL))
    refused: list[tuple[int, str]] = []
    async with session(platform) as http:

        async def left_alone() -> bool:
            async with http.post(PATH, json=asking("away")) as response:
                error = (await response.json())["error"]
                refused.append((response.status, error["code"]))
                assert int(response.headers["retry-after"]) >= 1
                return "left alone" in error["message"]

        # At first it is tried; once its breaker is open everybody hears it at once.
        await eventually(left_alone)
    assert set(refused) == {(503, "embedder_unavailable")}
    assert len(refused) > 1
    assert simulator.counts().totals.started > 0
