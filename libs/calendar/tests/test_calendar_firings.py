"""Cron's next firing over changes of clocks, and what becomes of firings that were missed."""

from datetime import datetime

import pytest
from collegium_calendar.cron import Cron
from collegium_calendar.errors import CalendarError
from collegium_calendar.firings import LATE_MS, MAX_CAUGHT_UP, firings
from hypothesis import given
from hypothesis import strategies as st

MINUTE_MS = 60_000
DAY_MS = 86_400_000
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])
EXPRESSIONS = st.sampled_from(
    [
        "* * * * *",
        "*/7 * * * *",
        "30 2 * * *",
        "0 */3 * * *",
        "15 1,2,3 * * *",
        "0 0 1 * *",
        "5 4 * * MON",
        "*/20 2 * * *",
    ]
)
YEAR = st.integers(1_767_225_600_000, 1_798_761_600_000)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@given(EXPRESSIONS, ZONES, YEAR)
def test_the_next_firing_is_later_and_on_a_whole_minute(expression, name, now_ms):
    found = Cron(expression, name).next_after(now_ms)
    assert found > now_ms
    assert found % MINUTE_MS == 0


@given(EXPRESSIONS, ZONES, YEAR, st.floats(0, 0.999))
def test_nothing_lies_between_an_instant_and_its_next_firing(expression, name, now_ms, share):
    cron = Cron(expression, name)
    found = cron.next_after(now_ms)
    between = now_ms + int((found - now_ms) * share)
    assert cron.next_after(between) == found


@pytest.mark.parametrize(
    ("expression", "after", "comes"),
    [
        ("30 2 * * *", "2026-03-28T12:00:00+01:00", "2026-03-29T03:00:00+02:00"),
        ("30 2 * * *", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"),
        ("30 2 * * *", "2026-10-25T00:00:00+02:00", "2026-10-25T02:30:00+02:00"),
        ("30 2 * * *", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"),
        ("30 2 * * *", "2026-10-25T02:10:00+01:00", "2026-10-26T02:30:00+01:00"),
        ("0 * * * *", "2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"),
        ("0 9 * * MON-FRI", "2026-07-03T09:00:00+02:00", "2026-07-06T09:00:00+02:00"),
        ("0 0 29 2 *", "2026-01-01T00:00:00+01:00", "2028-02-29T00:00:00+01:00"),
    ],
)
def test_a_calendar_in_berlin(expression, after, comes):
    assert Cron(expression, "Europe/Berlin").next_after(ms(after)) == ms(comes)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "0 0 31 2 *",
        "@daily",
        "a b c d e",
        "*/0 * * * *",
        "* " * 60,
    ],
)
def test_what_is_no_expression_of_five_fields_is_refused(expression):
    with pytest.raises(CalendarError) as error:
        Cron(expression, "UTC")
    assert error.value.param == "cron"


@given(EXPRESSIONS, ZONES, YEAR, st.integers(0, 40 * DAY_MS), st.sampled_from(["skip", "once", "all"]))
def test_what_is_due_is_in_order_without_doubles_and_the_next_lies_ahead(expression, name, start_ms, away_ms, missed):
    cron = Cron(expression, name)
    next_ms = cron.next_after(start_ms)
    now_ms = start_ms + away_ms
    decided = firings(cron, next_ms, now_ms, missed)
    assert list(decided.due_ms) == sorted(set(decided.due_ms))
    assert all(next_ms <= at <= now_ms for at in decided.due_ms)
    assert decided.next_ms > now_ms
    assert len(decided.due_ms) <= MAX_CAUGHT_UP + 2
    in_time = [at for at in decided.due_ms if at >= now_ms - LATE_MS]
    late = [at for at in decided.due_ms if at < now_ms - LATE_MS]
    was_missed = next_ms < now_ms - LATE_MS
    assert len(late) == {"skip": 0, "once": int(was_missed)}.get(missed, len(late))
    assert not (missed == "all" and was_missed) or late[0] == next_ms
    assert in_time == list(firings(cron, next_ms, now_ms, "skip").due_ms), "what is in time runs under every policy"


@given(EXPRESSIONS, ZONES, YEAR, st.lists(st.integers(1, 3 * MINUTE_MS), min_size=1, max_size=30))
def test_looked_at_again_and_again_every_firing_is_submitted_once_under_all(expression, name, start_ms, pauses_ms):
    cron = Cron(expression, name)
    next_ms = cron.next_after(start_ms)
    now_ms, submitted = start_ms, []
    for pause_ms in pauses_ms:
        now_ms += pause_ms
        decided = firings(cron, next_ms, now_ms, "all")
        submitted += decided.due_ms
        next_ms = decided.next_ms
    expected, at = [], cron.next_after(start_ms)
    while at <= now_ms:
        expected.append(at)
        at = cron.next_after(at)
    assert submitted == expected


def test_a_weekend_without_a_platform():
    cron = Cron("0 * * * *", "UTC")
    next_ms, now_ms = ms("2026-07-03T18:00:00+00:00"), ms("2026-07-06T08:30:00+00:00")
    assert firings(cron, next_ms, now_ms, "skip").due_ms == ()
    assert firings(cron, next_ms, now_ms, "once").due_ms == (next_ms,)
    assert len(firings(cron, next_ms, now_ms, "all").due_ms) == 63
    assert firings(cron, next_ms, now_ms + 10 * DAY_MS, "all").due_ms == tuple(
        next_ms + hour * 3_600_000 for hour in range(MAX_CAUGHT_UP)
    )
    assert {firings(cron, next_ms, now_ms, policy).next_ms for policy in ("skip", "once", "all")} == {
        ms("2026-07-06T09:00:00+00:00")
    }


def test_before_its_time_nothing_is_due():
    assert firings(Cron("0 * * * *", "UTC"), 3_600_000, 3_599_999, "all") == ((), 3_600_000)
