"""Cascades and panels on a running platform with a school of models: who is asked, when it ends, what it costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import aiohttp
import grpc.aio
import pytest
from collegium_protocol.v1.chat_pb2 import ChatMessage, ChatRequest, Options
from collegium_protocol.v1.chat_pb2_grpc import ChatStub
from collegium_testing import Behaviour, ModelSimulator, Rule, eventually
from collegium_testing.platforms import PlatformProcess, close_breakers, configuration, make_key, running_platform

from tests.conftest import LoopThread

pytestmark = pytest.mark.timeout(240)

CHAT = "/v1/chat/completions"
# Names, ranks, and what a million tokens cost to read.
SCHOOL = (("small", "student", "1"), ("little", "student", "2"), ("middle", "ta", "10"), ("large", "teacher", "100"))
PANEL = {"plan": "panel", "panel_size": 5}
CASCADE = {"plan": "cascade"}


class School(NamedTuple):
    """The platform, the simulator behind all its models, and the keys of a tenant that pays and one that is poor."""

    platform: PlatformProcess
    simulator: ModelSimulator
    key: str
    poor_key: str

    def says(self, **by_model: str | Behaviour) -> None:
        """Scripts what each model answers, or how it behaves."""
        behaviours = {name: Behaviour(answer=one) if isinstance(one, str) else one for name, one in by_model.items()}
        self.simulator.script(*(Rule(behaviour, model=name) for name, behaviour in behaviours.items()))

    def started(self) -> dict[str, int]:
        """How many calls each model got."""
        return {name: count.started for name, count in self.simulator.counts().models.items() if count.started}

    def session(self, key: str | None = None) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.platform.http, headers={"Authorization": f"Bearer {key or self.key}"})

    async def ask(self, options: dict[str, Any], *, status: int = 200, key: str | None = None, **fields: Any) -> Any:
        """Asks one question and returns the body of the answer."""
        messages = [{"role": "user", "content": "Which is it?"}]
        body = {"model": "auto", "max_tokens": 8, "messages": messages, "collegium": options} | fields
        async with self.session(key) as session, session.post(CHAT, json=body) as response:
            answer = await response.json()
            assert response.status == status, answer
            return answer


@pytest.fixture(scope="module")
def _school(
    tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator, loop_thread: LoopThread
) -> Iterator[School]:
    keys = {"acme": make_key("acme"), "poor": make_key("poor")}
    config = configuration(simulator.base_url, tenants=keys)
    config["models"] = [
        {
            "name": name,
            "base_url": simulator.base_url,
            "rank": rank,
            "timeout_seconds": 30,
            "price": {"input_usd_per_mtok": usd, "output_usd_per_mtok": usd},
        }
        for name, rank, usd in SCHOOL
    ]
    # The hold of one student's answer fits, that of a teacher's does not.
    config["tenants"][0]["budget"] = {"usd": "1000", "window": "30d"}
    config["tenants"][1]["budget"] = {"usd": "0.02", "window": "30d"}
    with running_platform(tmp_path_factory.mktemp("school") / "data", config) as platform:
        yield School(platform, simulator, keys["acme"], keys["poor"])


@pytest.fixture
def school(_school: School, loop_thread: LoopThread) -> School:
    _school.simulator.script()
    _school.simulator.reset()
    loop_thread.run(close_breakers(_school.platform))
    return _school


async def test_a_cascade_stops_at_students_who_agree(school: School):
    school.says(small="Yes.", little="yes", middle="no", large="no")
    answer = await school.ask(CASCADE)
    about = answer["collegium"]
    assert answer["choices"][0]["message"]["content"] == "Yes."
    assert (about["plan"], about["model"], about["rank"], about["attempts"]) == ("cascade", "small", "student", 2)
    assert (about["stop_reason"], about["confidence"] > 0.7) == ("completed", True)
    assert school.started() == {"small": 1, "little": 1}


async def test_a_cascade_climbs_to_the_teacher_and_shows_why(school: School):
    school.says(small="a", little="b", middle="c", large="d")
    about = (await school.ask(CASCADE))["collegium"]
    assert (about["model"], about["rank"], about["attempts"]) == ("large", "teacher", 4)
    assert about["confidence"] < 0.5
    assert school.started() == dict.fromkeys(("small", "little", "middle", "large"), 1)
    command = [sys.executable, "-m", "collegium_cli", "task", "show", about["task_id"]]
    shown = subprocess.run(  # noqa: ASYNC221 - our own module
        [*command, "--data", str(school.platform.folder)], check=True, capture_output=True, text=True
    ).stdout
    assert "plan cascade, 2 of at most 4 attempts at first" in shown
    asked = [line for line in shown.splitlines() if "AttemptAsked" in line]
    assert [("ta" in line, "teacher" in line) for line in asked] == [(True, False), (False, True)]
    assert all("confidence" in line and "wanted 70%" in line for line in asked)


async def test_an_assistant_who_bears_a_student_out_ends_the_climb(school: School):
    school.says(small="a", little="b", middle="b", large="c")
    about = (await school.ask(CASCADE))["collegium"]
    assert (about["rank"], about["attempts"], about["stop_reason"]) == ("student", 3, "completed")
    assert "large" not in school.started()


async def test_a_quality_is_climbed_for_and_told_where_it_was_not_reached(school: School):
    school.says(small="a", little="a", middle="a", large="a")
    about = (await school.ask({"quality_min": 0.999}))["collegium"]
    assert (about["plan"], about["attempts"], about["stop_reason"]) == ("cascade", 4, "below_quality")
    assert 0.7 < about["confidence"] < 0.999


async def test_a_panel_of_five_stops_after_two_that_agree(school: School):
    school.says(small="yes", little="Yes!", middle="no", large="no")
    about = (await school.ask(PANEL))["collegium"]
    assert (about["plan"], about["attempts"], about["stop_reason"]) == ("panel", 2, "completed")
    assert school.started() == {"small": 1, "little": 1}, "what is saved is never started"


async def test_a_panel_asks_on_while_its_members_differ(school: School):
    school.says(small="a", little="b", middle="c", large="c")
    about = (await school.ask(PANEL))["collegium"]
    assert (about["attempts"], about["model"], about["stop_reason"]) == (4, "middle", "completed")
    school.says(small="a", little="b", middle="c", large="d")
    about = (await school.ask({"plan": "panel", "panel_size": 4}))["collegium"]
    assert (about["attempts"], about["model"], about["stop_reason"]) == (4, "small", "no_majority")


async def test_a_member_that_fails_is_replaced(school: School):
    school.says(small=Behaviour(status=400), little="yes", middle="yes")
    about = (await school.ask(PANEL))["collegium"]
    assert (about["attempts"], about["model"], about["stop_reason"]) == (3, "little", "completed")
    school.says(small=Behaviour(status=400), little=Behaviour(status=400), middle="yes", large="yes")
    about = (await school.ask(CASCADE))["collegium"]
    assert about["model"] in ("middle", "large")
    assert about["stop_reason"] == "completed"


async def test_time_that_is_over_gives_what_had_been_answered(school: School):
    school.says(small="a", little=Behaviour(hang=True))
    for options in (PANEL, CASCADE):
        answer = await school.ask({**options, "deadline_seconds": 1.5})
        about = answer["collegium"]
        assert answer["choices"][0]["message"]["content"] == "a"
        assert (about["model"], about["stop_reason"]) == ("small", "deadline")
    school.says(small=Behaviour(hang=True), little=Behaviour(hang=True))
    refused = await school.ask({**CASCADE, "deadline_seconds": 1.0}, status=504)
    assert refused["error"]["code"] == "deadline_exceeded"


async def test_a_budget_that_does_not_cover_the_whole_climb_is_refused_before_anything_is_asked(school: School):
    school.says(small="a", little="b", middle="c", large="c")
    for options in (CASCADE, PANEL, {"quality_min": 0.9}):
        refused = await school.ask(options, status=402, key=school.poor_key)
        assert refused["error"]["code"] == "insufficient_quota"
    assert school.started() == {}
    assert (await school.ask({}, key=school.poor_key, model="small"))["collegium"]["plan"] == "single"


async def test_what_has_ended_of_a_running_cascade_is_captured_and_the_rest_stays_held(school: School):
    school.says(small="a", little="b", middle=Behaviour(hang=True))
    async with school.session(school.platform.admin_key) as operator, school.session() as session:

        async def budget() -> dict[str, float]:
            async with operator.get("/v1/admin/budgets", params={"tenant": "acme"}) as response:
                (found,) = (await response.json())["data"]
            return {name: float(found[name]) for name in ("captured_usd", "held_usd")}

        async def calm() -> Any:
            now = await budget()
            return now if now["held_usd"] == 0 else None

        before = await eventually(calm)
        async with session.post("/v1/tasks", json={"input": "Which?", "plan": "cascade", "max_tokens": 8}) as response:
            task_id = (await response.json())["id"]
        await eventually(lambda: school.started().get("middle") == 1)
        counted = school.simulator.counts().models
        usd = {name: float(price) / 1e6 for name, _, price in SCHOOL}
        tokens = {name: counted[name].prompt_tokens + counted[name].completion_tokens for name in ("small", "little")}
        due = sum(tokens[name] * usd[name] for name in tokens)

        async def captured() -> Any:
            now = await budget()
            return now if now["captured_usd"] - before["captured_usd"] == pytest.approx(due) else None

        running = await eventually(captured)
        # What is still held covers the steps above at least.
        assert running["held_usd"] > tokens["small"] * (usd["middle"] + usd["large"])
        async with session.post(f"/v1/tasks/{task_id}/cancel") as response:
            assert response.status in (200, 202)
        await eventually(calm)


async def test_a_named_model_is_never_cascaded(school: School):
    refused = await school.ask(CASCADE, status=400, model="small")
    assert (refused["error"]["code"], refused["error"]["param"]) == ("unsupported_plan", "plan")
    school.says(small="a")
    about = (await school.ask({"plan": "panel", "panel_size": 3}, model="small"))["collegium"]
    assert (about["model"], about["attempts"]) == ("small", 2)
    assert school.started() == {"small": 2}


@pytest.mark.parametrize("plan", ["cascade", "panel"])
async def test_a_cancellation_ends_all_of_a_plan(school: School, plan: str):
    school.says(small="a", little=Behaviour(hang=True))
    async with school.session() as session:
        async with session.post("/v1/tasks", json={"input": "Which?", "plan": plan}) as response:
            task_id = (await response.json())["id"]
        await eventually(lambda: school.simulator.counts().totals.completed == 1)
        async with session.post(f"/v1/tasks/{task_id}/cancel") as response:
            assert response.status in (200, 202)

        async def settled() -> Any:
            async with session.get(f"/v1/tasks/{task_id}") as response:
                task = await response.json()
                return task if task["settled_at"] else None

        task = await eventually(settled)
    assert (task["state"], task["stop_reason"], task["output"], task["partial"]) == ("canceled", "canceled", "a", True)
    await eventually(lambda: school.simulator.counts().totals.open == 0)
    assert school.started() == {"small": 1, "little": 1}


async def test_a_stream_gives_the_winners_text_when_the_plan_is_settled(school: School):
    school.says(small="one two", little="three", middle="three", large="x")
    lines: list[str] = []
    body = {"model": "auto", "messages": [{"role": "user", "content": "?"}], "stream": True, "collegium": CASCADE}
    async with school.session() as session, session.post(CHAT, json=body) as response:
        assert response.status == 200
        async for line in response.content:
            lines.append(line.decode().strip())
    text = "".join(lines)
    assert "three" in text
    assert "one" not in text
    assert '"plan":"cascade"' in text
    assert lines[-2 if lines[-1] == "" else -1] == "data: [DONE]"


async def test_later_attempts_are_told_what_the_first_ones_were(school: School):
    school.says(small="Bruno", little="Bruno", middle="x", large="y")
    turn = {**CASCADE, "conversation": "dog"}
    first = [{"role": "user", "content": "My dog is Bruno."}]
    await school.ask(turn, messages=first)
    school.says(small="a", little="b", middle="c", large="c")
    await school.ask(turn, messages=[{"role": "user", "content": "Who is it?"}], seed=7)
    last = school.simulator.counts().requests[-4:]
    assert {call.model for call in last} == {"small", "little", "middle", "large"}
    for call in last:
        assert [message.role for message in call.messages] == ["user", "assistant", "user"], call.model


async def test_the_books_have_every_call_once_and_the_task_pays_for_all_that_answered(school: School):
    tag = {"books": school.platform.ready["http"].rpartition(":")[2]}
    school.says(small="a", little="b", middle="c", large="c")
    costs = [(await school.ask({**options, "tags": tag}))["collegium"]["cost_usd"] for options in (CASCADE, PANEL)]
    counted = school.simulator.counts()
    usd = {name: float(price) / 1e6 for name, _, price in SCHOOL}
    due = sum((one.prompt_tokens + one.completion_tokens) * usd[name] for name, one in counted.models.items())
    assert sum(map(float, costs)) == pytest.approx(due)
    async with school.session() as session:

        async def booked() -> Any:
            async with session.get("/v1/usage", params={"group_by": "tag,plan"}) as response:
                rows = [row for row in (await response.json())["data"] if tag["books"] in str(row["tag"])]
                return rows if sum(row["requests"] for row in rows) == 2 else None

        rows = await eventually(booked)
    assert {row["plan"] for row in rows} == {"cascade", "panel"}
    assert sum(float(row["cost_usd"]) for row in rows) == pytest.approx(due)
    assert [row["charged_usd"] for row in rows] == [row["cost_usd"] for row in rows]
    assert {row["wasted_usd"] for row in rows} == {"0"}


async def test_the_other_door_takes_the_same_plans(school: School):
    school.says(small="a", little="a")
    metadata = (("authorization", f"Bearer {school.key}"),)
    async with grpc.aio.insecure_channel(school.platform.ready["grpc"]) as channel:
        request = ChatRequest(
            model="auto",
            messages=[ChatMessage(role="user", content="Which?")],
            collegium=Options(plan="cascade", quality_min=0.6),
        )
        answer = await ChatStub(channel).Complete(request, metadata=metadata)
    assert (answer.collegium.plan, answer.collegium.attempts) == ("cascade", 2)
    assert answer.collegium.confidence > 0.6
