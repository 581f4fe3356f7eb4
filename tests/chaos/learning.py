"""Scenarios: evolution dies within a round of learning, which is gone on with: one report, each change made once."""

from __future__ import annotations

from typing import Any

import aiohttp
from collegium_testing import Behaviour, Rule, eventually

from tests.chaos.kills import IN_FLIGHT
from tests.chaos.stage import CALL_MS, ChaosError, Stage

TASKS = 60
# The cheaper one was right each time, and the teacher that was asked again said otherwise.
SAID = {"alpha": "4", "gamma": "5"}
SCHOOL = {"alpha": "student", "gamma": "teacher"}
PROBES = {"audit_share": 1, "budget_share": 1, "tenants": ["chaos"], "delay": "1s"}
EVOLUTION = {"interval_queries": 1_000_000, "probes": PROBES, "auto_spawn_students": False}
# What asking again may cost is earned first.
EARNING = "long " * 8_000
EARNERS = 8
STEPS = 5


async def a_round(stage: Stage, name: str) -> None:
    """Kills evolution where it comes by a failpoint of a round that has a policy and a promotion to make."""
    said = (Rule(Behaviour(answer=text, delay_ms=CALL_MS), model=model) for model, text in SAID.items())
    stage.simulator.script(*said)
    hit = stage.chance.randint(1, STEPS) if name == "evolution.before-note" else 1
    await stage.up(fail=f"{name}=kill:{hit}", more={"models": _school(stage), "evolution": EVOLUTION})
    await stage.recovered(await stage.load.submit(EARNERS, model="gamma", input=EARNING))
    asked = await stage.load.submit(TASKS, model="alpha", max_tokens=8)
    await stage.recovered(asked)
    async with _operator(stage) as http, _session(stage, stage.keys["chaos"]) as client:
        for task in asked:
            await _call(client, "POST", f"/v1/tasks/{task}/feedback", {"score": 1})
        await eventually(lambda: _is_heard(http), deadline_seconds=120, every_seconds=0.5)
        round_id = (await _call(http, "POST", "/v1/admin/evolution/run"))["id"]
        await stage.happened(name, deadline_seconds=90)
        await stage.recovered()
        report = await eventually(lambda: _ended(http, round_id), deadline_seconds=120, every_seconds=0.5)
        await _is_once(http, report)
    await stage.checked(IN_FLIGHT)


async def _is_once(http: aiohttp.ClientSession, report: dict[str, Any]) -> None:
    """Checks that the round made one policy and one promotion, told each, and was reported once."""
    rounds = (await _call(http, "GET", "/v1/admin/evolution"))["data"]
    if len(rounds) != 1 or report["state"] != "done":
        raise ChaosError(f"{len(rounds)} rounds, of which this is {report['state']}: {report}")
    changes = (await _call(http, "GET", "/v1/admin/ranks?model=alpha"))["data"]
    if [(one["state"], one["after"]) for one in changes] != [("applied", "ta")]:
        raise ChaosError(f"one promotion was to be made, not {changes}")
    versions = (await _call(http, "GET", "/v1/admin/policies/chaos"))["data"]
    if [(one["version"], one["state"]) for one in versions] != [(1, "live")]:
        raise ChaosError(f"one policy was to be made, not {versions}")
    lines = [line for step in report["steps"] for line in step["lines"]]
    for begins in ("alpha for chaos: student to ta", "chaos: version 1 of"):
        if sum(line.startswith(begins) for line in lines) != 1:
            raise ChaosError(f"the report tells {begins!r} not once: {lines}")


async def _is_heard(http: aiohttp.ClientSession) -> bool:
    """Whether each answer was judged twice: by its client, and by asking again."""
    rows = (await _call(http, "GET", "/v1/admin/scoreboard?tenant=chaos&model=alpha"))["data"]
    judged = sum(row["judged"] for row in rows)
    # What was said some minutes ago counts a little less.
    assert judged > 2 * TASKS - 1, f"{judged} of {2 * TASKS} words were heard"
    return True


async def _ended(http: aiohttp.ClientSession, round_id: str) -> dict[str, Any] | None:
    try:
        shown = await _call(http, "GET", f"/v1/admin/evolution/{round_id}")
    except aiohttp.ClientError:
        # Evolution is not back yet.
        return None
    return shown if shown["state"] != "running" else None


async def _call(http: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Any:
    async with http.request(method, path, json=body) as response:
        response.raise_for_status()
        return await response.json()


def _operator(stage: Stage) -> aiohttp.ClientSession:
    assert stage.platform is not None
    return _session(stage, stage.platform.admin_key)


def _session(stage: Stage, key: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(stage.http, headers={"Authorization": f"Bearer {key}"})


def _school(stage: Stage) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "base_url": stage.simulator.base_url,
            "rank": rank,
            "timeout_seconds": 90,
            "price": {"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"},
        }
        for name, rank in SCHOOL.items()
    ]
