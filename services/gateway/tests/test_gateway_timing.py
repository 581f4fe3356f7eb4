"""When a task may begin: not before a time, in the cheap hours, or at once."""

import contextlib
from datetime import UTC, datetime

import pytest
from collegium_gateway.admission.requests import Options
from collegium_gateway.admission.timing import MAX_AHEAD_SECONDS, begins_at, refuse_times
from collegium_gateway.errors import ApiError
from collegium_settings.settings import OffPeakSettings
from hypothesis import given
from hypothesis import strategies as st

NIGHTS = OffPeakSettings(from_time="22:00", to_time="06:00", timezone="Europe/Berlin")


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


NOON = ms("2026-07-01T12:00:00+02:00")
NIGHT = ms("2026-07-01T23:00:00+02:00")


@pytest.mark.parametrize(
    ("options", "now_ms", "begins"),
    [
        (Options(), NOON, 0),
        (Options(not_before="2026-07-01T13:00:00+02:00"), NOON, ms("2026-07-01T11:00:00+00:00")),
        (Options(not_before="2026-07-01T10:30:00.250Z"), NOON, ms("2026-07-01T10:30:00.250+00:00")),
        (Options(not_before="2020-01-01T00:00:00Z"), NOON, 0),
        (Options(off_peak=True), NIGHT, 0),
        (Options(off_peak=True), NOON, ms("2026-07-01T22:00:00+02:00")),
        (Options(off_peak=True, not_before="2026-07-01T23:30:00+02:00"), NOON, ms("2026-07-01T23:30:00+02:00")),
        (Options(off_peak=True, not_before="2026-07-02T09:00:00+02:00"), NOON, ms("2026-07-02T22:00:00+02:00")),
    ],
)
def test_it_begins(options, now_ms, begins):
    assert begins_at(options, NIGHTS, now_ms) == begins


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "2026-07-01",
        "2026-07-01T13:00:00",
        "2026-13-01T00:00:00Z",
        "20260701T130000Z",
        "9999-12-31T00:00:00Z",
    ],
)
def test_what_is_no_time_within_a_month_is_refused(text):
    with pytest.raises(ApiError) as error:
        begins_at(Options(not_before=text), NIGHTS, NOON)
    assert (error.value.code, error.value.param) == ("invalid_value", "not_before")


def test_the_month_is_the_bound():
    bound = datetime.fromtimestamp(NOON / 1000 + MAX_AHEAD_SECONDS, UTC).isoformat()
    assert begins_at(Options(not_before=bound), NIGHTS, NOON) == NOON + MAX_AHEAD_SECONDS * 1000


@given(st.datetimes(timezones=st.just(UTC)), st.booleans())
def test_no_time_breaks_it_and_none_begins_in_the_past(moment, off_peak):
    with contextlib.suppress(ApiError):
        begins = begins_at(Options(not_before=moment.isoformat(), off_peak=off_peak), NIGHTS, NOON)
        assert begins == 0 or begins > NOON


@pytest.mark.parametrize(
    ("options", "param"), [(Options(off_peak=True), "off_peak"), (Options(not_before="x"), "not_before")]
)
def test_what_cannot_wait_refuses_both(options, param):
    with pytest.raises(ApiError, match="use POST /v1/tasks") as error:
        refuse_times(options, "is for tasks: use POST /v1/tasks")
    assert (error.value.code, error.value.param) == ("unsupported_option", param)
    refuse_times(Options(), "is never said")
