"""Until when the answer of an attempt's end is to be tested, in one header of the event. Pure.

Few tasks have tests, and every end comes by whoever runs them: what has no such note is not read. One rule: an end
without a note has nothing to test.
"""

from __future__ import annotations

from typing import Final

from collegium_contracts.messages import AttemptAnswered, AttemptEnded

_DIGITS_MAX: Final = 16


def write_until(ended: AttemptEnded) -> str:
    """Writes the deadline (Unix ms) of a task with tests whose answer this is; empty where there is nothing to test."""
    if not isinstance(ended, AttemptAnswered) or not ended.task.tests or ended.attempt.judges:
        return ""
    return str(ended.task.deadline_ms)


def read_until(text: str) -> int | None:
    """Reads a note; none where there is none, or what stands there is not one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else None
