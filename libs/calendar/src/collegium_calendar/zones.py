"""Time zones by name, and instants as Unix milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from functools import cache
from zoneinfo import ZoneInfo

from collegium_calendar.errors import CalendarError

MAX_NAME_CHARS = 64


@cache
def _known(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def zone(name: str) -> tzinfo:
    """Returns a time zone of the IANA database; raises CalendarError for a name that is not one."""
    if name == "UTC":
        return UTC
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise CalendarError("timezone", f"timezone must have 1 to {MAX_NAME_CHARS} characters")
    try:
        return _known(name)
    except (OSError, ValueError, LookupError):
        raise CalendarError("timezone", f"{name!r} is no time zone such as UTC or Europe/Berlin") from None


def at_ms(unix_ms: int, where: tzinfo) -> datetime:
    """Returns what the calendar and the clock on the wall show at an instant, in whole seconds."""
    return datetime.fromtimestamp(unix_ms // 1000, where)


def to_ms(moment: datetime) -> int:
    """Returns an aware datetime's instant, in whole seconds."""
    return int(moment.timestamp()) * 1000
