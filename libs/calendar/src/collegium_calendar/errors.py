"""Errors of the calendar.

CalendarError    a cron expression or a time zone that cannot be used; ``param`` says which of the two
"""

from __future__ import annotations


class CalendarError(ValueError):
    """What was given cannot be used; ``param`` is ``cron`` or ``timezone``."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param
