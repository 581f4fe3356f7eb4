"""Whose the attempts of cascades and panels are."""

import msgspec
import pytest
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import AttemptRef, AttemptRequested, RunAttempt, Sampling
from collegium_contracts.money import Price
from collegium_contracts.plans import RANKS_UP, cascade_ranks
from collegium_contracts.state import ModelRecord
from collegium_router.choosing.members import decide, sampling_of
from collegium_router.choosing.plan import Busy, Fleet, Planned, Wait
from collegium_router.queue.intake import Queued
from collegium_router.queue.lines import arrived_ms, route_of
from collegium_router.roster.fleet_models import Models
from hypothesis import given
from hypothesis import strategies as st

NOW_MS = 1_767_225_600_000


def fleet(models: list[ModelRecord], open_until_ms=None, full=(), outstanding=None) -> Fleet:
    by_name = Models(models)
    return Fleet(by_name, outstanding or {}, open_until_ms or {}, lambda model, _pool: model.name not in full, NOW_MS)


def planned(submitted, models, **more) -> Planned:
    found = decide(submitted, fleet(models, **more))
    assert isinstance(found, Planned), found
    return found


def names(found: Planned) -> list[str]:
    return [attempt.model for attempt in found.attempts]


@pytest.fixture
def school(model) -> list[ModelRecord]:
    """Two students, an assistant and a teacher, each dearer than the one before."""
    ranks = {"small": "student", "little": "student", "middle": "ta", "large": "teacher"}
    return [
        model(name, rank=rank, price=Price(input_picos=10 * place, output_picos=10))
        for place, (name, rank) in enumerate(ranks.items())
    ]


@pytest.fixture
def next_of(submission):
    def make(number: int, *, plan="cascade", of=4, rank="student", asked=(), **fields) -> AttemptRequested:
        submitted = submission(fields.pop("model", "auto"), plan=plan, **fields)
        wanted = AttemptRef(
            number=number, of=of, model="", rank=rank, pool="", price=Price(), charge=Price(), plan=plan
        )
        run = RunAttempt(
            task=submitted.task,
            attempt=wanted,
            prompt=submitted.prompt,
            sampling=submitted.sampling,
            prompt_bytes=submitted.prompt_bytes,
            try_number=0,
        )
        return AttemptRequested(run=run, asked=list(asked))

    return make


@given(st.lists(st.sampled_from(RANKS_UP)))
def test_a_cascade_climbs_and_asks_its_weakest_rank_twice(present):
    climb = cascade_ranks(present)
    assert len(climb) == (len(set(present)) + 1 if present else 0)
    assert list(climb) == sorted(climb, key=RANKS_UP.index)
    assert climb[:2] == climb[:1] * min(2, len(climb))


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_a_panel_begins_with_two_members_at_most(model, submission, size):
    found = planned(submission(plan="panel", panel_size=size), [model("m")])
    assert [attempt.number for attempt in found.attempts] == list(range(1, min(size, 2) + 1))
    assert {(one.of, one.plan, one.model) for one in found.attempts} == {(size, "panel", "m")}
    assert (found.of, found.plan) == (size, "panel")


def test_a_panel_of_auto_asks_unlike_models_the_cheapest_first(school, submission, next_of):
    assert names(planned(submission(plan="panel"), school)) == ["small", "little"]
    third = next_of(3, plan="panel", of=6, asked=["small", "little"])
    assert names(planned(third, school)) == ["middle"]
    fifth = next_of(5, plan="panel", of=6, asked=["small", "little", "middle", "large"])
    assert names(planned(fifth, school)) == ["small"], "all were asked once: the cheapest again"


def test_a_panel_of_a_named_model_asks_that_one_alone(school, submission, next_of):
    assert names(planned(submission("large", plan="panel"), school)) == ["large", "large"]
    third = next_of(3, plan="panel", of=3, asked=["large", "large"], model="large")
    assert names(planned(third, school)) == ["large"]


def test_a_cascade_begins_with_two_students_where_there_are_two(school, submission):
    found = planned(submission(plan="cascade"), school)
    assert names(found) == ["small", "little"]
    assert (found.of, found.ranks) == (4, ("student", "student", "ta", "teacher"))
    assert {one.of for one in found.attempts} == {4}
    alone = planned(submission(plan="cascade"), [one for one in school if one.name != "little"])
    assert names(alone) == ["small", "small"]
    assert not alone.alternatives
    assert found.alternatives


def test_a_cascade_skips_ranks_that_have_nobody(school, submission):
    found = planned(submission(plan="cascade"), [one for one in school if one.rank != "student"])
    assert (names(found), found.ranks) == (["middle", "middle"], ("ta", "ta", "teacher"))
    teachers = planned(submission(plan="cascade"), [school[-1]])
    assert (names(teachers), teachers.ranks) == (["large", "large"], ("teacher", "teacher"))


def test_a_cascade_begins_above_students_that_are_left_alone_now(school, submission):
    away = dict.fromkeys(("small", "little"), NOW_MS + 9_000)
    found = planned(submission(plan="cascade"), school, open_until_ms=away)
    assert (names(found), found.of) == (["middle", "middle"], 3)
    one = planned(submission(plan="cascade"), school, open_until_ms={"little": NOW_MS + 9_000})
    assert names(one) == ["small", "small"], "a student that can be asked is asked twice"
    everybody = {model.name: NOW_MS + 9_000 - place for place, model in enumerate(school)}
    wait = decide(submission(plan="cascade"), fleet(school, everybody))
    assert wait == Wait(NOW_MS + 8_997, is_open=True)


def test_only_models_that_the_key_may_ask_take_part(school, submission):
    found = planned(submission(plan="cascade", models=["middle", "large"]), school)
    assert found.ranks == ("ta", "ta", "teacher")
    refused = decide(submission(plan="cascade", models=["gone"]), fleet(school))
    assert isinstance(refused, TaskError)
    assert refused.code == "model_not_allowed"


def test_the_next_step_is_of_the_rank_that_was_planned(school, next_of):
    found = planned(next_of(3, rank="ta", asked=["small", "little"]), school)
    assert names(found) == ["middle"]
    (attempt,) = found.attempts
    assert (attempt.number, attempt.of, attempt.rank, attempt.plan) == (3, 4, "ta", "cascade")


def test_a_step_that_nobody_can_take_fails_at_once_and_the_last_one_waits(school, next_of):
    without = [model for model in school if model.rank != "ta"]
    gone = decide(next_of(3, rank="ta"), fleet(without))
    assert isinstance(gone, TaskError)
    assert gone.code == "no_eligible_model"
    away = decide(next_of(3, rank="ta"), fleet(school, {"middle": NOW_MS + 1_000}))
    assert isinstance(away, TaskError)
    assert away.code == "circuit_open"
    last = decide(next_of(4, rank="teacher"), fleet(school, {"large": NOW_MS + 1_000}))
    assert last == Wait(NOW_MS + 1_000, is_open=True)


def test_what_has_no_room_is_waited_for_but_not_by_a_second_member(school, submission, next_of):
    assert decide(submission(plan="panel"), fleet(school, full={"small"})) == Busy()
    assert names(planned(submission(plan="panel"), school, full={"little"})) == ["small", "small"]
    assert decide(next_of(3, rank="ta"), fleet(school, full={"middle"})) == Busy()


def test_another_try_of_a_cascades_step_stays_in_its_rank(school, submission, again):
    more = again(model="small", failures=2, of=4)
    attempt = msgspec.structs.replace(more.run.attempt, plan="cascade")
    run = msgspec.structs.replace(more.run, attempt=attempt, task=submission(plan="cascade").task)
    more = msgspec.structs.replace(more, run=run)
    assert names(planned(more, school)) == ["little"]
    assert names(planned(more, [one for one in school if one.name != "little"])) == ["small"]
    assert decide(more, fleet([school[-1]])) == more.error, "no rank of its own is left, and no other is asked"


@given(number=st.integers(1, 9), seed=st.integers(-(2**63) + 1, 2**63 - 1))
def test_members_have_seeds_of_their_own_within_the_bounds(number, seed):
    own = sampling_of(Sampling(seed=seed, stream=True), number, "panel")
    assert not own.stream
    assert -(2**63) < own.seed < 2**63
    assert (own.seed == seed) == (number == 1)


@pytest.mark.parametrize(
    ("plan", "number", "temperature", "asked"),
    [
        ("cascade", 1, 0.0, 0.0),
        ("cascade", 2, 0.0, 0.7),
        ("cascade", 2, 1.1, 1.1),
        ("cascade", 2, None, None),
        ("cascade", 3, 0.0, 0.0),
        ("panel", 2, 0.0, 0.0),
    ],
)
def test_only_what_a_cascade_compares_is_asked_warmer(plan, number, temperature, asked):
    assert sampling_of(Sampling(temperature=temperature), number, plan).temperature == asked


def test_what_goes_on_keeps_the_place_of_its_task(next_of, again, submission):
    def queued(message) -> Queued:
        return Queued(message=message, shard=None, subject="x", sequence=1, traceparent="", replayed=False)

    now = NOW_MS + 7_000
    more, retried, new = queued(next_of(3, pool="mine")), queued(again()), queued(submission())
    assert (more.goes_on, retried.goes_on, new.goes_on) == (True, False, False)
    assert [arrived_ms(one, now) for one in (more, retried, new)] == [NOW_MS, now, now]
    assert route_of(more, is_limited=False) == ("auto", "", "goes on", "pool mine")
    assert route_of(new, is_limited=True) == ("auto", "")
    assert more.first_try == (more.task.id, 3, 1)
