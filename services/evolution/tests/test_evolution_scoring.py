"""What events add to scores, and durations in few numbers."""

from __future__ import annotations

import math
from typing import Any

from collegium_evolution.scoreboards.histogram import LAST_BUCKET, bucket_of, middle_ms, quantile_ms
from collegium_evolution.scoreboards.scoring import DOMAIN_CHARS_MAX, Sum, add_up, calls_of
from hypothesis import given
from hypothesis import strategies as st


def totals(*messages: Any) -> dict[tuple[str, ...], tuple[int, ...]]:
    sums = add_up(call for message in messages for call in calls_of(message))
    return {tuple(key): figures(total) for key, total in sums.items()}


def figures(total: Sum) -> tuple[int, ...]:
    return (total.calls, total.succeeded, total.duration_ms_total, total.cost_picos)


def test_a_plan_of_one_counts_by_its_settled_message(make: Any) -> None:
    task = make.task("1", domain="maths")
    assert totals(make.settled(task, [make.call()])) == {("m", "maths", "student"): (1, 1, 100, 5)}
    failed = make.settled(task, [make.call(error_code="upstream_error")])
    assert totals(failed) == {("m", "maths", "student"): (1, 0, 100, 5)}


def test_a_panels_calls_count_when_they_ended_and_not_again_when_it_settled(make: Any) -> None:
    task = make.task("1")
    calls = [make.call(1), make.call(2, error_code="upstream_timeout"), make.call(3)]
    assert totals(make.settled(task, calls)) == {}
    told = [make.ended(task, call) for call in calls]
    assert totals(*told, make.settled(task, calls)) == {("m", "", "student"): (3, 2, 300, 15)}


def test_a_discarded_call_counts_beside_the_one_that_settled(make: Any) -> None:
    task = make.task("1")
    messages = (make.discarded(task, make.call(delivery=1)), make.settled(task, [make.call(delivery=2)]))
    assert totals(*messages) == {("m", "", "student"): (2, 2, 200, 10)}


def test_a_call_that_the_client_ended_adds_its_cost_alone(make: Any) -> None:
    call = make.call(error_code="canceled")
    for message in (make.settled(make.task("1"), [call]), make.ended(make.task("1"), call)):
        assert totals(message) == {("m", "", "student"): (0, 0, 0, 5)}


def test_an_attempt_that_ended_before_its_call_adds_nothing(make: Any) -> None:
    unmade = make.call(error_code="deadline_exceeded", duration_ms=0, cost=0)
    assert totals(make.settled(make.task("1"), [unmade]), make.settled(make.task("2"), [])) == {}


def test_a_domain_is_cut_to_what_can_be_kept(make: Any) -> None:
    (key,) = totals(make.settled(make.task("1", domain="\x00" + "d" * 1000), [make.call()]))
    assert key[1] == "d" * DOMAIN_CHARS_MAX


@given(st.data())
def test_sums_do_not_depend_on_order(make: Any, data: st.DataObject) -> None:
    codes = st.sampled_from(["", "upstream_error", "canceled"])
    calls = [
        make.call(
            number,
            model=data.draw(st.sampled_from("ab")),
            cost=data.draw(st.integers(0, 9)),
            error_code=data.draw(codes),
            duration_ms=data.draw(st.integers(1, 10**6)),
        )
        for number in range(1, data.draw(st.integers(1, 8)) + 1)
    ]
    messages = [make.ended(make.task("1"), call, of=9, at_ms=make.now_ms + call.number) for call in calls]
    scored = [call for message in messages for call in calls_of(message)]
    whole = add_up(scored)
    shuffled = add_up(data.draw(st.permutations(scored)))
    assert {key: (*figures(total), total.last_at_ms, total.durations) for key, total in shuffled.items()} == {
        key: (*figures(total), total.last_at_ms, total.durations) for key, total in whole.items()
    }


@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=50), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_a_quantile_is_off_by_less_than_a_twentieth(durations: list[int], share: float) -> None:
    counts: dict[int, int] = {}
    for duration in durations:
        counts[bucket_of(duration)] = counts.get(bucket_of(duration), 0) + 1
    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]
    assert abs(quantile_ms(counts, share) / exact - 1) < 0.05


def test_the_ends_of_the_histogram() -> None:
    assert (bucket_of(-5), bucket_of(0), bucket_of(1)) == (0, 0, 1)
    assert bucket_of(10**12) == LAST_BUCKET
    assert middle_ms(0) == 0.0
    assert quantile_ms({}, 0.5) == 0.0
    assert [bucket_of(number) for number in range(1, 5000)] == sorted(bucket_of(number) for number in range(1, 5000))
