"""Which model answers a task, and in how many attempts."""

import msgspec
import pytest
from collegium_contracts.errors import TaskError
from collegium_contracts.money import Price
from collegium_contracts.routing import Route
from collegium_contracts.state import ModelRecord
from collegium_router.choosing.plan import Busy, Fleet, Planned, Wait, fits, make_plan, max_tokens, plan_again
from collegium_router.queue.intake import Queued
from collegium_router.roster.fleet_models import Models
from hypothesis import given
from hypothesis import strategies as st

RANKS = ("teacher", "ta", "student")


NOW_MS = 1_767_225_600_000


def fleet(models: list[ModelRecord], outstanding=None, open_until_ms=None, full=()) -> Fleet:
    """The models, all with room but those that are full."""
    by_name = Models(models)
    return Fleet(
        by_name,
        outstanding or {},
        open_until_ms or {},
        lambda model, pool: model.name not in full and pool not in full,
        NOW_MS,
    )


def chosen(submitted, models, outstanding=None, **more) -> str:
    found = make_plan(submitted, fleet(models, outstanding, **more))
    assert isinstance(found, Planned), found
    return found.attempts[0].model


def refused(submitted, models) -> TaskError:
    found = make_plan(submitted, fleet(models))
    assert isinstance(found, TaskError)
    return found


def test_auto_takes_the_highest_rank_whatever_it_costs(model, submission):
    models = [
        model("cheap", rank="student", price=Price()),
        model("middle", rank="ta"),
        model("dear", rank="teacher", price=Price(input_picos=900, output_picos=900)),
    ]
    assert chosen(submission(), models) == "dear"
    assert chosen(submission(), models[:2]) == "middle"


def test_auto_breaks_ties_by_price_then_outstanding_work_then_name(model, submission):
    dear = model("a-dear", price=Price(input_picos=1, output_picos=3))
    cheap_b, cheap_c = model("b"), model("c")
    assert chosen(submission(), [dear, cheap_c, cheap_b]) == "b"
    assert chosen(submission(), [dear, cheap_c, cheap_b], {"b": 1}) == "c"
    assert chosen(submission(), [dear, cheap_c, cheap_b], {"b": 1, "c": 1}) == "b"
    assert chosen(submission(), [dear, cheap_c, cheap_b], {"b": 9, "c": 9}) == "b", "price goes before load"


@given(order=st.permutations(range(6)), load=st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_the_choice_does_not_depend_on_the_rosters_order(model, submission, order, load):
    models = [model(f"m{i}", rank=RANKS[i % 3], price=Price(input_picos=i // 3)) for i in range(6)]
    outstanding = {f"m{i}": count for i, count in enumerate(load)}
    shuffled = [models[index] for index in order]
    assert chosen(submission(), shuffled, outstanding) == chosen(submission(), models, outstanding)


def test_a_named_model_is_never_swapped(model, submission):
    models = [model("asked"), model("better", rank="teacher", price=Price())]
    assert chosen(submission("asked"), models, {"asked": 1000}) == "asked"
    assert chosen(submission("asked", domain="law"), [model("asked", domains=["code"])]) == "asked"


def test_a_named_model_that_is_unknown_or_disabled_is_refused_by_name(model, submission):
    models = [model("off", enabled=False), model("on", rank="teacher")]
    for name in ("off", "absent"):
        error = refused(submission(name), models)
        assert (error.code, error.param) == ("unknown_model", "model")
        assert repr(name) in error.message


def test_auto_passes_over_disabled_models_and_other_domains(model, submission):
    models = [
        model("off", rank="teacher", enabled=False),
        model("lawyer", rank="teacher", domains=["law"]),
        model("coder", rank="ta", domains=["code", "math"]),
        model("all", rank="student"),
    ]
    assert chosen(submission(), models) == "all"
    assert chosen(submission(domain="math"), models) == "coder"
    assert chosen(submission(domain="law"), models) == "lawyer"


def test_auto_without_a_model_for_the_domain_says_so(model, submission):
    error = refused(submission(domain="art"), [model("lawyer", domains=["law"])])
    assert error.code == "no_eligible_model"
    assert "'art'" in error.message
    assert refused(submission(), []).code == "no_eligible_model"


def test_a_prompt_that_cannot_fit_goes_to_a_longer_context_or_is_refused(model, submission):
    short, long = model("short", rank="teacher", context_tokens=10), model("long", context_tokens=1000)
    assert chosen(submission(prompt_bytes=59), [short, long]) == "short"
    assert chosen(submission(prompt_bytes=60), [short, long]) == "long"
    error = refused(submission(prompt_bytes=6000), [short, long])
    assert (error.code, error.param) == ("context_length_exceeded", "messages")
    assert refused(submission("short", prompt_bytes=60), [short, long]).code == "context_length_exceeded"


@given(context_tokens=st.integers(1, 10**6), prompt_bytes=st.integers(0, 10**7))
def test_a_prompt_fits_where_any_tokenizer_could_make_it_fit(model, context_tokens, prompt_bytes):
    assert fits(prompt_bytes, model("m", context_tokens=context_tokens)) == (prompt_bytes < 6 * context_tokens)


def test_a_single_plan_has_one_attempt_with_the_prices_pinned(model, submission):
    record = model("m", rank="ta", pool="gpu", charge=Price(call_picos=7))
    planned = make_plan(submission(panel_size=5), fleet([record]))
    assert isinstance(planned, Planned)
    assert (planned.plan, len(planned.attempts)) == ("single", 1)
    attempt = planned.attempts[0]
    assert (attempt.number, attempt.of, attempt.model, attempt.rank, attempt.pool) == (1, 1, "m", "ta", "gpu")
    assert (attempt.price, attempt.charge, attempt.plan) == (record.price, record.charge, "single")


def test_a_plan_that_cannot_be_made_is_the_reason(model, submission):
    planned = make_plan(submission("absent"), fleet([model("m")]))
    assert isinstance(planned, TaskError)
    assert planned.code == "unknown_model"


@pytest.mark.parametrize(("requested", "sent"), [(None, 100), (1, 1), (100, 100), (101, 100), (10**9, 100)])
def test_max_tokens_is_always_bounded_by_the_model(model, requested, sent):
    assert max_tokens(requested, model("m", max_output_tokens=100)) == sent


def test_a_model_whose_breaker_is_open_gives_way_or_is_waited_for(model, submission):
    models = [model("best", rank="teacher"), model("second", rank="ta")]
    until = {"best": NOW_MS + 5_000}
    assert chosen(submission(), models, open_until_ms=until) == "second"
    assert make_plan(submission("best"), fleet(models, open_until_ms=until)) == Wait(NOW_MS + 5_000, is_open=True)
    assert chosen(submission(), models, open_until_ms={"best": NOW_MS}) == "best", "its time is over"
    both = {"best": NOW_MS + 9, "second": NOW_MS + 4}
    assert make_plan(submission(), fleet(models, open_until_ms=both)) == Wait(NOW_MS + 4, is_open=True)


def test_fallbacks_answer_in_their_order_while_a_named_model_is_left_alone(model, submission):
    models = [model("asked", fallbacks=["gone", "first", "second"]), model("first"), model("second", rank="teacher")]
    assert chosen(submission("asked"), models) == "asked"
    assert chosen(submission("asked"), models, open_until_ms={"asked": NOW_MS + 1}) == "first"
    assert chosen(submission("asked"), models, open_until_ms=dict.fromkeys(("asked", "first"), NOW_MS + 1)) == "second"


def test_what_has_no_room_is_waited_for_and_equals_share_the_load(model, submission):
    models = [model("a"), model("b"), model("c", rank="ta")]
    assert make_plan(submission(), fleet(models, full={"c"})) == Busy(), "a lower rank does not take over"
    assert chosen(submission(), models[:2], full={"a"}) == "b"
    assert make_plan(submission("a"), fleet(models, full={"a"})) == Busy()


def tried(more, models, **fields) -> str | Wait | Busy | TaskError:
    found = plan_again(more, more.error, fleet(models, **fields))
    return found.attempts[0].model if isinstance(found, Planned) else found


def test_a_passing_fault_is_tried_again_on_the_same_model_when_its_time_has_come(model, again):
    models = [model("sim"), model("other")]
    assert tried(again(not_before_ms=NOW_MS + 300), models) == Wait(NOW_MS + 300)
    assert tried(again(not_before_ms=NOW_MS), models) == "sim"


def test_a_model_that_failed_twice_or_turned_the_call_away_gives_way(model, again):
    models = [model("sim"), model("other")]
    late = NOW_MS + 9_000
    assert tried(again(failures=2, not_before_ms=late), models) == "other"
    for code in ("upstream_rate_limited", "upstream_auth", "circuit_open"):
        assert tried(again(code=code, not_before_ms=late), models) == "other"
        assert tried(again(code=code, not_before_ms=late, asked="sim"), models) in (Wait(late), again(code=code).error)


def test_a_refused_key_ends_the_attempt_where_nothing_else_could_answer(model, again):
    more = again(code="upstream_auth")
    assert tried(more, [model("sim")]) == more.error


def test_another_model_that_has_no_room_is_waited_for(model, again):
    assert tried(again(failures=2), [model("sim"), model("other")], full={"other"}) == Busy()


def test_of_a_panel_no_single_attempt_tells_that_all_were_sent(submission, again):
    def queued(message) -> Queued:
        return Queued(message=message, shard=None, subject="x", sequence=1, traceparent="", replayed=True)

    assert queued(submission()).is_one_attempt
    assert queued(again(of=3)).is_one_attempt, "one member's next try"
    assert not queued(submission(plan="panel")).is_one_attempt


def test_a_tenants_own_pool_takes_its_attempts_and_has_its_own_room(model, submission, again):
    own = submission("m", pool="mine")
    assert make_plan(own, fleet([model("m")])).attempts[0].pool == "mine"
    assert make_plan(submission("m"), fleet([model("m")])).attempts[0].pool == "general"
    assert isinstance(make_plan(own, fleet([model("m")], full={"mine"})), Busy)
    assert not isinstance(make_plan(submission("m"), fleet([model("m")], full={"mine"})), Busy)
    more = again(model="m")
    run = msgspec.structs.replace(more.run, task=own.task)
    planned = plan_again(msgspec.structs.replace(more, run=run), more.error, fleet([model("m")]))
    assert planned.attempts[0].pool == "mine"


def test_tasks_go_to_models_of_their_kind_alone(model, submission):
    embedder = model("embedder", rank="teacher", kind="embedding", context_tokens=10)
    models = [model("chat", fallbacks=["embedder"]), embedder]
    assert chosen(submission(), models) == "chat"
    # Its context is that of one text, and a request may hold many.
    assert chosen(submission(kind="embedding", prompt_bytes=1_000_000), models) == "embedder"
    assert refused(submission("embedder"), models).code == "unknown_model"
    assert refused(submission("chat", kind="embedding"), models).code == "unknown_model"
    # A fallback of another kind is none.
    assert isinstance(make_plan(submission("chat"), fleet(models, open_until_ms={"chat": NOW_MS + 1})), Wait)


def test_a_task_with_a_budget_is_given_to_who_surely_keeps_it(model, submission):
    price = Price(input_picos=1, output_picos=1)
    dear = Price(input_picos=1_000, output_picos=1_000)
    models = [
        model("cheap", rank="student", price=price, charge=price),
        model("dear", rank="teacher", price=dear, charge=dear),
    ]
    asked = submission()
    assert chosen(asked, models) == "dear"
    within = msgspec.structs.replace(asked, task=msgspec.structs.replace(asked.task, cost_max_picos=100_000))
    assert chosen(within, models) == "cheap"
    found = make_plan(
        within, fleet(models)._replace(route=lambda asked, able: (able, Route(model="cheap", rank="student")))
    )
    assert isinstance(found, Planned)
    assert found.route is not None
    assert "budget" in found.route.reasons
    tiny = msgspec.structs.replace(asked, task=msgspec.structs.replace(asked.task, cost_max_picos=1))
    assert refused(tiny, models).code == "budget_too_small"
