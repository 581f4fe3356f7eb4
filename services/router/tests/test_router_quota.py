"""A model's quota: windows that never forget too early, routers that together never pass it, and what gives way."""

from collections.abc import Callable
from typing import Any

import pytest
from collegium_contracts import codec
from collegium_contracts.callnote import CallNote, read_note, write_note
from collegium_contracts.messages import AttemptUsage
from collegium_contracts.money import Usage
from collegium_contracts.state import ModelRecord
from collegium_router.choosing.members import first_members
from collegium_router.choosing.plan import Busy, Fleet, Planned, Wait, make_plan, plan_again
from collegium_router.limits.permits import AttemptKey, Permit, Permits
from collegium_router.limits.quota import MINUTE_MS, PARTS, SLOTS, Book, Quotas, Rolling, Size, quota_resource
from collegium_router.roster.fleet_models import Models
from hypothesis import example, given
from hypothesis import strategies as st

NOW_MS = 1_767_225_600_000
HOUR_MS = 3_600_000
FIVE_HOURS = 5 * 3_600


def limited(
    make: Callable[..., ModelRecord], name: str = "m", tokens: int | None = 1_000, **fields: Any
) -> ModelRecord:
    return make(name, tokens_per_window=tokens, token_window_seconds=FIVE_HOURS, **fields)


def quotas(*models: ModelRecord, parts: int = PARTS, permits: Permits | None = None, known: bool = True) -> Quotas:
    made = Quotas(permits or Permits(), lambda _name: parts)
    made.use_roster({model.name: model for model in models})
    if known:
        made.use_book(made.begin_book())
    return made


def fleet(models: list[ModelRecord], of: Quotas, now_ms: int = NOW_MS, **open_until_ms: int) -> Fleet:
    return Fleet(Models(models), {}, open_until_ms, lambda _model, _pool: True, now_ms, of.gate)


@given(
    calls=st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 1_000)), max_size=60),
    window_ms=st.sampled_from((1, 119, 120, 1_000, MINUTE_MS)),
)
@example(calls=[(0, 5), (119, 7)], window_ms=120)
def test_a_window_counts_everything_within_it_and_forgets_soon_after(calls, window_ms):
    rolling, told, now = Rolling(window_ms), [], NOW_MS
    step_ms = -(-window_ms // SLOTS)
    for passed, amount in calls:
        now += passed
        rolling.add(now, amount)
        told.append((now, amount))
        within = sum(one for at, one in told if at > now - window_ms)
        late = sum(one for at, one in told if at > now - (SLOTS + 1) * step_ms)
        assert within <= rolling.used(now) <= late


@given(
    calls=st.lists(st.tuples(st.integers(0, 9_000), st.integers(1, 100)), min_size=1, max_size=40),
    most=st.integers(0, 500),
)
def test_a_window_says_when_it_has_a_place_and_not_a_step_before(calls, most):
    rolling, now = Rolling(MINUTE_MS), NOW_MS
    for passed, amount in calls:
        now += passed
        rolling.add(now, amount)
    free = rolling.free_at_ms(now, most)
    if free == now:
        assert rolling.used(now) <= most
        return
    before = Rolling(MINUTE_MS)
    assert before.load(rolling.state(1, now))
    assert before.used(free - 1) > most
    assert rolling.used(free) <= most


def test_a_window_takes_what_comes_a_little_late_and_not_what_is_long_over():
    rolling = Rolling(MINUTE_MS)
    rolling.add(NOW_MS, 1)
    rolling.add(NOW_MS - 30_000, 10)
    rolling.add(NOW_MS - 2 * MINUTE_MS, 100)
    assert rolling.used(NOW_MS) == 11
    assert rolling.used(NOW_MS + 31_000) == 1


@given(
    shares=st.sampled_from(((PARTS,), (PARTS // 2, PARTS // 2), (5_000, 3_000, 2_000))),
    asks=st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 20), st.sampled_from((0, 50, 100)), st.integers(0, 9)),
        min_size=20,
        max_size=80,
    ),
)
def test_routers_together_never_pass_a_models_window(model, shares, asks):
    """Each ask: which router, how long its prompt is, and what percent of its bound it uses; now and then all end."""
    record = limited(model, tokens=200, max_output_tokens=20)
    all_permits = [Permits() for _ in shares]
    routers = [quotas(record, parts=parts, permits=permits) for parts, permits in zip(shares, all_permits, strict=True)]
    now, sequence = NOW_MS, 0
    running: list[tuple[int, Permit, int]] = []
    told: list[tuple[int, int]] = []
    for number, (router, prompt, percent, ends) in enumerate(asks):
        index = router % len(shares)
        size = Size(prompt * 4, 20)
        if routers[index].full_until_ms(record, size, now) == 0 and routers[index].has_room(record, size, now):
            bound = prompt + 20
            permit = Permit(AttemptKey(f"t{number}", 1, 1), "acme", "m", "general", now, 0, bound)
            all_permits[index].take(permit)
            running.append((index, permit, bound * percent // 100))
        if ends == 0:
            now += HOUR_MS
            for owner, permit, used in running:
                sequence += 1
                told.append((now, used))
                for one in routers:
                    one.hear(sequence, now, CallNote("m", used, 5))
                all_permits[owner].give_back(*permit.key)
            running = []
        held = sum(permit.tokens for _, permit, _ in running)
        assert held + sum(used for at, used in told if at > now - FIVE_HOURS * 1000) <= 200


def test_no_room_until_the_windows_are_known_and_none_without_a_share(model):
    record = limited(model)
    size = Size(40, 10)
    assert not quotas(record, known=False).has_room(record, size, NOW_MS)
    assert quotas(record).has_room(record, size, NOW_MS)
    assert not quotas(record, parts=0).has_room(record, size, NOW_MS)


def test_a_task_that_is_larger_than_the_window_goes_alone_in_an_empty_one(model):
    record, permits = limited(model, tokens=100, max_output_tokens=500), Permits()
    of = quotas(record, parts=PARTS // 2, permits=permits)
    size = Size(40, None)
    assert of.has_room(record, size, NOW_MS)
    permits.take(Permit(AttemptKey("t", 1, 1), "acme", "m", "general", NOW_MS, 0, 510))
    assert not of.has_room(record, size, NOW_MS)


def test_calls_count_from_their_beginning_and_a_minute(model):
    record = model("m", requests_per_minute=2)
    of = quotas(record)
    for sequence in (1, 2):
        of.hear(sequence, NOW_MS, CallNote("m", 5, 40_000))
    assert of.full_until_ms(record, Size(4, 1), NOW_MS) == pytest.approx(NOW_MS + 20_000, abs=1_000)
    assert of.full_until_ms(record, Size(4, 1), NOW_MS + 21_000) == 0
    assert of.has_room(record, Size(4, 1), NOW_MS + 21_000)


def test_an_event_is_counted_once_whoever_reads_it(model):
    record = limited(model)
    of = quotas(record)
    book = of.begin_book()
    of.hear(7, NOW_MS, CallNote("m", 10, 5))
    of.hear(9, NOW_MS, CallNote("m", 100, 5))
    for sequence, tokens in ((3, 1), (7, 10), (8, 0)):
        book.count(sequence, NOW_MS, CallNote("m", tokens, 5))
    of.use_book(book)
    assert of.used_ratio("m", NOW_MS) == 0.111
    of.hear(9, NOW_MS, CallNote("m", 100, 5))
    assert of.used_ratio("m", NOW_MS) == 0.111


def test_windows_go_on_from_what_was_kept_and_not_from_windows_of_another_length(model):
    record = limited(model, requests_per_minute=10)
    of = quotas(record)
    of.hear(5, NOW_MS, CallNote("m", 250, 5))
    kept = of.kept(NOW_MS)
    assert kept is not None
    again = Book([record])
    assert again.load(codec.state.decode(codec.encode(kept)))
    assert (again.sequence, again.windows["m"].tokens.used(NOW_MS)) == (5, 250)
    longer = model("m", tokens_per_window=1_000, token_window_seconds=FIVE_HOURS + 1)
    assert not Book([longer]).load(kept)
    assert not Book([limited(model, "other")]).load(kept)


def test_a_changed_limit_wants_new_windows_and_a_changed_maximum_does_not(model):
    of = quotas(limited(model))
    assert not of.is_behind
    of.use_roster({"m": limited(model, tokens=5)})
    assert not of.is_behind
    of.use_roster({"m": limited(model, requests_per_minute=5)})
    assert of.is_behind
    of.use_roster({"m": model("m")})
    assert (of.gate, of.is_behind) == (None, False)


def test_a_full_model_gives_way_to_its_fallback_and_for_auto_to_another(model, submission):
    models = [limited(model, rank="teacher", fallbacks=["b"]), model("b"), model("c", rank="ta")]
    of = quotas(*models)
    of.hear(1, NOW_MS, CallNote("m", 1_000, 5))
    for asked, answered in (("m", "b"), ("auto", "c")):
        planned = make_plan(submission(asked), fleet(models, of))
        assert isinstance(planned, Planned)
        assert (planned.attempts[0].model, planned.tokens) == (answered, (0,))


def test_a_full_model_without_another_is_waited_for_until_its_window_frees(model, submission):
    models = [limited(model)]
    of = quotas(*models)
    of.hear(1, NOW_MS, CallNote("m", 1_000, 5))
    found = make_plan(submission("m", max_tokens=5), fleet(models, of))
    assert isinstance(found, Wait)
    assert (found.is_full, found.is_open) == (True, False)
    assert 0 < found.until_ms - NOW_MS - FIVE_HOURS * 1000 <= FIVE_HOURS * 1000 // SLOTS
    planned = make_plan(submission("m", max_tokens=5), fleet(models, of, found.until_ms))
    assert isinstance(planned, Planned)
    assert planned.tokens == (10 + 5,)


def test_what_ends_first_says_why_nothing_can_be_asked(model, submission):
    models = [limited(model, rank="teacher"), model("b")]
    of = quotas(*models)
    of.hear(1, NOW_MS, CallNote("m", 1_000, 5))
    wait = make_plan(submission(), fleet(models, of, b=NOW_MS + 7))
    assert wait == Wait(NOW_MS + 7, is_open=True)


def test_what_is_dispatched_and_has_not_ended_is_waited_for_and_is_no_reason_to_give_way(model, submission):
    models, permits = [limited(model, fallbacks=["b"]), model("b")], Permits()
    permits.take(Permit(AttemptKey("t", 1, 1), "acme", "m", "general", NOW_MS, 0, 990))
    assert make_plan(submission("m"), fleet(models, quotas(*models, permits=permits))) == Busy()


def test_a_panel_needs_a_place_for_the_members_that_it_begins_with(model, submission):
    models = [limited(model, tokens=100)]
    of = quotas(*models)
    planned = first_members(submission("m", plan="panel", max_tokens=20), fleet(models, of))
    assert isinstance(planned, Planned)
    assert planned.tokens == (30, 30)
    of.hear(1, NOW_MS, CallNote("m", 41, 5))
    assert isinstance(first_members(submission("m", plan="panel", max_tokens=20), fleet(models, of)), Wait)


def test_another_try_goes_elsewhere_where_its_model_is_full_and_waits_where_it_can_not(model, again):
    models = [limited(model, "sim"), model("other")]
    of = quotas(*models)
    of.hear(1, NOW_MS, CallNote("sim", 1_000, 5))
    elsewhere = plan_again(again(), again().error, fleet(models, of))
    assert isinstance(elsewhere, Planned)
    assert elsewhere.attempts[0].model == "other"
    wait = plan_again(again(asked="sim"), again().error, fleet(models, of))
    assert isinstance(wait, Wait)
    assert wait.is_full


def test_what_is_needed_of_a_window_follows_what_runs_and_waits(model):
    record, permits = limited(model, tokens=1_000, max_output_tokens=100), Permits()
    of = quotas(record, permits=permits)
    idle = of.needs(lambda _name: 0, NOW_MS)[quota_resource("m")]
    assert (idle.capacity, idle.wanted, idle.in_use) == (PARTS, 0, 0)
    assert of.needs(lambda _name: 3, NOW_MS)[quota_resource("m")].wanted == 3 * PARTS // 10
    permits.take(Permit(AttemptKey("t", 1, 1), "acme", "m", "general", NOW_MS, 0, 50))
    busy = of.needs(lambda _name: 3, NOW_MS)[quota_resource("m")]
    assert (busy.wanted, busy.in_use) == (4 * PARTS // 20, PARTS // 20)


@given(name=st.from_regex(r"[A-Za-z0-9._:/@+-]{1,128}", fullmatch=True), tokens=st.integers(0, 10**12))
def test_a_note_reads_as_it_was_written(name, tokens):
    call = AttemptUsage(
        number=1, delivery=1, model=name, rank="ta", usage=Usage(input_tokens=tokens, output_tokens=2), duration_ms=7
    )
    assert read_note(write_note(call)) == CallNote(name, tokens + 2, 7)


@pytest.mark.parametrize("text", ["", "1", "1 2", "1 2 ", "-1 2 m", "x 2 m", "1 y m", "\u00b2 1 m"])
def test_what_is_no_note_is_none(text):
    assert read_note(text) is None


def test_nothing_is_noted_of_an_attempt_that_called_nothing():
    call = AttemptUsage(number=1, delivery=0, model="m", rank="ta", usage=Usage(), duration_ms=0)
    assert write_note(call) == ""
