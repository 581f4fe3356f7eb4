"""Open plans: which questions become a panel or a cascade, whose their attempts are, and what is told of why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.ids import shard_of
from collegium_contracts.messages import (
    AttemptRef,
    AttemptRequested,
    RunAttempt,
    TaskDispatched,
    TaskRef,
    TaskSubmitted,
)
from collegium_contracts.money import Price
from collegium_contracts.openplans import opened
from collegium_contracts.requests import HoldAnswer, HoldAsk
from collegium_contracts.routing import Route
from collegium_contracts.state import ModelRecord
from collegium_contracts.worstcase import least_picos, worst_picos
from collegium_router.app import aims
from collegium_router.choosing.members import decide
from collegium_router.choosing.opening import given
from collegium_router.choosing.plan import Busy, Fleet, Planned
from collegium_router.choosing.policies import Policies
from collegium_router.dispatching.settlement import failed
from collegium_router.queue.intake import Queued
from collegium_router.roster.fleet_models import Models
from collegium_router.schedules.held import ReleaseHolds
from collegium_settings import Settings
from collegium_settings.routing import RoutingSettings
from collegium_testing import eventually
from collegium_testing.platform import RunningPlatform

NOW_MS = 1_767_225_600_000
SEALED = Envelope("k", b"n", b"row")
KNOWN: dict[str, Any] = {"policy_version": 3, "policy_of": "tenant", "candidates": ["large", "small"]}


@pytest.fixture
def school(model) -> list[ModelRecord]:
    """Two students, an assistant and a teacher, each dearer than the one before."""
    ranks = {"small": "student", "little": "student", "middle": "ta", "large": "teacher"}
    prices = [Price(input_picos=10**place, output_picos=10**place) for place in range(len(ranks))]
    return [
        model(name, rank=rank, price=price, charge=price)
        for (name, rank), price in zip(ranks.items(), prices, strict=True)
    ]


def fleet(models: list[ModelRecord], route: Route | None, *, open_until_ms=None, full=()) -> Fleet:
    def order(_submitted, among):
        first = next(one for one in among if one.name == route.model)
        return [first, *(one for one in among if one is not first)], route

    return Fleet(
        Models(models),
        {},
        open_until_ms or {},
        lambda one, _pool: one.name not in full,
        NOW_MS,
        route=order if route is not None else None,
    )


def novel(model: str = "large", **more: Any) -> Route:
    return Route(
        **{"model": model, "rank": "teacher", "reasons": ["novel"], "embedder": "mini", "features": SEALED}
        | KNOWN
        | more
    )


def planned(submitted: TaskSubmitted, models, route: Route | None, **more: Any) -> Planned:
    found = decide(submitted, fleet(models, route, **more))
    assert isinstance(found, Planned), found
    return found


def who(found: Planned) -> list[str]:
    return [attempt.model for attempt in found.attempts]


def test_a_novel_question_is_asked_of_the_teacher_and_the_cheapest(school, submission):
    found = planned(opened(submission(domain="law"), ["panel"], 3), school, novel())
    assert (found.plan, found.of, found.reason, who(found)) == ("panel", 3, "novel", ["large", "small"])
    assert [route.reasons for route in found.routes] == [["member", "novel"]] * 2
    assert [(route.model, route.domain, route.policy_version) for route in found.routes] == [
        ("large", "law", 3), ("small", "law", 3),
    ]  # fmt: skip
    # What is learned of them: the question's features, and that nobody was drawn.
    assert {(route.features, route.embedder, tuple(route.candidates)) for route in found.routes} == {
        (SEALED, "mini", ())
    }


def test_a_known_question_and_one_whose_client_chose_are_of_one_attempt(school, submission):
    known = novel("small", rank="student", reasons=["good_enough"])
    for submitted in (opened(submission(), ["panel"], 3), submission()):
        found = planned(submitted, school, known)
        assert (found.plan, who(found), found.routes) == ("single", ["small"], ())
    chosen = planned(submission(), school, novel())
    assert (chosen.plan, chosen.route.reasons) == ("single", ["novel"])
    assert planned(opened(submission(), ["panel"], 3), school, None).plan == "single"


def test_who_was_drawn_to_learn_from_stays_alone(school, submission):
    drawn = novel("small", rank="student", reasons=["explored", "novel"], explored=True)
    assert planned(opened(submission(), ["panel"], 3), school, drawn).plan == "single"


def test_a_panel_has_no_more_members_than_there_are_models(school, submission):
    found = planned(opened(submission(), ["panel"], 9), school, novel())
    assert found.of == 4
    two = [one for one in school if one.name in ("small", "large")]
    assert planned(opened(submission(), ["panel"], 3), two, novel()).of == 2
    alone = planned(opened(submission(), ["panel"], 3), school[-1:], novel())
    assert (alone.plan, alone.route.reasons) == ("single", ["novel", "no_panel"])


@pytest.mark.parametrize(
    "away",
    [
        {"full": ("small", "little", "middle")},
        {"open_until_ms": dict.fromkeys(("small", "little", "middle"), NOW_MS + 9)},
    ],
)
def test_where_nobody_can_be_asked_beside_it_the_teacher_answers_alone(school, submission, away):
    found = planned(opened(submission(), ["panel"], 3), school, novel(), **away)
    assert (found.plan, who(found), found.route.reasons) == ("single", ["large"], ["novel", "no_panel"])
    everybody = {"full": [one.name for one in school]}
    assert isinstance(decide(opened(submission(), ["panel"], 3), fleet(school, novel(), **everybody)), Busy)


def test_a_novel_question_may_be_cascaded(school, submission):
    found = planned(opened(submission(), ["cascade"], 3), school, novel())
    assert (found.plan, found.of, who(found), found.reason) == ("cascade", 4, ["small", "little"], "novel")
    assert [route.reasons for route in found.routes] == [["step", "novel"]] * 2
    lone = [one for one in school if one.name != "little"]
    assert who(planned(opened(submission(), ["cascade"], 3), lone, novel())) == ["small", "small"], "as any cascade"


def test_a_task_says_what_it_was_given_and_begins_the_same_when_taken_up_again(school, submission):
    submitted = opened(submission(), ["panel"], 9)
    found = planned(submitted, school, novel())
    begun = given(submitted, found)
    assert (begun.task.plan, begun.task.open_to, begun.task.plan_reason, begun.panel_size) == ("panel", [], "novel", 4)
    again = planned(begun, school, novel("small", reasons=["good_enough"]))
    assert (again.plan, again.of, who(again)) == ("panel", 4, ["large", "small"])
    single = given(submitted, planned(submitted, school, None))
    assert (single.task.plan, single.task.open_to, single.task.plan_reason) == ("single", [], "")
    assert given(submission(), found) == submission()


def test_what_it_asks_for_later_are_the_cheapest_not_asked_yet(school, submission):
    begun = given(opened(submission(), ["panel"], 3), planned(opened(submission(), ["panel"], 3), school, novel()))
    wanted = AttemptRef(number=3, of=3, model="", rank="student", pool="", price=Price(), charge=Price(), plan="panel")
    run = RunAttempt(task=begun.task, attempt=wanted, prompt=begun.prompt, sampling=begun.sampling, prompt_bytes=40)
    more = AttemptRequested(run=msgspec.structs.replace(run, try_number=0), asked=["large", "small"])
    found = planned(more, school, None)
    assert (who(found), found.route.reasons) == (["little"], ["member", "novel"])
    judging = msgspec.structs.replace(wanted, number=4, judges=True)
    judge = msgspec.structs.replace(more, run=msgspec.structs.replace(more.run, attempt=judging))
    assert planned(judge, school, None).route.reasons == ["judge", "novel"]


def member_of(begun: TaskSubmitted, number: int, asked: list[str], **run: Any) -> AttemptRequested:
    wanted = AttemptRef(
        number=number, of=5, model="", rank="student", pool="", price=Price(), charge=Price(), plan="panel"
    )
    begun_run = RunAttempt(
        task=begun.task, attempt=wanted, prompt=begun.prompt, sampling=begun.sampling, prompt_bytes=40, try_number=0
    )
    return AttemptRequested(run=msgspec.structs.replace(begun_run, **run), asked=asked)


def test_no_model_is_asked_twice_however_few_are_left_or_free(school, submission):
    begun = given(opened(submission(), ["panel"], 5), planned(opened(submission(), ["panel"], 5), school, novel()))
    third = member_of(begun, 3, ["large", "small"])

    def code(more: AttemptRequested, models: list[ModelRecord], **more_of: Any) -> str:
        found = decide(more, fleet(models, None, **more_of))
        assert isinstance(found, TaskError), found
        return found.code

    two = [one for one in school if one.name in ("small", "large")]
    assert code(third, two) == "no_eligible_model"
    away = dict.fromkeys(("little", "middle"), NOW_MS + 9)
    assert code(third, school, open_until_ms=away) == "circuit_open"
    busy = fleet(school, None, full=("little", "middle"))
    assert isinstance(decide(third, busy), Busy), "a permit is soon free"
    # Two are asked for at once, and the first of them runs.
    running = fleet(school, None)._replace(out_of=lambda task: ["little"] if task == begun.task.id else [])
    fourth = decide(member_of(begun, 4, ["large", "small"]), running)
    assert isinstance(fourth, Planned)
    assert who(fourth) == ["middle"]
    # The client's own panel is as large as the client said.
    own = member_of(submission(plan="panel"), 3, ["large", "small"])
    assert who(planned(own, two, None)) == ["small"]


def test_a_member_that_failed_is_asked_again_or_nobody_in_its_place(school, submission):
    begun = given(opened(submission(), ["panel"], 3), planned(opened(submission(), ["panel"], 3), school, novel()))
    attempt = AttemptRef(
        number=1, of=3, model="large", rank="teacher", pool="", price=Price(), charge=Price(), plan="panel"
    )

    def after(error: str, models: list[ModelRecord], task: TaskRef = begun.task) -> Any:
        again = member_of(begun, 1, [], attempt=attempt, task=task)
        more = msgspec.structs.replace(again, error=TaskError(code=error, message=""), not_before_ms=NOW_MS)
        return decide(more, fleet(models, None))

    assert who(after("upstream_rate_limited", school)) == ["large"]
    assert after("upstream_auth", school).code == "upstream_auth"
    assert after("upstream_error", school[:-1]).code == "upstream_error", "it is in the roster no more"
    other = after("upstream_rate_limited", school, submission(plan="panel").task)
    assert who(other) != ["large"], "a client's own panel goes elsewhere"


def test_a_novel_panel_is_no_larger_than_is_configured(school, submission):
    submitted = opened(submission(), ["panel"], 4)
    found = decide(submitted, fleet(school, novel())._replace(novel_members=2))
    assert isinstance(found, Planned)
    assert (found.plan, found.of) == ("panel", 2)
    configured = aims(Settings(routing=RoutingSettings(novel_members=5)))
    assert Policies(configured).novel_members == 5


def test_members_of_plans_that_clients_choose_say_why_too(school, submission):
    panel = planned(submission(plan="panel"), school, None)
    assert [(one.model, one.reasons) for one in panel.routes] == [("small", ["member"]), ("little", ["member"])]
    cascade = planned(submission(plan="cascade"), school, None)
    assert {tuple(one.reasons) for one in cascade.routes} == {("step",)}
    assert planned(submission("large", plan="panel"), school, None).routes == (), "its client named it"


def test_the_hold_covers_the_dearest_that_it_may_become(school, submission):
    single = worst_picos(submission(), school)
    panel = opened(submission(), ["panel"], 3)
    assert (worst_picos(panel, school), least_picos(panel, school)) == (3 * single, single)
    assert worst_picos(opened(submission(), ["panel", "cascade"], 2), iter(school)) == max(
        2 * single, worst_picos(submission(plan="cascade"), school)
    )
    assert least_picos(submission(), school) == 0


@pytest.mark.parametrize("is_least", [True, False])
async def test_a_task_of_later_becomes_what_is_held_for_it_when_it_is_released(school, submission, is_least):
    asked: list[HoldAsk] = []

    async def answer(ask: HoldAsk) -> HoldAnswer:
        asked.append(ask)
        return HoldAnswer(is_least=is_least)

    nowhere: Any = None
    holds = ReleaseHolds(nowhere, lambda: school)
    holds._holds = SimpleNamespace(ask=answer)
    submitted = opened(submission(not_before_ms=NOW_MS + 1), ["panel"], 3)
    held = await holds.hold(submitted)
    assert (asked[0].picos, asked[0].picos_least) == (worst_picos(submitted, school), least_picos(submitted, school))
    told = (held.task.plan, held.task.open_to, held.task.hold_expires_ms > 0)
    assert told == (("single", [], True) if is_least else ("auto", ["panel"], True))


def test_what_ends_before_it_is_planned_was_of_one_attempt(submission):
    submitted = opened(submission(), ["panel"], 3)
    end = failed(submitted, TaskError(code="deadline_exceeded", message="too late"), NOW_MS)
    assert end.plan == "single"
    nowhere: Any = None
    queued = Queued(message=submitted, shard=nowhere, subject="", sequence=1, traceparent="", replayed=True)
    assert not queued.is_one_attempt, "its first attempt in WORK may be one of several"


@pytest.fixture
def platform(clean_nats_url: str, tmp_path: Path) -> Callable[[], RunningPlatform]:
    models = ({"name": "large", "rank": "teacher"}, {"name": "small", "rank": "student"})
    return lambda: RunningPlatform(clean_nats_url, folder=tmp_path, services=(), models=models)


@pytest.mark.parametrize("is_begun", [True, False])
async def test_an_owner_goes_on_with_the_plan_that_the_one_before_began(platform, is_begun):
    """As after a kill between the note of a panel and its attempts, and one before anything was decided."""
    async with platform() as running:
        submitted = opened(running.submission("hello"), ["panel"], 2)
        task = submitted.task
        subject = s.task_submitted(task.priority, shard_of(task.tenant), task.tenant)
        if is_begun:
            several = Planned("panel", (), of=2, reason="novel")
            begun = given(submitted, several)
            note = TaskDispatched(
                task=begun.task, plan="panel", models=["large", "small"], at_ms=1, submitted=begun, of=2
            )
            await running.send(s.task_changed(task.tenant, task.id), note, message_id="note", tenant=task.tenant)
        await running.send(subject, submitted, message_id=task.id, tenant=task.tenant)
        await running.start("router")

        async def dispatched() -> list[RunAttempt] | None:
            found = [codec.journey.decode(payload) for _, payload in await running.read(s.WORK, s.WORK_ALL)]
            return found if await running.standing(s.INGRESS) == 0 else None

        runs = await eventually(dispatched, deadline_seconds=60)
        told = [(run.attempt.model, run.attempt.plan, run.task.plan, run.task.open_to) for run in runs]
        if is_begun:
            assert told == [("large", "panel", "panel", []), ("small", "panel", "panel", [])]
        else:
            assert told == [("large", "single", "single", [])]
