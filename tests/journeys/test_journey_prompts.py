"""The life of a prompt student from outside: a gap is found, it is spawned, compared, promoted, serves, and falls."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from collegium_contracts.ids import shard_of
from collegium_testing import Behaviour, ModelSimulator, Rule, eventually

from tests.journeys.school import School, school_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

# The rich one's work earns what probes of its shard's tenants may cost.
TENANT, RICH, DOMAIN = "owner", "rich36", "desk"
# As bold as settings allow, so that some dozens of tasks are enough.
RANKS = {"odds": 20, "margin": 0.3, "false_share": 0.5}
PROBES = {"shadow_share": 1, "audit_share": 1, "budget_share": 1, "tenants": [TENANT], "delay": "1s"}
# Fewer than a head asks for, so that what is spawned is a prompt.
TAUGHT = 60
AT_A_TIME = 20
# With how these instructions begin that a prompt student's base is told.
SHOWN = "Answer as the examples"
LEARNING_SECONDS = 240


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator) -> Iterator[School]:
    folder, evolution = tmp_path_factory.mktemp("prompts"), {"probes": PROBES, "ranks": RANKS}
    with school_of(folder, simulator, [TENANT, RICH], evolution=evolution) as school:
        yield school


def says(school: School, *, shown: str, teacher: str) -> None:
    """Scripts what the small model answers that is shown examples, and what the teacher; by itself it knows nothing."""
    school.simulator.script(
        Rule(Behaviour(answer=shown), model="small", told=SHOWN),
        Rule(Behaviour(answer="no idea"), model="small"),
        Rule(Behaviour(answer=teacher), model="large"),
    )


QUESTIONS = (f"Which is ticket {number} of the {word}?" for number in itertools.count() for word in ("north", "south"))


async def asked(school: School, count: int = AT_A_TIME, *, right: str = "") -> list[dict[str, Any]]:
    """Asks questions that nobody asked before; where it is known what is right, says so of each answer."""
    answers = await school.ask(TENANT, itertools.islice(QUESTIONS, count), domain=DOMAIN)
    if right:
        await school.judge(TENANT, [one for one in answers if one["text"] == right], 1.0)
        await school.judge(TENANT, [one for one in answers if one["text"] != right], 0.0)
    return answers


async def answered_by(school: School, model: str) -> None:
    """Waits until one model answers all that is asked."""

    async def is_so() -> bool:
        return {one["model"] for one in await asked(school, 4)} == {model}

    await eventually(is_so)


async def changed(school: School, model: str, right: str, grounds: set[str]) -> dict[str, Any]:
    """Asks, judges and does rounds until a model's rank changes on one of these grounds; returns the change."""

    async def has() -> dict[str, Any] | None:
        await asked(school, right=right)
        await school.round()
        rows = json.loads(await school.cli("model", "rank", model, "--json"))
        return next((row for row in rows if row["ground"] in grounds and row["state"] == "applied"), None)

    return await eventually(has, deadline_seconds=LEARNING_SECONDS, every_seconds=1)


async def test_a_prompt_student_is_spawned_for_a_gap_promoted_and_falls_by_what_is_said_of_it(school: School) -> None:
    says(school, shown="seven", teacher="seven")
    assert shard_of(RICH) == shard_of(TENANT)
    await school.ask(RICH, [f"{'Which ' * 8_000}is number {number}?" for number in range(8)])
    name = await _spawned(school)
    change = await changed(school, name, "seven", {"as_good_and_cheaper", "better"})
    told = change["evidence"]
    assert (change["before"], change["after"], change["tenant"], change["domain"]) == (None, "ta", TENANT, DOMAIN)
    assert told["odds"] >= told["needed"]
    await answered_by(school, name)
    [answer] = await asked(school, 1)
    assert (answer["rank"], answer["text"]) == ("ta", "seven")
    assert "why prompt." in await school.cli("task", "show", answer["task_id"])
    assert json.loads(await school.cli("model", "rank", "small", "--json")) == [], "what it is made of earned nothing"

    # What is right changes, and what it was shown does not.
    says(school, shown="seven", teacher="eight")
    fallen = await changed(school, name, "eight", {"worse", "worse_lately"})
    assert (fallen["before"], fallen["after"]) == ("ta", "student")
    await answered_by(school, "large")
    shown = await school.done("GET", f"/v1/admin/students/{name}", tenant="")
    assert shown["state"] == "serving", "it fell and was not taken away: whoever names it is answered"


async def _spawned(school: School) -> str:
    """Answers of which half is wrong are a gap, for which a round makes a student by itself; returns its name."""
    await school.cli("tenant", "set", TENANT, "--collect", "on")

    async def collects() -> bool:
        await asked(school, 1)
        return bool((await school.done("GET", f"/v1/admin/samples?tenant={TENANT}"))["data"])

    await eventually(collects, every_seconds=0.5)
    assert json.loads(await school.cli("gap", "ls", "--tenant", TENANT, "--json")) == []
    answers = await asked(school, 2 * TAUGHT)
    for judged, score in ((answers[:TAUGHT], 1.0), (answers[TAUGHT:], 0.0)):
        await school.judge(TENANT, judged, score)

    async def spawned() -> str | None:
        await school.round()
        rows = json.loads(await school.cli("student", "ls", "--tenant", TENANT, "--json"))
        assert not [row for row in rows if row["state"] == "failed"], rows
        return next((row["name"] for row in rows if row["state"] == "serving"), None)

    name = await eventually(spawned, every_seconds=1)
    assert name.startswith(f"prompt.{TENANT}.{DOMAIN}-")
    [gap] = json.loads(await school.cli("gap", "ls", "--tenant", TENANT, "--json"))
    assert gap["domain"] == DOMAIN
    [other] = await school.ask(TENANT, ["Which is the last ticket?"], domain=DOMAIN)
    assert other["model"] == "large", "a student earns its place first"
    [named] = await school.ask(TENANT, ["Which is the very last ticket?"], name, domain=DOMAIN)
    assert (named["rank"], named["text"]) == ("student", "seven")
    return name
