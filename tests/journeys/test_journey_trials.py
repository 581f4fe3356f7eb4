"""Experiments from outside: a policy wins and is rolled out, what harms is taken back, both arms answer in shadow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from collegium_testing import ModelSimulator, eventually

from tests.journeys.school import School, school_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

TENANT, DOMAIN = "trier", "law"
# Words about each model, more than the caution of a policy asks for.
WORDS = 30
USERS = [f"user-{number}" for number in range(48)]
# What earns probes that ask large questions again.
LONG = "long " * 8_000


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator) -> Iterator[School]:
    probes = {"budget_share": 1, "tenants": [TENANT], "delay": "1s"}
    folder, routing = tmp_path_factory.mktemp("trials"), {"tolerance": 0.06}
    with school_of(folder, simulator, [TENANT], routing=routing, evolution={"probes": probes}) as school:
        school.says(small="it is six", large="it is seven")
        yield school


async def asked(school: School, users: list[str], domain: str = DOMAIN) -> dict[str, dict[str, Any]]:
    """Each user asks once; returns what is told of the answers by user."""
    found = {}
    async with school.session(TENANT) as session:
        for user in users:
            body = {
                "model": "auto",
                "max_tokens": 8,
                "messages": [{"role": "user", "content": f"Who may appeal, asks {user}?"}],
                "collegium": {"domain": domain, "tags": {"user": user}},
            }
            async with session.post("/v1/chat/completions", json=body) as response:
                answer = await response.json()
                assert response.status == 200, answer
            found[user] = answer["collegium"]
    return found


async def models(school: School, domain: str = DOMAIN, count: int = 12) -> set[str]:
    """Who answers the first users now."""
    return {one["model"] for one in (await asked(school, USERS[:count], domain)).values()}


async def all_of(school: School, model: str) -> None:
    """Waits until one model answers everybody."""

    async def is_so() -> bool:
        return await models(school) == {model}

    await eventually(is_so)


async def look(school: School, name: str) -> dict[str, Any]:
    [found] = json.loads(await school.cli("experiment", "show", name, "--json"))
    return found


async def drafted(school: School, *words: str) -> str:
    """Drafts an experiment of the tenant's users and starts it; returns its id."""
    [made] = json.loads(
        await school.cli(
            "experiment", "create", *words, "--tenant", TENANT, "--domain", DOMAIN, "--unit", "user", "--json"
        )
    )
    assert made["state"] == "draft"
    await school.cli("experiment", "start", made["id"], "--reason", "to see what it is worth")
    return made["id"]


async def test_a_policy_is_tried_wins_is_rolled_out_and_switched_off(school: School) -> None:
    version = await _learned(school)
    # By what was learned the small model would answer; an operator wants to see that proven first.
    await school.cli("policy", "rollback", TENANT, "--version", "0")
    await all_of(school, "large")
    name = await drafted(school, "the learned policy", "--policy", str(version), "--share", "0.5")
    await school.cli("experiment", "ramp", name, "--share", "1")

    async def both() -> bool:
        return await models(school) == {"small", "large"}

    await eventually(both)
    arms = {user: one["model"] for user, one in (await asked(school, USERS)).items()}
    again = await asked(school, USERS)
    assert {user: one["model"] for user, one in again.items()} == arms, "a user keeps its arm"
    for model, score in (("small", 1.0), ("large", 0.0)):
        await school.judge(TENANT, [one for one in again.values() if one["model"] == model], score)
    sides = {
        arm: sum(one == model for one in arms.values()) for arm, model in (("control", "large"), ("candidate", "small"))
    }

    async def decided() -> dict[str, Any] | None:
        found = (await look(school, name))["look"]
        return found if {arm["arm"]: arm["judged"] for arm in found["arms"]} == sides else None

    seen = await eventually(decided)
    assert (seen["verdict"], seen["is_mismatched"]) == ("better", False), seen
    assert {arm["arm"]: arm["units"] for arm in seen["arms"]} == sides
    effects = {one["metric"]: one for one in seen["effects"]}
    assert 0 < effects["quality"]["low"] < effects["quality"]["value"] <= effects["quality"]["high"] <= 2
    assert not any(one["breached"] for one in effects.values())
    ladder = await school.cli("task", "show", next(one["task_id"] for one in again.values() if one["model"] == "small"))
    assert f"candidate of {name}" in ladder or name in ladder, ladder

    told = await school.cli("experiment", "conclude", name, "--winner", "candidate", "--rollout", "--reason", "it won")
    assert "concluded, candidate won" in told
    await all_of(school, "small")
    assert await models(school, "sums", 2) == {"large"}, "another domain goes on as it was"
    assert f"policy {version}" in await school.cli("flag", "ls", "--tenant", TENANT)
    await _switched(school)


async def _learned(school: School) -> int:
    """Has it learned that the small model is as good in its domain; returns the version that says so."""
    for model in ("small", "large"):
        answers = await school.ask(TENANT, [f"Of {model}: {number}?" for number in range(WORDS)], model, domain=DOMAIN)
        await school.judge(TENANT, answers, 1.0)

    async def version() -> int | None:
        await school.round()
        found = (await school.done("GET", f"/v1/admin/policies?tenant={TENANT}"))["data"]
        return found[0]["version"] if found and found[0]["rows"] >= 2 * WORDS else None

    found = await eventually(version)
    await all_of(school, "small")
    return found


async def _switched(school: School) -> None:
    """Everything of the tenant is switched off and on, and then the flag is taken away."""
    await school.cli("flag", "kill", "--tenant", TENANT, "--reason", "a drill")
    await all_of(school, "large")
    assert "is killed" in await school.cli("flag", "ls", "--tenant", TENANT)
    await school.cli("flag", "revive", "--tenant", TENANT)
    await all_of(school, "small")
    [flag] = [row["name"] for row in (await school.done("GET", f"/v1/admin/flags?tenant={TENANT}"))["data"]]
    await school.cli("flag", "rm", flag, "--tenant", TENANT)
    await all_of(school, "large")


async def test_a_candidate_that_harms_is_taken_back_by_itself(school: School) -> None:
    name = await drafted(school, "a cheaper model", "--model", "small")

    async def taken_back() -> dict[str, Any] | None:
        answers = await asked(school, USERS)
        for model, score in (("small", 0.0), ("large", 1.0)):
            await school.judge(TENANT, [one for one in answers.values() if one["model"] == model], score)
        found = await look(school, name)
        return found if found["state"] == "rolled_back" else None

    ended = await eventually(taken_back)
    [quality] = [one for one in ended["look"]["effects"] if one["metric"] == "quality"]
    assert quality["breached"]
    assert quality["odds"] >= quality["needed"]
    await all_of(school, "large")


async def test_questions_are_answered_by_both_arms_in_shadow(school: School) -> None:
    name = await drafted(school, "side by side", "--model", "small", "--interleave", "1")
    await school.ask(TENANT, [LONG], "large")

    async def both() -> bool:
        answers = await asked(school, USERS[:12])
        # What is shown is right, whichever arm's it is.
        await school.judge(TENANT, answers.values(), 1.0)
        told = (await look(school, name))["look"]["interleaved"]
        return bool(told and told["candidate_won"] and told["control_won"] and not told["same"])

    await eventually(both, every_seconds=1)
    assert "asked of both" in await school.cli("experiment", "show", name)
    told = await school.cli("experiment", "stop", name, "--reason", "seen")
    assert "stopped" in told
    await all_of(school, "large")
