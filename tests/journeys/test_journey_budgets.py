"""Budgets on a running platform: two gateways, many requests at once, and whoever decides or asks killed meanwhile."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from collegium_testing import eventually
from collegium_testing.faults.purse import Plan, Purse

from tests.conftest import Stage

pytestmark = pytest.mark.timeout(240)

CHAT = "/v1/chat/completions"
# The simulator's answer and prompt cost some micro-dollars; the hold covers 512 tokens of template and more.
BUDGET = Decimal("0.006")


def chat(number: int) -> dict[str, Any]:
    return {
        "model": "sim",
        "max_tokens": 20,
        "messages": [{"role": "user", "content": f"question {number}"}],
        "collegium": {"cache": "off"},
    }


async def purse(http: str, admin_key: str, name: str, usd: Decimal) -> str:
    """Makes a tenant with a budget, and returns its key."""
    headers = {"Authorization": f"Bearer {admin_key}"}
    async with aiohttp.ClientSession(http, headers=headers) as operator:
        async with operator.post("/v1/admin/tenants", json={"id": name, "tier": "enterprise"}) as response:
            assert response.status in (200, 201), await response.text()
        async with operator.put(f"/v1/admin/budgets/{name}/purse", json={"usd": str(usd)}) as response:
            assert response.status in (200, 201), await response.text()
        body = {"tenant": name, "scopes": ["chat", "tasks", "usage"]}
        async with operator.post("/v1/admin/keys", json=body) as response:
            assert response.status in (200, 201), await response.text()
            key: str = (await response.json())["key"]
    await known(http, key)
    return key


async def known(http: str, key: str) -> None:
    """Waits until a gateway lets a key in."""
    async with aiohttp.ClientSession(http, headers={"Authorization": f"Bearer {key}"}) as session:

        async def let_in() -> bool:
            async with session.get("/v1/models") as response:
                return response.status == 200

        await eventually(let_in)


async def spend(doors: list[str], key: str, count: int) -> list[tuple[int, dict[str, Any], Any]]:
    """Sends requests over all doors at once; returns status, body and headers of each."""
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(number: int) -> tuple[int, dict[str, Any], Any]:
            async with session.post(doors[number % len(doors)] + CHAT, json=chat(number)) as response:
                return response.status, await response.json(), response.headers

        return await asyncio.gather(*(one(number) for number in range(count)))


async def charged(http: str, key: str, requests: int) -> Decimal:
    """What the tenant was charged, once so many requests are booked."""
    async with aiohttp.ClientSession(http, headers={"Authorization": f"Bearer {key}"}) as session:

        async def booked() -> dict[str, Any] | None:
            async with session.get("/v1/usage") as response:
                totals = (await response.json())["totals"]
                return totals if totals["requests"] >= requests else None

        totals = await eventually(booked)
    assert totals["requests"] == requests
    return Decimal(totals["charged_usd"])


async def test_many_at_once_over_two_gateways_never_spend_more_than_the_budget(stage: Stage):
    key = await purse(stage.http, stage.platform.admin_key, f"purse-{time.time_ns()}", BUDGET)
    with stage.platform.serving("gateway") as second:
        await known(second.http, key)
        answers = await spend([stage.http, second.http], key, 200)
    completed = [body for status, body, _ in answers if status == 200]
    refused = [(status, body["error"]["code"]) for status, body, _ in answers if status != 200]
    assert len(completed) + len(refused) == 200
    assert set(refused) == {(402, "insufficient_quota")}
    assert len(completed) >= 5, "what fits at once is let in"
    spent = await charged(stage.http, key, len(completed))
    assert spent == sum(Decimal(body["collegium"]["cost_usd"]) for body in completed)
    assert spent <= BUDGET
    message = next(body["error"]["message"] for status, body, _ in answers if status == 402)
    assert "budget purse" in message
    for status, _, headers in answers:
        assert ("x-collegium-task-id" in headers) == (status == 200), "a refused task is not kept"
        assert int(headers["x-ratelimit-limit-requests"]) == 1_000_000
        assert int(headers["x-ratelimit-remaining-requests"]) < 1_000_000


@pytest.mark.parametrize("kills", [pytest.param(0, marks=pytest.mark.long), 5])
async def test_two_gateways_and_two_replicas_of_billing_spend_a_budget_to_its_end(tmp_path: Path, kills: int):
    """All at once, and again until nothing more fits; meanwhile gateways and replicas of billing are killed.

    The long form: ``python -m collegium_testing.faults.purse``.
    """
    plan = Plan(requests=200, fits=60, kills=kills, delay_ms=300, pause_seconds=(0.2, 0.8), seed=7)
    result = await Purse(tmp_path, plan).run()
    assert result.violations == [], result
    assert result.least <= result.completed <= 60
    assert result.refused == {"402 insufficient_quota": 200 - result.completed}
    assert sum(result.killed.values()) == kills
    assert kills or (result.broken, result.waited) == (0, {})
