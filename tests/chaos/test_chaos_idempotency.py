"""A gateway killed around the acceptance of a keyed request: whoever sends it again gets one task and pays once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from collegium_runtime.failpoints import VARIABLE
from collegium_testing import ModelSimulator, eventually
from collegium_testing.platforms import configuration, make_key, running_platform
from collegium_testing.simulator import Behaviour, Rule

from tests.conftest import LoopThread

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

KEY = make_key("chaos")
QUESTION = {"model": "sim", "messages": [{"role": "user", "content": "What is the capital of France?"}]}


@pytest.fixture
def model(loop_thread: LoopThread) -> Iterator[ModelSimulator]:
    simulator = loop_thread.run(ModelSimulator().__aenter__())
    simulator.script(Rule(Behaviour(answer="Paris.", delay_ms=100)))
    yield simulator
    loop_thread.run(simulator.__aexit__(None, None, None))


async def ask(http: str, path: str = "/v1/chat/completions") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": "k"}
    async with aiohttp.ClientSession(http, headers=headers) as session, session.post(path, json=QUESTION) as response:
        await response.read()
        return response.status, response.headers["x-collegium-task-id"]


@pytest.mark.parametrize(
    "place", [pytest.param("gateway.before-submit", marks=pytest.mark.long), "gateway.after-submit"]
)
async def test_a_gateway_killed_between_claim_and_mark_loses_and_doubles_nothing(
    model: ModelSimulator, tmp_path: Path, place: str
):
    config = configuration(model.base_url, tenants={"chaos": KEY})
    with running_platform(tmp_path / "data", config) as platform:
        with platform.serving("gateway", {VARIABLE: f"{place}=kill"}) as doomed, pytest.raises(aiohttp.ClientError):
            await ask(doomed.http)
        with platform.serving("gateway") as other:
            answers = await asyncio.gather(*(ask(http) for http in (platform.http, other.http) * 3))
        assert {status for status, _ in answers} == {200}
        assert len({task_id for _, task_id in answers}) == 1
        assert model.counts().totals.started == 1

        async def booked() -> bool:
            headers = {"Authorization": f"Bearer {KEY}"}
            async with (
                aiohttp.ClientSession(platform.http, headers=headers) as session,
                session.get("/v1/usage") as response,
            ):
                totals = (await response.json())["totals"]
                return (totals["requests"], float(totals["charged_usd"]) > 0) == (1, True)

        await eventually(booked)
