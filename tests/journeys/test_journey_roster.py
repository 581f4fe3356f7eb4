"""Models that come and go while the platform runs: probed, added, asked, changed, removed; and who may not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from collegium_testing import eventually

from tests.conftest import Stage

pytestmark = pytest.mark.timeout(180)

MODELS = "/v1/admin/models"
NAME = "roster.added-1"


@pytest.fixture
async def operator(stage: Stage) -> AsyncIterator[aiohttp.ClientSession]:
    async with stage.session(stage.platform.admin_key) as session:
        yield session
        async with session.delete(f"{MODELS}/{NAME}"):
            pass


def spec(stage: Stage, **more: Any) -> dict[str, Any]:
    return {
        "name": NAME,
        "base_url": stage.simulator.base_url,
        "key": "sim",
        "domains": ["roster-journey"],
        "price": {"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"},
        **more,
    }


async def added(session: aiohttp.ClientSession, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with session.post(MODELS, json=body) as reply:
        return reply.status, await reply.json()


async def asked(session: aiohttp.ClientSession, model: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    async with session.post("/v1/chat/completions", json=body) as reply:
        await reply.read()
        return reply.status


async def test_a_model_is_probed_added_asked_changed_and_removed(stage: Stage, operator: aiohttp.ClientSession):
    status, made = await added(operator, spec(stage))
    assert status == 201, made
    assert {one["name"]: one["state"] for one in made["probes"] if one["needed"]} == {
        "chat": "passed", "stream": "passed", "usage": "passed", "context": "skipped",
    }  # fmt: skip
    assert "simulated" not in str(made)
    async with stage.session() as session:

        async def answers() -> bool:
            return await asked(session, NAME) == 200

        await eventually(answers)
    async with operator.patch(f"{MODELS}/{NAME}", json={"max_output_tokens": 99}) as reply:
        changed = await reply.json()
        assert reply.status == 200, changed
    assert changed["spec"]["max_output_tokens"] == 99
    async with operator.get(f"{MODELS}/{NAME}") as reply:
        shown = await reply.json()
    assert (shown["max_output_tokens"], shown["added"], shown["spec"]["key"]) == (99, True, "sim")
    command = [sys.executable, "-m", "collegium_cli", "model", "remove", NAME, "--data", str(stage.platform.folder)]
    assert "removed" in subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: ASYNC221
    async with stage.session() as session:

        async def is_gone() -> bool:
            return await asked(session, NAME) == 400

        await eventually(is_gone)


async def test_the_probes_are_booked_as_the_operators_waste(stage: Stage, operator: aiohttp.ClientSession):
    status, made = await added(operator, spec(stage))
    assert status == 201, made
    assert made["probe_cost_usd"] > "0"

    async def is_booked() -> bool:
        async with operator.get("/v1/usage?group_by=tenant,model&tenant=operator") as reply:
            rows = (await reply.json())["data"]
        mine = [row for row in rows if row["model"] == NAME]
        return bool(mine) and float(mine[0]["wasted_usd"]) > 0 and float(mine[0]["charged_usd"]) == 0

    await eventually(is_booked)


async def test_what_a_probe_refuses_is_added_by_force_alone(stage: Stage, operator: aiohttp.ClientSession):
    body = spec(stage, capabilities=["tools"])
    status, refused = await added(operator, body)
    assert (status, refused["error"]["code"]) == (422, "probe_failed")
    assert "tools: answered without a call of the tool" in refused["error"]["message"]
    status, made = await added(operator, {**body, "force": True})
    assert (status, made.get("forced")) == (201, True)
    status, again = await added(operator, {**body, "force": True})
    assert (status, again["error"]["code"]) == (409, "already_exists")


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"api_key": "sk-secret-in-the-body"}, "invalid_value", "api_key"),
        ({"key": "nobody"}, "invalid_value", "key"),
        ({"base_url": "http://localhost:1/v1"}, "invalid_value", "key"),
        ({"name": "auto"}, "invalid_value", "name"),
        ({"price": None}, "invalid_value", "price"),
        ({"pool": "nowhere"}, "no_worker", "pool"),
        ({"fallbacks": ["nobody"]}, "invalid_value", "fallbacks[0]"),
        ({"name": "sim"}, "already_exists", "name"),
    ],
)
async def test_what_no_model_can_be_is_refused(
    stage: Stage, operator: aiohttp.ClientSession, fields: dict[str, Any], code: str, param: str
):
    status, refused = await added(operator, spec(stage) | fields)
    assert status >= 400
    assert (refused["error"]["code"], refused["error"]["param"]) == (code, param), refused
    assert "secret-in-the-body" not in str(refused)


async def test_a_model_of_the_file_is_neither_changed_nor_removed(stage: Stage, operator: aiohttp.ClientSession):
    for act in (operator.patch(f"{MODELS}/sim", json={"pool": "x"}), operator.delete(f"{MODELS}/sim")):
        async with act as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (409, "model_configured")
