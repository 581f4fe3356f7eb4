"""Scenarios: processes that die between asking judges or probes and what these say."""

from __future__ import annotations

from typing import Any

import aiohttp
from collegium_bus.reading import task_events
from collegium_contracts import ids
from collegium_contracts.messages import TaskCompleted
from collegium_contracts.probes import ProbeCompared
from collegium_testing import Behaviour, Rule, eventually
from collegium_testing.faults import facts

from tests.chaos.kills import IN_FLIGHT
from tests.chaos.stage import CALL_MS, ChaosError, Stage

TASKS = 10
MEMBERS = {"alpha": "it is alpha", "beta": "it is beta"}
SCHOOL = {"alpha": "student", "beta": "student", "gamma": "teacher", "delta": "teacher"}
PROBES = {"audit_share": 1, "budget_share": 1, "tenants": ["chaos"], "delay": "1s"}
# Far more than what is asked again afterwards may cost.
EARNING = "long " * 8_000
EARNERS = 2


async def judges(stage: Stage, name: str) -> None:
    """Kills whoever comes by a failpoint while panels that stay undecided are judged: the same verdict for all."""
    verdict = {letter: Behaviour(answer=f'{{"winner": "{letter}"}}', delay_ms=CALL_MS) for letter in "AB"}
    prefers_alpha = [Rule(verdict[letter], match=f"<answer {letter}>\n{MEMBERS['alpha']}") for letter in "AB"]
    said = [Rule(Behaviour(answer=text, delay_ms=CALL_MS), model=model) for model, text in MEMBERS.items()]
    stage.simulator.script(*prefers_alpha, *said)
    await stage.up(fail=f"{name}=kill:{stage.chance.randint(1, 4)}", more={"models": _school(stage)})
    asked = await stage.load.submit(TASKS, plan="panel", panel_size=2, judge="pairwise")
    await stage.happened(name)
    await stage.recovered()
    await stage.checked(IN_FLIGHT)
    for task in [await _shown(stage, task_id) for task_id in asked]:
        came = (task["output"], task["stop_reason"], sum(call["succeeded"] for call in task["attempts"]))
        if came != (MEMBERS["alpha"], "completed", 6):
            raise ChaosError(f"{task['id']}: {came}, where two judges asked twice prefer alpha")


async def probes(stage: Stage, name: str) -> None:
    """Kills whoever comes by a failpoint while settled work is asked again: each answer is compared once, paid once."""
    said = {**MEMBERS, "gamma": "it is alpha", "delta": "it is alpha"}
    stage.simulator.script(
        *(Rule(Behaviour(answer=text, delay_ms=CALL_MS), model=model) for model, text in said.items())
    )
    # What asks again is dispatched after everything that it asks about.
    first = TASKS + EARNERS if name == "router.after-dispatch" else 0
    fail = f"{name}=kill:{first + stage.chance.randint(1, 4)}"
    await stage.up(fail=fail, more={"models": _school(stage), "evolution": {"probes": PROBES}})
    await stage.recovered(await stage.load.submit(EARNERS, model="gamma", input=EARNING))
    asked = await stage.load.submit(TASKS, model="alpha", max_tokens=8)
    await stage.happened(name, deadline_seconds=60)
    await stage.recovered()
    # A router that dies forgets what probes may cost; what it had not stored yet is not asked again.
    least = 1 if name == "router.after-draw" else TASKS
    compared = await eventually(lambda: _compared(stage, asked, least), deadline_seconds=90, every_seconds=0.5)
    stage.note(f"{compared} of {TASKS} were compared")
    await stage.checked(IN_FLIGHT)


async def _compared(stage: Stage, asked: list[str], least: int) -> int | None:
    """Returns how many tasks were asked again, once all whose probe began are compared; raises for one told twice."""
    told = 0
    async with facts.operator(stage.sources()) as connection:
        for task_id in asked:
            probe = ids.probe_id("chaos", task_id, "audit")
            messages = [message for _, _, message in await task_events(connection, probe, "chaos")]
            ends = sum(isinstance(message, TaskCompleted) for message in messages)
            found = [message for message in messages if isinstance(message, ProbeCompared)]
            if max(ends, len(found)) > 1:
                raise ChaosError(f"{probe} has {ends} ends and {len(found)} comparisons")
            if messages and (not found or not ends):
                return None
            if found and found[0].same is not True:
                raise ChaosError(f"{probe}: the same answer was found to differ")
            told += len(found)
    return told if told >= least else None


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


async def _shown(stage: Stage, task_id: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {stage.keys['chaos']}"}
    async with aiohttp.ClientSession(stage.http, headers=headers) as http, http.get(f"/v1/tasks/{task_id}") as response:
        return await response.json()
