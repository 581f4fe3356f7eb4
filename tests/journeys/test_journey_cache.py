"""The answer cache through a platform in processes of its own, over two gateways: hits, books, and stale answers."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from collegium_testing import ModelSimulator, eventually
from collegium_testing.platforms import (
    PlatformProcess,
    ServedProcess,
    close_breakers,
    configuration,
    make_key,
    running_platform,
)
from collegium_testing.simulator import Behaviour, Rule

from tests.conftest import LoopThread

CHAT = "/v1/chat/completions"
TTL_SECONDS = 2


class Cached:
    """A platform with its cache on, a second gateway, and tenants of whom one may see stale answers."""

    def __init__(self, platform: PlatformProcess, second: ServedProcess, sim: ModelSimulator, keys: dict[str, str]):
        self.platform = platform
        self.second = second
        self.sim = sim
        self.keys = keys

    async def ask(
        self, text: str, *, tenant: str = "acme", at: str = "", **fields: Any
    ) -> tuple[int, dict[str, Any], Any]:
        body = {"model": "sim", "messages": [{"role": "user", "content": text}], **fields}
        headers = {"Authorization": f"Bearer {self.keys[tenant]}"}
        async with (
            aiohttp.ClientSession(at or self.platform.http, headers=headers) as session,
            session.post(CHAT, json=body) as response,
        ):
            return response.status, await response.json(), response.headers

    async def get(self, path: str, tenant: str = "acme") -> Any:
        headers = {"Authorization": f"Bearer {self.keys[tenant]}"}
        async with (
            aiohttp.ClientSession(self.platform.http, headers=headers) as session,
            session.get(path) as response,
        ):
            return response.status, await response.json()


@pytest.fixture(scope="module")
def _cached(tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator) -> Iterator[Cached]:
    keys = {"acme": make_key("acme"), "globex": make_key("globex")}
    config = configuration(simulator.base_url, tenants=keys, cache={"exact_ttl": f"{TTL_SECONDS}s", "stale_ttl": "1h"})
    config["tenants"][0]["cache"] = {"stale": True}
    folder = tmp_path_factory.mktemp("cached") / "data"
    with running_platform(folder, config) as platform, platform.serving("gateway") as second:
        yield Cached(platform, second, simulator, keys)


@pytest.fixture
def cached(_cached: Cached, loop_thread: LoopThread) -> Cached:
    _cached.sim.script()
    _cached.sim.reset()
    loop_thread.run(close_breakers(_cached.platform))
    return _cached


@pytest.fixture
def question() -> str:
    return f"What is {secrets.token_hex(4)}?"


async def test_a_hit_is_found_on_the_other_gateway_booked_and_shown(cached: Cached):
    before = (await cached.get("/v1/usage"))[1]["totals"]

    async def asked_here_and_there() -> tuple[Any, Any] | None:
        """A question of its own each time, so that a hit there was made here; a watch may be a moment late."""
        text = f"What is {secrets.token_hex(4)}?"
        _, here, headers = await cached.ask(text)
        assert (here["collegium"]["cache"], headers["x-collegium-cache"]) == ("miss", "miss")
        _, there, headers = await cached.ask(text, at=cached.second.http)
        assert headers["x-collegium-cache"] == there["collegium"]["cache"]
        return (here, there) if there["collegium"]["cache"] == "hit_exact" else None

    found = await eventually(asked_here_and_there)
    assert found is not None
    first, again = found
    assert again["choices"] == first["choices"]
    assert again["usage"] == first["usage"]
    assert again["id"] != first["id"]
    assert (again["collegium"]["cost_usd"], again["collegium"]["attempts"]) == ("0", 0)
    calls = cached.sim.counts().totals.started
    task_id = again["collegium"]["task_id"]

    async def shown() -> Any:
        status, task = await cached.get(f"/v1/tasks/{task_id}")
        return task if status == 200 else None

    task = await eventually(shown)
    assert (task["state"], task["collegium"]["cache"], task["usage"]["charged_usd"]) == ("completed", "hit_exact", "0")
    assert task["output"] == first["choices"][0]["message"]["content"]
    assert (await cached.get(f"/v1/tasks/{task_id}", "globex"))[0] == 404

    async def booked() -> Any:
        totals = (await cached.get("/v1/usage"))[1]["totals"]
        return totals if totals["requests"] >= before["requests"] + calls + 1 else None

    totals = await eventually(booked)
    charged = float(totals["charged_usd"]) - float(before["charged_usd"])
    saved = float(totals["saved_usd"]) - float(before["saved_usd"])
    assert charged == pytest.approx(calls * saved)
    assert saved > 0


async def test_a_tenant_never_gets_the_answer_of_another(cached: Cached, question: str):
    for tenant in cached.keys:
        _, body, _ = await cached.ask(question, tenant=tenant)
        assert body["collegium"]["cache"] == "miss"
    assert cached.sim.counts().totals.started == 2


async def test_arms_of_an_experiment_never_share_an_answer(cached: Cached):
    experiments, told = "/v1/admin/experiments", " ".join(["Answer in one short sentence."] * 20)
    body = {"name": "short", "kind": "prompt", "model": "sim", "unit": "user", "tenant": "acme"}
    users = [f"user-{number}" for number in range(8)]
    headers = {"Authorization": f"Bearer {cached.platform.admin_key}"}

    async def tokens(text: str, user: str, at: str) -> tuple[int, str]:
        _, found, _ = await cached.ask(text, at=at, collegium={"tags": {"user": user}})
        return found["usage"]["prompt_tokens"], found["collegium"]["cache"]

    async def arms_are_apart() -> bool:
        """The same question of everybody at both gateways: each has the answer of the own arm, some from the cache."""
        text = f"What is {secrets.token_hex(4)}?"
        found = {(user, at): await tokens(text, user, at) for at in ("", cached.second.http) for user in users}
        counted = {count for count, _ in found.values()}
        if len(counted) < 2 or not any(result == "hit_exact" for _, result in found.values()):
            return False
        return all(found[user, ""][0] == found[user, cached.second.http][0] for user in users)

    async with aiohttp.ClientSession(cached.platform.http, headers=headers) as operator:
        async with operator.post(experiments, json=body | {"candidate": {"instruction": told}}) as response:
            path = f"{experiments}/{(await response.json())['id']}"
        async with operator.post(f"{path}/start") as response:
            assert response.status == 200, await response.text()
        try:
            await eventually(arms_are_apart)
            arms = {user: (await tokens(f"Which arm, {user}?", user, ""))[0] for user in users}
            for _ in range(3):
                assert await arms_are_apart()
            for user, other in zip(users, reversed(users), strict=True):
                same = f"The same of {min(user, other)} and {max(user, other)}?"
                first, second = await tokens(same, user, ""), await tokens(same, other, cached.second.http)
                assert (first[0] == second[0]) == (abs(arms[user] - arms[other]) < len(told) // 8)
        finally:
            async with operator.post(f"{path}/stop") as response:
                assert response.status == 200, await response.text()


async def test_an_old_answer_is_shown_while_no_model_can_be_asked_to_who_allows_it(cached: Cached, question: str):
    cached.sim.script(Rule(Behaviour(answer="once upon a time")))
    for tenant in cached.keys:
        assert (await cached.ask(question, tenant=tenant))[0] == 200
    cached.sim.script(Rule(Behaviour(status=500)))

    async def stale() -> Any:
        status, body, headers = await cached.ask(question)
        return (body, headers) if status == 200 and "stale" in body["collegium"] else None

    body, headers = await eventually(stale)
    assert body["choices"][0]["message"]["content"] == "once upon a time"
    assert (body["collegium"]["cache"], body["collegium"]["stale"]) == ("hit_exact", True)
    assert body["collegium"]["age_seconds"] >= TTL_SECONDS
    assert headers["x-collegium-cache-stale"] == str(body["collegium"]["age_seconds"])
    assert headers["x-collegium-cache"] == "hit_exact"
    status, refused, _ = await cached.ask(question, tenant="globex")
    assert (status, refused["error"]["code"]) == (502, "circuit_open")
