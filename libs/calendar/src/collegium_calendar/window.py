"""A daily window of hours, such as 22:00 to 06:00 in Berlin.

The window is what the clock on the wall shows: from the one time of day, included, to the other, excluded; it may pass
midnight, and equal times mean the whole day. One rule: the answer is the first instant at which the clock shows a time
inside, also on the days on which clocks change.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import NamedTuple

from collegium_calendar.zones import at_ms, to_ms, zone

# Zones have changed their clocks by up to a day.
_DAYS = range(-1, 4)


class Window(NamedTuple):
    """A window: two times of day, "HH:MM", and a zone's name."""

    from_time: str
    to_time: str
    timezone: str


def opens_at(window: Window, now_ms: int) -> int:
    """Returns the first instant at or after ``now_ms`` inside the window: ``now_ms`` itself where it is inside."""
    where = zone(window.timezone)
    begins, ends = time.fromisoformat(window.from_time), time.fromisoformat(window.to_time)
    if _inside(begins, ends, at_ms(now_ms, where)):
        return now_ms
    # Nothing but the clock's reaching the first time of day, or a change of clocks, leads into the window.
    today = at_ms(now_ms, where).date()
    candidates: set[int] = set()
    for days in _DAYS:
        wall = datetime.combine(today + timedelta(days=days), begins)
        before, after = (to_ms(wall.replace(tzinfo=where, fold=fold)) for fold in (0, 1))
        candidates |= {before, after, _change_between(where, min(before, after), max(before, after))}
    return min(one for one in candidates if one >= now_ms and _inside(begins, ends, at_ms(one, where)))


def _inside(begins: time, ends: time, moment: datetime) -> bool:
    clock = moment.time()
    if begins < ends:
        return begins <= clock < ends
    return clock >= begins or clock < ends or begins == ends


def _change_between(where: tzinfo, low_ms: int, high_ms: int) -> int:
    """Returns the instant of the change of clocks between two instants, or the later of them where there is none."""
    offset = _offset(where, low_ms)
    while high_ms - low_ms > 1000:
        middle_ms = (low_ms + high_ms) // 2000 * 1000
        if _offset(where, middle_ms) == offset:
            low_ms = middle_ms
        else:
            high_ms = middle_ms
    return high_ms


def _offset(where: tzinfo, unix_ms: int) -> timedelta | None:
    return datetime.fromtimestamp(unix_ms // 1000, UTC).astimezone(where).utcoffset()
