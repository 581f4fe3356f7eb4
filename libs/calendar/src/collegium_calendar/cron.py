"""Cron expressions of five fields in a time zone.

The fields are those of crontab(5): minute, hour, day of month, month, day of week. Jobs at a set hour follow Debian's
cron over a change of clocks: a time that the clock skips comes right after the gap, one that it shows twice comes
once; jobs with ``*`` in minute or hour follow the clock. One rule: the next firing is later than the instant that was
asked for, whatever the clocks do.
"""

from __future__ import annotations

from datetime import tzinfo

from cronsim import CronSim, CronSimError

from collegium_calendar.errors import CalendarError
from collegium_calendar.zones import at_ms, to_ms, zone

FIELDS = 5
MAX_CHARS = 100


class Cron:
    """One expression in one zone; raises CalendarError for what is no expression, or never comes."""

    def __init__(self, expression: str, timezone: str) -> None:
        if len(expression) > MAX_CHARS or len(expression.split()) != FIELDS:
            raise CalendarError(
                "cron",
                f"cron must have the five fields minute, hour, day, month and weekday, in {MAX_CHARS} characters",
            )
        self._expression = expression
        self._zone: tzinfo = zone(timezone)
        try:
            CronSim(expression, at_ms(0, self._zone))
        except CronSimError as error:
            raise CalendarError("cron", f"{expression!r} is no cron expression: {error}") from None

    def next_after(self, unix_ms: int) -> int | None:
        """Returns the first firing after an instant; none where there is none within fifty years."""
        firings = CronSim(self._expression, at_ms(unix_ms, self._zone))
        for firing in firings:
            # In the hour that the clock shows twice, a job at a set time is found at its first showing, which may lie
            # before the instant that was asked for.
            if (found := to_ms(firing)) > unix_ms:
                return found
        return None
