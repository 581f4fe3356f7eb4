"""Sums over windows of time: rolling ones, which forget in steps, and those of the calendar. Pure.

A rolling window keeps its amounts in at most about 500 steps of time; a step leaves as a whole, so that an amount
counts for at least the window's length and at most a five-hundredth longer. One rule: a window never forgets early.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Protocol

STEPS = 500
LEAST_STEP_MS = 1_000

Amounts = list[tuple[int, int]]


class Window(Protocol):
    """What a budget or a rate counts in: ``total`` is the sum as of the last ``forget``."""

    total: int

    def add(self, at_ms: int, amount: int) -> None:
        """Counts an amount at its own time, which may lie back."""
        ...

    def forget(self, now_ms: int) -> None:
        """Drops what the window does not reach any more."""
        ...

    def frees_at(self, amount: int, now_ms: int) -> int:
        """Returns when (Unix ms) at least ``amount`` will have left if nothing is added; 0 where it never was in."""
        ...

    def amounts(self) -> Amounts:
        """Returns what it holds, oldest first, in a form that ``add`` makes it again from."""
        ...


class RollingWindow:
    """The sum of the last ``length_ms``."""

    __slots__ = ("_length_ms", "_step_ms", "_steps", "total")

    def __init__(self, length_ms: int, amounts: Iterable[tuple[int, int]] = ()) -> None:
        self._length_ms = length_ms
        self._step_ms = max(LEAST_STEP_MS, -(-length_ms // STEPS))
        self._steps: deque[list[int]] = deque()
        self.total = 0
        for at_ms, amount in amounts:
            self.add(at_ms, amount)

    def add(self, at_ms: int, amount: int) -> None:
        """Counts an amount in the step of its time."""
        start = at_ms - at_ms % self._step_ms
        steps = self._steps
        self.total += amount
        if not steps or steps[-1][0] < start:
            steps.append([start, amount])
            return
        for index in range(len(steps) - 1, -1, -1):
            step = steps[index]
            if step[0] == start:
                step[1] += amount
                return
            if step[0] < start:
                steps.insert(index + 1, [start, amount])
                return
        steps.appendleft([start, amount])

    def forget(self, now_ms: int) -> None:
        """Drops the steps that ended before the window began."""
        steps = self._steps
        while steps and steps[0][0] + self._step_ms <= now_ms - self._length_ms:
            self.total -= steps.popleft()[1]

    def frees_at(self, amount: int, now_ms: int) -> int:
        """Returns when the oldest steps that make up ``amount`` will have left."""
        left = amount
        for start, held in self._steps:
            left -= held
            if left <= 0:
                return max(now_ms, start + self._step_ms + self._length_ms)
        return 0

    def empties_at(self) -> int:
        """Returns when the newest step will have left; 0 where there is none."""
        return self._steps[-1][0] + self._step_ms + self._length_ms if self._steps else 0

    def amounts(self) -> Amounts:
        """Returns the steps."""
        return [(start, amount) for start, amount in self._steps]


class CalendarWindow:
    """The sum of the current day or month (UTC). What its last period held above ``limit`` counts in this one too."""

    __slots__ = ("_from_ms", "_is_month", "_limit", "_until_ms", "carried", "total")

    def __init__(
        self, *, is_month: bool, limit: int, now_ms: int, amounts: Iterable[tuple[int, int]] = (), carried: int = 0
    ) -> None:
        self._is_month = is_month
        self._limit = limit
        self._from_ms, self._until_ms = self._period(now_ms)
        self.carried = carried
        self.total = carried
        for at_ms, amount in amounts:
            self.add(at_ms, amount)

    def _period(self, now_ms: int) -> tuple[int, int]:
        moment = datetime.fromtimestamp(now_ms / 1000, UTC)
        start = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        if not self._is_month:
            end = start + timedelta(days=1)
        else:
            start = start.replace(day=1)
            end = (start + timedelta(days=32)).replace(day=1)
        return int(start.timestamp() * 1000), int(end.timestamp() * 1000)

    def add(self, at_ms: int, amount: int) -> None:
        """Counts an amount of this period; one of an earlier period is in its own, which is over."""
        if at_ms >= self._from_ms:
            self.total += amount

    def forget(self, now_ms: int) -> None:
        """Begins a new period where it is time; the old one's excess is carried over."""
        if now_ms < self._until_ms:
            return
        skipped = self._period(now_ms)
        self.carried = max(0, self.total - self._limit) if skipped[0] == self._until_ms else 0
        self._from_ms, self._until_ms = skipped
        self.total = self.carried

    def frees_at(self, amount: int, now_ms: int) -> int:
        """Returns when the period ends."""
        return self._until_ms if amount <= self.total else 0

    def amounts(self) -> Amounts:
        """Returns the period's sum without what was carried into it."""
        own = self.total - self.carried
        return [(self._from_ms, own)] if own else []
