"""Answers to questions alike, through a platform in processes of its own: who gets them, what is never given."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from typing import Any

import aiohttp
import pytest
from collegium_testing import ModelSimulator, eventually
from collegium_testing.platforms import PlatformProcess
from collegium_testing.simulator import Behaviour, Rule

from tests.journeys.conftest import Knowing
from tests.journeys.knowledge import KEYS

pytestmark = pytest.mark.timeout(180)
CHAT = "/v1/chat/completions"


class Alike:
    """A platform whose tenant ``likes`` opted in, ``asks`` asks by request, and ``plain`` knows nothing of it."""

    def __init__(
        self, platform: PlatformProcess, sim: ModelSimulator, keys: dict[str, str], admins: dict[str, str]
    ) -> None:
        self.platform = platform
        self.admins = admins
        self.sim = sim
        self.keys = keys

    async def ask(self, text: str | list[Any], tenant: str = "likes", **fields: Any) -> tuple[dict[str, Any], Any]:
        turns = [{"role": "user", "content": text}] if isinstance(text, str) else text
        headers = {"Authorization": f"Bearer {self.keys[tenant]}"}
        async with (
            aiohttp.ClientSession(self.platform.http, headers=headers) as session,
            session.post(CHAT, json={"model": "sim", "messages": turns, **fields}) as response,
        ):
            assert response.status == 200, await response.text()
            if fields.get("stream"):
                return {"text": await response.text()}, response.headers
            return await response.json(), response.headers

    async def get(self, path: str, tenant: str = "likes", method: str = "GET") -> Any:
        key = (self.admins if path.startswith("/v1/cache") else self.keys)[tenant]
        async with (
            aiohttp.ClientSession(self.platform.http, headers={"Authorization": f"Bearer {key}"}) as session,
            session.request(method, path) as response,
        ):
            return response.status, await response.json()

    async def kept(self, entries: int, tenant: str = "likes") -> None:
        async def stands() -> bool:
            return (await self.get("/v1/cache", tenant))[1]["semantic"]["entries"] >= entries

        await eventually(stands)

    async def entries(self, tenant: str = "likes") -> int:
        return (await self.get("/v1/cache", tenant))[1]["semantic"]["entries"]


@pytest.fixture(scope="module")
def _alike(_knowing: Knowing) -> Alike:
    admins = {tenant: KEYS[f"{tenant}-admin"] for tenant in ("likes", "asks", "plain")}
    alike = Alike(_knowing.platform, _knowing.simulator, KEYS, admins)
    asyncio.run(warm(alike))
    return alike


async def warm(alike: Alike) -> None:
    """Asks until an answer is kept: while the embedder comes up, keeping one may take longer than anybody waits."""

    async def keeps() -> bool:
        await alike.ask(f"What colour is a {word()}?", "asks", collegium={"cache": "use"})
        return await alike.entries("asks") > 0

    await eventually(keeps, every_seconds=0.5)


@pytest.fixture
def alike(_alike: Alike) -> Alike:
    _alike.sim.script()
    _alike.sim.reset()
    return _alike


def word() -> str:
    """A word that no other test asks of."""
    return "".join(secrets.choice("bcdfghklmnprstvz") + secrets.choice("aeiou") for _ in range(4))


async def test_a_question_alike_gets_the_answer_of_before_and_is_counted(alike: Alike):
    thing, standing = word(), await alike.entries()
    alike.sim.script(Rule(Behaviour(answer=f"A {thing} is made of clay.")))
    first, headers = await alike.ask(f"How do I make a {thing}?")
    assert headers["x-collegium-cache"] == "miss"
    await alike.kept(standing + 1)
    spaces = itertools.count()

    async def served(question: str, **fields: Any) -> Any:
        """Asks; where nobody had the time to look for what is alike, the same must not be asked again."""
        calls = alike.sim.counts().totals.started
        body, headers = await alike.ask(question + " " * next(spaces), **fields)
        return (body, headers, calls) if headers["x-collegium-cache"] == "hit_semantic" else None

    again, headers, calls = await eventually(lambda: served(f"How can I make a {thing} please?"))
    assert again["choices"] == first["choices"]
    assert (again["collegium"]["cache"], again["collegium"]["cost_usd"], again["collegium"]["attempts"]) == (
        "hit_semantic", "0", 0,
    )  # fmt: skip
    assert alike.sim.counts().totals.started == calls
    task_id = again["collegium"]["task_id"]

    async def shown() -> Any:
        status, task = await alike.get(f"/v1/tasks/{task_id}")
        return task if status == 200 else None

    task = await eventually(shown)
    assert (task["collegium"]["cache"], task["usage"]["charged_usd"]) == ("hit_semantic", "0")
    assert task["output"] == first["choices"][0]["message"]["content"]

    async def saved() -> bool:
        return float((await alike.get("/v1/usage"))[1]["totals"]["saved_usd"]) > 0

    await eventually(saved)
    left = [int(headers["x-ratelimit-remaining-requests"])]
    streamed, headers, _ = await eventually(
        lambda: served(f"how can i make a {thing}, please", stream=True), deadline_seconds=60
    )
    left.append(int(headers["x-ratelimit-remaining-requests"]))
    # Some of what was taken may have come back since.
    assert max(left) < int(headers["x-ratelimit-limit-requests"]), "an answer that is given again is a request"
    assert "[DONE]" in streamed["text"]


@pytest.mark.parametrize(
    ("kept", "asked"),
    [
        ("How many grams of {0} are in 2 cups?", "How many grams of {0} are in 3 cups?"),
        ("Which kinds of {0} can fly?", "Which kinds of {0} can't fly?"),
        ("What is the price of {0} in my town?", "What's the price of {0} in my town?"),
        ("What is the latest version of {0}?", "What's the latest version of {0}?"),
    ],
)
async def test_another_question_and_a_personal_one_are_asked(alike: Alike, kept: str, asked: str):
    thing, standing = word(), await alike.entries()
    await alike.ask(kept.format(thing))
    await alike.ask(f"What colour is a {thing}?")
    await alike.kept(standing + 1)
    _, headers = await alike.ask(asked.format(thing))
    assert headers["x-collegium-cache"] == "miss"


async def test_the_whole_conversation_is_the_question(alike: Alike):
    thing, standing = word(), await alike.entries()
    before = [{"role": "user", "content": f"Tell of the {thing}"}, {"role": "assistant", "content": "It is red."}]
    last = {"role": "user", "content": "How is it painted?"}
    await alike.ask([*before, last])
    await alike.kept(standing + 1)
    other = [before[0], {"role": "assistant", "content": "It is a boat."}, last]
    assert (await alike.ask(other))[1]["x-collegium-cache"] == "miss"
    assert (await alike.ask([last]))[1]["x-collegium-cache"] == "miss"
    system = {"role": "system", "content": "Be brief."}
    assert (await alike.ask([system, *before, {**last, "content": "how is it painted"}]))[1][
        "x-collegium-cache"
    ] == "miss"


async def test_tenants_and_projects_share_nothing_and_who_did_not_opt_in_is_not_looked_for(alike: Alike):
    thing, standing = word(), await alike.entries()
    await alike.ask(f"How do I bake a {thing}?")
    await alike.kept(standing + 1)
    alike.sim.reset()
    for fields in ({"collegium": {"cache": "use"}}, {}):
        _, headers = await alike.ask(f"How can I bake a {thing}?", "asks", **fields)
        assert headers["x-collegium-cache"] in ("miss", "hit_exact")
    assert alike.sim.counts().totals.started == 1
    await alike.ask(f"How do I bake a {thing}?", "plain")
    _, headers = await alike.ask(f"How can I bake a {thing}?", "plain")
    assert headers["x-collegium-cache"] == "miss"
    assert await alike.entries("plain") == 0


async def test_a_refresh_and_an_off_are_asked_and_clearing_forgets_all(alike: Alike):
    thing, standing = word(), await alike.entries()
    await alike.ask(f"How do I paint a {thing}?")
    await alike.kept(standing + 1)
    for mode, result in (("off", "off"), ("refresh", "miss"), ("exact", "miss")):
        _, headers = await alike.ask(f"How can I paint a {thing}? {mode}", collegium={"cache": mode})
        assert headers["x-collegium-cache"] == result
    status, cleared = await alike.get("/v1/cache", method="DELETE")
    assert status == 200
    assert cleared["semantic"] >= 1
    assert await alike.entries() == 0
    assert (await alike.ask(f"How do I paint a {thing}?"))[1]["x-collegium-cache"] == "miss"
