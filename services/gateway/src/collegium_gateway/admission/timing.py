"""When a task may begin: ``not_before`` and ``off_peak``. Pure.

One rule: what lies in the past, and an off-peak window that is open, mean at once.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from collegium_calendar.window import Window, opens_at
from collegium_settings.settings import OffPeakSettings

from collegium_gateway.admission.requests import Options
from collegium_gateway.errors import ApiError

# What waits is removed from SCHEDULE after 35 days.
MAX_AHEAD_SECONDS = 30 * 86_400
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


def begins_at(options: Options, off_peak: OffPeakSettings, now_ms: int) -> int:
    """Returns when a task may begin in Unix milliseconds, 0 for at once; raises ApiError ``invalid_value``."""
    if options.not_before is None and not options.off_peak:
        return 0
    begins_ms = now_ms
    if options.not_before is not None:
        begins_ms = max(now_ms, _instant_of(options.not_before))
    if begins_ms - now_ms > MAX_AHEAD_SECONDS * 1000:
        raise ApiError(
            "invalid_value", f"not_before may be at most {MAX_AHEAD_SECONDS // 86_400} days ahead", param="not_before"
        )
    if options.off_peak:
        begins_ms = opens_at(Window(off_peak.from_time, off_peak.to_time, off_peak.timezone), begins_ms)
    return begins_ms if begins_ms > now_ms else 0


def refuse_times(options: Options, why: str) -> None:
    """Raises ApiError ``unsupported_option`` where a request that cannot wait says when it may begin."""
    for name, present in (("not_before", options.not_before is not None), ("off_peak", options.off_peak)):
        if present:
            raise ApiError("unsupported_option", f"{name} {why}", param=name)


def _instant_of(text: str) -> int:
    try:
        moment: datetime = msgspec.convert(text, type=_Instant)
        return int(moment.timestamp() * 1000)
    except (msgspec.ValidationError, OverflowError):
        raise ApiError(
            "invalid_value",
            "not_before must be a time in RFC 3339 with an offset, such as 2030-01-31T22:00:00+01:00",
            param="not_before",
        ) from None
