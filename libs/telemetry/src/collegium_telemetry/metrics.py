"""Prometheus metrics of one service, in a registry of its own.

Label children are looked up once and kept, because a lookup costs more than the increment. One rule: no label takes a
value that a client chooses freely.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from collegium_telemetry import names

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_OVERHEAD = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)


class Metrics:
    """The metrics that a service may report; unused ones are not shown."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.tasks = cache(self._tasks)
        self.task_duration = cache(self._task_duration)
        self.overhead = cache(self._overhead)
        self.cost_usd = cache(self._cost_usd)
        self._gauges: dict[str, Gauge] = {}
        self._tasks_total = cache(
            lambda: Counter(names.TASKS_TOTAL, "Tasks by state.", ["state"], registry=self.registry)
        )
        self._cost_total = cache(
            lambda: Counter(names.COST_USD_TOTAL, "Cost booked, in dollars.", ["model"], registry=self.registry)
        )

    def _tasks(self, state: str) -> Counter:
        return self._tasks_total().labels(state)

    def _cost_usd(self, model: str) -> Counter:
        return self._cost_total().labels(model)

    def _task_duration(self) -> Histogram:
        return Histogram(
            names.TASK_DURATION_SECONDS, "Submission to settlement.", buckets=_SECONDS, registry=self.registry
        )

    def _overhead(self) -> Histogram:
        return Histogram(names.OVERHEAD_SECONDS, "Everything but the model.", buckets=_OVERHEAD, registry=self.registry)

    def watch_gauge(self, name: str, read: Callable[[], float], help_text: str = "") -> None:
        """Reports what ``read`` returns at each scrape under a metric's name."""
        gauge = self._gauges.get(name)
        if gauge is None:
            gauge = self._gauges[name] = Gauge(name, help_text or name.replace("_", " "), registry=self.registry)
        gauge.set_function(read)

    def render(self) -> bytes:
        """Returns the metrics in Prometheus' text format."""
        return generate_latest(self.registry)
