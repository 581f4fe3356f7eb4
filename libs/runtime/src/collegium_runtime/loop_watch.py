"""Watching an event loop from within: how late its timers run, and how much of that it was busy itself.

One rule: what is counted as blocked is never more than the processor time that the loop's thread used, so a machine
whose processors are all taken shows lag and no blocking.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from collegium_telemetry import names
from collegium_telemetry.metrics import Metrics

# What stands still for less may go unseen, and what is seen is too short by this at most.
EVERY_SECONDS: Final = 0.02
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class LoopWatch:
    """Watches the running loop, and tells all services that share it."""

    def __init__(self, metrics: Sequence[Metrics]) -> None:
        self._lag = [
            one.histogram(names.METRIC_LOOP_LAG, "How late the event loop's timers ran", BUCKETS) for one in metrics
        ]
        self._blocked = [
            one.histogram(names.METRIC_LOOP_BLOCKED, "The part of it in which the loop's thread computed", BUCKETS)
            for one in metrics
        ]
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._used = 0.0

    def start(self) -> None:
        """Begins to watch."""
        self._arm()

    def stop(self) -> None:
        """Ends it."""
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        self._due = time.monotonic() + EVERY_SECONDS
        self._used = time.thread_time()
        self._timer = asyncio.get_running_loop().call_later(EVERY_SECONDS, self._tick)

    def _tick(self) -> None:
        lag = max(0.0, time.monotonic() - self._due)
        blocked = min(lag, time.thread_time() - self._used)
        for histogram in self._lag:
            histogram.observe(lag)
        for histogram in self._blocked:
            histogram.observe(blocked)
        self._arm()
