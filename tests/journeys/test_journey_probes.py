"""What the platform learns from its own answers on a running platform: settled work asked again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest
from collegium_contracts import ids
from collegium_testing import Behaviour, ModelSimulator, Rule, eventually
from collegium_testing.platforms import PlatformProcess, close_breakers, configuration, make_key, running_platform

from tests.conftest import LoopThread

pytestmark = pytest.mark.timeout(240)

CHAT = "/v1/chat/completions"
# Names, ranks, and what a million tokens cost to read.
SCHOOL = (("small", "student", "1"), ("large", "teacher", "10"))
PROBES = {"audit_share": 1, "shadow_share": 1, "budget_share": 1, "tenants": ["watched"], "delay": "1s"}


class School(NamedTuple):
    """The platform, the simulator behind its models, and the keys of its tenants and operator by name."""

    platform: PlatformProcess
    simulator: ModelSimulator
    keys: dict[str, str]

    def says(self, **by_model: str) -> None:
        """Scripts what each model answers."""
        self.simulator.script(*(Rule(Behaviour(answer=text), model=name) for name, text in by_model.items()))

    def session(self, key: str) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.platform.http, headers={"Authorization": f"Bearer {key}"})

    async def ask(self, tenant: str, model: str, question: str = "Which is it?", **options: Any) -> Any:
        """Asks one question and returns what the platform says of the answer."""
        body = {
            "model": model,
            "max_tokens": 8,
            "messages": [{"role": "user", "content": question}],
            "collegium": options,
        }
        async with self.session(self.keys[tenant]) as session, session.post(CHAT, json=body) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return answer["collegium"]

    async def scores(self, model: str, domain: str) -> dict[str, Any]:
        """Returns a model's row of the scoreboard, empty where there is none."""
        async with self.session(self.platform.admin_key) as session, session.get("/v1/admin/models") as response:
            [found] = [one for one in (await response.json())["data"] if one["name"] == model]
        return next((one for one in found["scores"] if one["domain"] == domain), {})

    def show(self, task: str) -> str:
        """Returns what the operator is shown of a task."""
        command = [sys.executable, "-m", "collegium_cli", "task", "show", task, "--data", str(self.platform.folder)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def _school(
    tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator, loop_thread: LoopThread
) -> Iterator[School]:
    keys = {name: make_key(name) for name in ("watched", "private", "second", "third")}
    config = configuration(simulator.base_url, tenants=keys, evolution={"probes": PROBES})
    config["models"] = [
        {
            "name": name,
            "base_url": simulator.base_url,
            "rank": rank,
            "price": {"input_usd_per_mtok": usd, "output_usd_per_mtok": usd},
        }
        for name, rank, usd in SCHOOL
    ]
    with running_platform(tmp_path_factory.mktemp("learning") / "data", config) as platform:
        yield School(platform, simulator, keys)


@pytest.fixture
def school(_school: School, loop_thread: LoopThread) -> School:
    _school.simulator.script()
    _school.simulator.reset()
    loop_thread.run(close_breakers(_school.platform))
    return _school


async def test_settled_work_of_who_allows_it_is_asked_again_and_compared(school: School):
    school.says(small="It is 4.", large="it is 5")
    # What probes may cost is earned first: a long question, which its own shadow asks again as well.
    for tenant in ("watched", "private"):
        await school.ask(tenant, "large", "long " * 8_000, domain="earning")
        await school.ask(tenant, "small", domain="sums")
    about = await school.ask("watched", "small", domain="sums")

    async def compared() -> dict[str, Any] | None:
        found = await school.scores("small", "sums")
        return found if found and found["judged"] else None

    found = await eventually(compared)
    assert found["score_mean"] == 0
    probe = ids.probe_id("watched", about["task_id"], "audit")

    async def shown() -> str | None:
        ladder = school.show(probe)
        return ladder if "ProbeCompared" in ladder else None

    ladder = await eventually(shown, every_seconds=1)
    assert "large" in ladder
    assert "different" in ladder
    assert f"audit of {about['task_id']}, answered by small" in ladder
    async with school.session(school.keys["watched"]) as session:
        async with session.get("/v1/tasks") as response:
            assert probe not in {one["id"] for one in (await response.json())["data"]}

        async def booked() -> dict[str, Any] | None:
            async with session.get("/v1/usage", params={"group_by": "tag"}) as response:
                told = await response.json()
            return next((one for one in told["data"] if one["tag"] == "collegium-probe=audit"), None)

        audits = await eventually(booked)
    # It is the operator's: its cost is booked, and its tenant charged nothing.
    assert audits["cost_usd"] > "0"
    assert audits["charged_usd"] == "0"


async def test_a_panel_that_stays_undecided_is_judged_in_both_orders(school: School):
    school.simulator.script(
        Rule(Behaviour(answer='{"winner": "B"}'), match="<answer B>\nit is five"),
        Rule(Behaviour(answer='{"winner": "A"}'), match="<answer A>\nit is five"),
        Rule(Behaviour(answer="it is four"), model="small"),
        Rule(Behaviour(answer="it is five"), model="large"),
    )
    panel = {"plan": "panel", "panel_size": 2}
    about = await school.ask("private", "auto", **panel)
    assert (about["model"], about["attempts"], about["stop_reason"]) == ("small", 2, "no_majority")
    about = await school.ask("private", "auto", judge="pairwise", **panel)
    assert (about["model"], about["attempts"], about["stop_reason"]) == ("large", 6, "completed")
    ladder = school.show(about["task_id"])
    assert ladder.count("judged by others") == 4


async def test_judges_that_hang_or_say_a_megabyte_end_in_a_verdict_with_its_reason(school: School):
    members = [Rule(Behaviour(answer="it is four"), model="small"), Rule(Behaviour(answer="it is five"), model="large")]
    panel = {"plan": "panel", "panel_size": 2, "judge": "pairwise"}
    school.simulator.script(Rule(Behaviour(answer="x" * 1_000_000), match="<answer A>"), *members)
    about = await school.ask("private", "auto", **panel)
    # Nonsense is asked in one order alone.
    assert (about["model"], about["attempts"], about["stop_reason"]) == ("small", 4, "no_majority")
    school.simulator.script(Rule(Behaviour(hang=True), match="<answer A>"), *members)
    about = await school.ask("private", "auto", deadline_seconds=3, **panel)
    assert (about["model"], about["attempts"], about["stop_reason"]) == ("small", 4, "no_majority")


async def test_answers_are_compared_by_the_type_that_was_asked_for(school: School):
    school.says(small="It costs $1,200.00", large="1200")
    panel = {"plan": "panel", "panel_size": 2}
    assert (await school.ask("private", "auto", **panel))["stop_reason"] == "no_majority"
    assert (await school.ask("private", "auto", answer="number", **panel))["stop_reason"] == "completed"
    school.says(small="I would refund this one.", large="refund")
    labels = {"answer": "label", "labels": ["refund", "reject"]}
    assert (await school.ask("private", "auto", **labels, **panel))["stop_reason"] == "completed"


async def test_confidence_is_learned_from_what_became_of_answers(school: School):
    school.says(small="a", large="a")
    panel = {"plan": "panel", "panel_size": 2, "domain": "learned"}
    prior = await school.ask("private", "auto", **panel)
    for tenant in ("private", "second", "third"):
        async with school.session(school.keys[tenant]) as session:
            for _ in range(14):
                about = await school.ask(tenant, "auto", **panel)
                async with session.post(f"/v1/tasks/{about['task_id']}/feedback", json={"score": 0}) as response:
                    assert response.status == 201

    async def learned() -> dict[str, Any] | None:
        about = await school.ask("private", "auto", **panel)
        return about if "calibrated by all/" in school.show(about["task_id"]) else None

    about = await eventually(learned, every_seconds=1)
    command = [sys.executable, "-m", "collegium_cli", "calibration", "--json", "--data", str(school.platform.folder)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: ASYNC221 - our own module
    told = msgspec.json.decode(shown)
    # It said so, and was wrong each time.
    assert about["confidence"] < 0.25 < prior["confidence"]
    assert told["members"]["learned"]["small"] < 0.25
    assert {one["domain"] for one in told["domains"]} == {"(all)", "learned"}
