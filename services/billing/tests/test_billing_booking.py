"""Booking: the rows of a set of events do not depend on order, duplicates or batches."""

import json
from itertools import pairwise
from typing import Any

import pytest
from collegium_billing.books.booking import AttemptRow, Books, book, merge
from collegium_contracts.messages import JourneyMessage, TaskAccepted
from hypothesis import given, settings
from hypothesis import strategies as st


def test_a_single_attempt_books_its_start_its_call_and_its_task(make: Any) -> None:
    ref = make.task("a", tags={"team": "x"})
    books = book([make.started(ref), make.settled(ref, [make.call(cost=7)], charge=9)])

    (start,) = books.starts
    assert (start.task_id, start.attempt, start.delivery, start.tenant) == (ref.id, 1, 1, ref.tenant)
    (attempt,) = books.attempts
    assert (attempt.cost_picos, attempt.wasted, attempt.succeeded, attempt.plan) == ("7", False, True, "single")
    assert json.loads(attempt.tags) == {"team": "x"}
    (row,) = books.tasks
    assert (row.state, row.stop_reason, row.charge_picos, row.model) == ("completed", "completed", "9", "m")


def test_a_call_told_twice_is_one_row_with_its_own_time(make: Any) -> None:
    ref = make.task("a")
    end = make.answered(ref, make.call(), at_ms=10)
    verdict = make.settled(ref, [make.call()], at_ms=99)

    (row,) = book([verdict, end]).attempts
    assert row.at_ms == 10


def test_a_verdict_of_waste_stays_whoever_tells_it_first(make: Any) -> None:
    ref = make.task("a")
    lost = make.settled(ref, [make.call(wasted=True)])
    end = make.answered(ref, make.call())

    assert [row.wasted for row in book([lost, end]).attempts] == [True]
    assert [row.wasted for row in book([end, lost]).attempts] == [True]


def test_a_discarded_call_is_waste_and_no_task(make: Any) -> None:
    ref = make.task("a")
    books = book([make.discarded(ref, make.call(delivery=2, cost=5)), make.settled(ref, [make.call(cost=5)])])

    assert [(row.delivery, row.wasted) for row in books.attempts] == [(1, False), (2, True)]
    assert len(books.tasks) == 1


def test_a_failed_attempt_keeps_its_code(make: Any) -> None:
    ref = make.task("a")
    (row,) = book([make.failed(ref, make.call(succeeded=False, error_code="upstream_timeout"))]).attempts
    assert (row.succeeded, row.error_code) == (False, "upstream_timeout")


@pytest.mark.parametrize("state", ["completed", "failed", "canceled"])
def test_every_terminal_state_is_booked(make: Any, state: str) -> None:
    (row,) = book([make.settled(make.task("a"), [], state=state)]).tasks
    assert row.state == state


def test_every_reused_answer_is_a_task_without_a_call(make: Any) -> None:
    books = book([make.reused(["a", "b"], saved=5)])
    assert (books.starts, books.attempts) == ([], [])
    assert [(row.state, row.charge_picos, row.cache, row.saved_picos) for row in books.tasks] == [
        ("completed", "0", "hit_exact", "5")
    ] * 2
    assert all(row.output_tokens for row in books.tasks)


def test_messages_that_no_book_speaks_of_add_nothing(make: Any) -> None:
    assert book([TaskAccepted(task=make.task("a"), at_ms=1)]) == Books([], [], [], [])


def test_a_zero_byte_does_not_escape_the_bill(make: Any) -> None:
    ref = make.task("a", tags={"te\x00am": "\x00"}, project="p\x00")
    books = book([make.settled(ref, [make.call(model="m\x00")])])

    assert "\x00" not in "".join(str(field) for row in (*books.attempts, *books.tasks) for field in row)
    assert "\\u0000" not in books.tasks[0].tags


def test_integers_beyond_63_bits_keep_every_digit(make: Any) -> None:
    (row,) = book([make.settled(make.task("a"), [make.call(cost=2**64 - 1)])]).attempts
    assert row.cost_picos == str(2**64 - 1)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_order_and_duplicates_change_no_row(make: Any, data: st.DataObject) -> None:
    events: list[JourneyMessage] = data.draw(make.histories())
    again = data.draw(st.lists(st.sampled_from(events), max_size=len(events)))
    shuffled = data.draw(st.permutations(events + again))

    assert book(shuffled) == book(events)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_batches_change_no_row(make: Any, data: st.DataObject) -> None:
    events: list[JourneyMessage] = data.draw(make.histories())
    cuts = sorted(data.draw(st.sets(st.integers(0, len(events)))) | {0, len(events)})
    standing: dict[tuple[str, int, int], AttemptRow] = {}
    for begin, end in pairwise(cuts):
        for row in book(events[begin:end]).attempts:
            standing[row[:3]] = merge(standing.get(row[:3], row), row)

    assert [standing[key] for key in sorted(standing)] == book(events).attempts
