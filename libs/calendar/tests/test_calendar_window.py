"""The first instant of a window is the first one that the clock on the wall shows, over every change of clocks."""

from datetime import UTC, datetime

import pytest
from collegium_calendar.errors import CalendarError
from collegium_calendar.window import Window, opens_at
from collegium_calendar.zones import at_ms, zone
from hypothesis import given
from hypothesis import strategies as st

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo"]
MINUTE_MS = 60_000
# Where clocks change: the two hours around it, and quiet days.
CHANGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
    datetime(2018, 11, 4, 3, tzinfo=UTC),
]
CLOCK = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.sampled_from([0, 15, 30, 45]))
NOW = st.builds(
    lambda change, minutes: int(change.timestamp() * 1000) + minutes * MINUTE_MS,
    st.sampled_from(CHANGES),
    st.integers(-30 * 60, 6 * 60),
)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def inside(window: Window, unix_ms: int) -> bool:
    shown = at_ms(unix_ms, zone(window.timezone)).strftime("%H:%M")
    if window.from_time < window.to_time:
        return window.from_time <= shown < window.to_time
    return shown >= window.from_time or shown < window.to_time


@given(CLOCK, CLOCK, st.sampled_from(ZONES), NOW)
def test_it_is_the_first_minute_inside(begins, ends, name, now_ms):
    window = Window(begins, ends, name)
    found = opens_at(window, now_ms)
    brute = next(at for at in range(now_ms, now_ms + 3 * 86_400_000, MINUTE_MS) if inside(window, at))
    assert found == brute


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-07-01T12:00:00+02:00", "2026-07-01T22:00:00+02:00"),
        ("2026-07-01T23:00:00+02:00", "2026-07-01T23:00:00+02:00"),
        ("2026-07-01T05:59:59+02:00", "2026-07-01T05:59:59+02:00"),
        ("2026-07-01T06:00:00+02:00", "2026-07-01T22:00:00+02:00"),
        ("2026-03-28T12:00:00+01:00", "2026-03-28T22:00:00+01:00"),
        ("2026-03-29T12:00:00+02:00", "2026-03-29T22:00:00+02:00"),
    ],
)
def test_a_night_in_berlin(now, opens):
    assert opens_at(Window("22:00", "06:00", "Europe/Berlin"), ms(now)) == ms(opens)


def test_a_window_that_begins_in_the_hour_that_is_skipped_opens_after_the_gap():
    window = Window("02:30", "04:00", "Europe/Berlin")
    assert opens_at(window, ms("2026-03-29T00:10:00+01:00")) == ms("2026-03-29T03:00:00+02:00")


def test_a_window_that_the_clock_shows_twice_opens_twice():
    window = Window("02:30", "02:45", "Europe/Berlin")
    assert opens_at(window, ms("2026-10-25T00:10:00+02:00")) == ms("2026-10-25T02:30:00+02:00")
    assert opens_at(window, ms("2026-10-25T02:50:00+02:00")) == ms("2026-10-25T02:30:00+01:00")


def test_equal_times_are_the_whole_day():
    assert opens_at(Window("22:00", "22:00", "UTC"), 1_234) == 1_234


def test_a_zone_that_is_none_is_refused():
    for name in ("Mars/Olympus", "../etc/passwd", "", "x" * 65):
        with pytest.raises(CalendarError, match="zone") as error:
            zone(name)
        assert error.value.param == "timezone"
