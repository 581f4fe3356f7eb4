"""A model with several endpoints: prompts that begin alike meet the same one, whose cache knows them; one may fail."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from collegium_testing import Behaviour, ModelSimulator, Rule, eventually

from tests.conftest import Stage

pytestmark = pytest.mark.timeout(180)

MODELS = "/v1/admin/models"
NAME = "spread-model"
ENDPOINTS = 4
# Instructions of some 300 tokens each, and how many questions are asked with each.
CLERKS = [f"You are clerk number {number}. " + "Answer from the files alone. " * 60 for number in range(8)]
QUESTIONS = 4


@pytest.fixture
async def places(stage: Stage) -> AsyncIterator[list[ModelSimulator]]:
    """A model of four endpoints, each a simulator with a cache of prompts."""
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(ModelSimulator(prompt_cache_tokens=100)) for _ in range(ENDPOINTS)]
        operator = await stack.enter_async_context(stage.session(stage.platform.admin_key))
        first, *others = running
        body: dict[str, Any] = {
            "name": NAME,
            "base_url": first.base_url,
            "endpoints": [{"base_url": one.base_url} for one in others],
            "domains": ["affinity-journey"],
            "price": {"input_usd_per_mtok": "1", "cached_input_usd_per_mtok": "0.1", "output_usd_per_mtok": "2"},
        }
        async with operator.post(MODELS, json=body) as reply:
            assert reply.status == 201, await reply.text()
        yield running
        async with operator.delete(f"{MODELS}/{NAME}") as reply:
            assert reply.status == 200


async def asked(session: aiohttp.ClientSession, clerk: str, question: str) -> tuple[int, int]:
    """Returns how many tokens a prompt had, and how many of them were cached."""
    messages = [{"role": "system", "content": clerk}, {"role": "user", "content": question}]
    body = {"model": NAME, "messages": messages, "max_tokens": 8}

    async def is_answered() -> dict[str, Any] | None:
        async with session.post("/v1/chat/completions", json=body) as reply:
            answer = await reply.json()
            # The roster has to have arrived.
            return answer if reply.status == 200 else None

    usage = (await eventually(is_answered))["usage"]
    return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def told() -> list[tuple[str, str]]:
    pairs = [(clerk, f"question {number}") for clerk in CLERKS for number in range(QUESTIONS)]
    random.Random(7).shuffle(pairs)
    return pairs


async def at_random() -> float:
    """The share of tokens that are cached where each prompt goes to any endpoint, without the platform."""
    choose = random.Random(11)
    tokens = cached = 0
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(ModelSimulator(prompt_cache_tokens=100)) for _ in range(ENDPOINTS)]
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for clerk, question in told():
            messages = [{"role": "system", "content": clerk}, {"role": "user", "content": question}]
            url = f"{choose.choice(running).base_url}/chat/completions"
            async with session.post(url, json={"model": NAME, "messages": messages, "max_tokens": 8}) as reply:
                usage = (await reply.json())["usage"]
            tokens += usage["prompt_tokens"]
            cached += usage["prompt_tokens_details"]["cached_tokens"]
    return cached / tokens


async def test_prompts_that_begin_alike_meet_the_same_cache(stage: Stage, places: list[ModelSimulator]):
    async with stage.session() as session:
        counted = [await asked(session, clerk, question) for clerk, question in told()]
    share = sum(cached for _, cached in counted) / sum(tokens for tokens, _ in counted)
    # Each beginning is new once: 3 of 4 come again.
    assert share > 0.7
    assert share > await at_random() + 0.2
    used = [place for place in places if place.counts().totals.prompt_tokens > 200]
    assert len(used) > 1, "and the beginnings are spread over endpoints"


async def test_an_endpoint_that_fails_loses_its_prompts_to_the_others(stage: Stage, places: list[ModelSimulator]):
    async with stage.session() as session:
        await asked(session, CLERKS[0], "who are you?")
        home = max(places, key=lambda place: place.counts().totals.prompt_tokens)
        home.script(Rule(Behaviour(status=500)))
        before = sum(place.counts().totals.completed for place in places if place is not home)
        for number in range(6):
            await asked(session, CLERKS[0], f"and now? {number}")
        after = sum(place.counts().totals.completed for place in places if place is not home)
    assert after - before == 6
    failed = home.counts().totals.failed
    assert 1 <= failed < 6, "it is not asked again at once"
    async with stage.session(stage.platform.admin_key) as operator, operator.get(f"{MODELS}/{NAME}") as reply:
        assert (await reply.json())["breaker"]["state"] == "closed", "and the model is well"
