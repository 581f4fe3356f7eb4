"""Routing that learns, on a running platform: what feedback says decides who answers, and an operator takes it back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import aiohttp
import pytest
from collegium_testing import ModelSimulator, eventually
from collegium_testing.platforms import PlatformProcess, configuration, make_key, running_platform

pytestmark = pytest.mark.timeout(240)

CHAT = "/v1/chat/completions"
# Names, ranks, and what a million tokens cost.
SCHOOL = (("small", "student", "1"), ("large", "teacher", "10"))
# Words about each model in each domain, more than the caution of a policy asks for.
WORDS = 30


class School(NamedTuple):
    """The platform and the keys of its tenants by name."""

    platform: PlatformProcess
    keys: dict[str, str]

    def session(self, tenant: str = "") -> aiohttp.ClientSession:
        """A session of a tenant, or of the operator."""
        key = self.keys[tenant] if tenant else self.platform.admin_key
        return aiohttp.ClientSession(self.platform.http, headers={"Authorization": f"Bearer {key}"})

    def run(self, *arguments: str) -> str:
        """Returns what a verb of the command line prints."""
        command = [sys.executable, "-m", "collegium_cli", *arguments, "--data", str(self.platform.folder)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator) -> Iterator[School]:
    keys = {"pupil": make_key("pupil"), "stranger": make_key("stranger")}
    config = configuration(simulator.base_url, tenants=keys, evolution={"interval_queries": 1_000_000})
    config["routing"] = {"exploration": 0.0, "tolerance": 0.06}
    config["models"] = [
        {
            "name": name,
            "base_url": simulator.base_url,
            "rank": rank,
            "price": {"input_usd_per_mtok": usd, "output_usd_per_mtok": usd},
        }
        for name, rank, usd in SCHOOL
    ]
    simulator.script()
    simulator.reset()
    with running_platform(tmp_path_factory.mktemp("policies") / "data", config) as platform:
        yield School(platform, keys)


async def ask(session: aiohttp.ClientSession, model: str, domain: str) -> dict[str, Any]:
    body = {
        "model": model,
        "max_tokens": 8,
        "messages": [{"role": "user", "content": f"A question of {domain}: who may appeal, and when?"}],
        "collegium": {"domain": domain},
    }
    async with session.post(CHAT, json=body) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return answer["collegium"]


async def judged(session: aiohttp.ClientSession, model: str, domain: str, score: float) -> None:
    task = (await ask(session, model, domain))["task_id"]
    async with session.post(f"/v1/tasks/{task}/feedback", json={"score": score}) as response:
        assert response.status == 201, await response.text()


async def learned(school: School) -> dict[str, Any]:
    """Has a round of learning done, until the pupil has a policy, and returns it."""

    async def standing() -> dict[str, Any] | None:
        async with school.session() as operator:
            async with operator.post("/v1/admin/evolution/run") as response:
                assert response.status in (202, 409), await response.text()
            async with operator.get("/v1/admin/policies", params={"tenant": "pupil"}) as response:
                found = (await response.json())["data"]
        return found[0] if found and found[0]["rows"] >= 4 * WORDS else None

    return await eventually(standing, every_seconds=0.5)


async def test_auto_goes_by_what_feedback_said_and_an_operator_takes_it_back(school: School):
    async with school.session("pupil") as session, school.session("stranger") as other:
        before = await ask(session, "auto", "law")
        assert before["model"] == "large"
        # The student is as good at law as its teacher, and no good at sums.
        await asyncio.gather(
            *(judged(session, model, domain, score) for _ in range(WORDS) for model, domain, score in (
                ("small", "law", 1), ("large", "law", 1), ("small", "sums", 0), ("large", "sums", 1),
            ))
        )  # fmt: skip
        policy = await learned(school)
        assert policy["state"] == "live"
        law = {one["model"]: one["quality"] for one in policy["domains"]["law"]}
        assert law["small"] > 0.9

        async def switched() -> dict[str, Any] | None:
            found = await ask(session, "auto", "law")
            return found if found["model"] == "small" else None

        cheap = await eventually(switched)
        assert (await ask(session, "auto", "sums"))["model"] == "large"
        assert (await ask(session, "auto", "new"))["model"] == "large"
        # Named models are never swapped, and nobody learns from a stranger.
        assert (await ask(session, "large", "law"))["model"] == "large"
        assert (await ask(other, "auto", "law"))["model"] == "large"

        shown = await asyncio.to_thread(school.run, "task", "show", cheap["task_id"])
        assert "why small: the cheapest that is expected to be as good" in shown
        assert f"tenant policy {policy['version']}, domain law" in shown
        stood = await asyncio.to_thread(school.run, "task", "show", before["task_id"])
        assert "why large: no policy stands" in stood

        told = await asyncio.to_thread(school.run, "policy", "rollback", "pupil", "--version", "0")
        assert "stays" in told

        async def taken_back() -> bool | None:
            return (await ask(session, "auto", "law"))["model"] == "large" or None

        assert await eventually(taken_back)
        history = await asyncio.to_thread(school.run, "policy", "history", "pupil")
        assert f"version 0 chosen instead of {policy['version']}" in history
        assert "superseded" in history
