"""Prometheus metrics: one registry a service, and label children that are looked up once.

One rule: counting on the hot path is a dictionary access and an addition; whatever has to be computed is computed when
somebody scrapes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Generic, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from collegium_telemetry import names

M = TypeVar("M", Counter, Gauge, Histogram)

# Labels are roster names and states, tens of them; a mistake must not fill the memory of Prometheus.
LABELS_MAX: Final = 1000
OTHER: Final = "other"
PICOS_PER_USD: Final = 10**12

DURATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 120.0)
OVERHEAD_BUCKETS: Final = (0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)

# Creation times double the number of series and nobody reads them.
disable_created_metrics()


def label(attribute: str) -> str:
    """Returns an attribute of OTel's conventions as Prometheus spells a label."""
    return attribute.replace(".", "_")


class Family(Generic[M]):
    """A metric with labels; ``family[state]`` (or ``family[model, kind]``) is its child, made at the first use."""

    __slots__ = ("_children", "_metric", "_width")

    def __init__(self, metric: M, width: int) -> None:
        self._metric = metric
        self._width = width
        self._children: dict[str | tuple[str, ...], M] = {}

    def __getitem__(self, labels: str | tuple[str, ...]) -> M:
        child = self._children.get(labels)
        return self._make(labels) if child is None else child

    def _make(self, labels: str | tuple[str, ...]) -> M:
        values = (labels,) if isinstance(labels, str) else labels
        if len(self._children) >= LABELS_MAX:
            return self._metric.labels(*(OTHER,) * self._width)
        child = self._metric.labels(*values)
        self._children[labels] = child
        return child


class _Watched(Collector):
    """A gauge with a label, read at a scrape."""

    def __init__(self, name: str, about: str, labelled: str) -> None:
        self._name = name
        self._about = about
        self._labelled = labelled
        self.read: Callable[[], Mapping[str, float]] = dict

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Reads the values."""
        family = GaugeMetricFamily(self._name, self._about, labels=(self._labelled,))
        for value, number in itertools.islice(self.read().items(), LABELS_MAX):
            family.add_metric((value,), number)
        yield family


class Metrics:
    """What one service counts and measures.

    ``tasks["completed"].inc()``, ``task_duration.observe(seconds)``, ``overhead.observe(seconds)``,
    ``cache_requests["hit_exact"].inc()``, ``add_cost(model, picos)``, ``watch_gauge(name, read)`` and
    ``watch_gauges(name, label, read)`` for what is read at a scrape.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.registry = CollectorRegistry()
        self.tasks = self.counters(names.METRIC_TASKS, "Tasks by the state they settled in", ("state",))
        self.task_duration = self.histogram(
            names.METRIC_TASK_DURATION, "From acceptance to settlement", DURATION_BUCKETS
        )
        self.overhead = self.histogram(names.METRIC_OVERHEAD, "Everything but the model", OVERHEAD_BUCKETS)
        self.config_reloads = self.counters(
            names.METRIC_CONFIG_RELOADS, "Changes of the configuration file by what became of them", ("result",)
        )
        self.cost_usd = self.counters(names.METRIC_COST, "Booked cost in dollars, for watching only", ("model",))
        self.cache_requests = self.counters(names.METRIC_CACHE_REQUESTS, "Looks into the answer caches", ("result",))
        self._watched: dict[str, Gauge] = {}
        self._watched_by_label: dict[str, _Watched] = {}
        # Memory, processor time, open files and start time of the process, read at a scrape.
        ProcessCollector(registry=self.registry)

    def counters(self, name: str, about: str, labels: Sequence[str]) -> Family[Counter]:
        """Adds a counter with labels."""
        return Family(Counter(name, about, labels, registry=self.registry), len(labels))

    def gauges(self, name: str, about: str, labels: Sequence[str]) -> Family[Gauge]:
        """Adds a gauge with labels."""
        return Family(Gauge(name, about, labels, registry=self.registry), len(labels))

    def histograms(self, name: str, about: str, buckets: Sequence[float], labels: Sequence[str]) -> Family[Histogram]:
        """Adds a histogram with labels."""
        return Family(Histogram(name, about, labels, registry=self.registry, buckets=buckets), len(labels))

    def counter(self, name: str, about: str) -> Counter:
        """Adds a counter without labels."""
        return Counter(name, about, registry=self.registry)

    def histogram(self, name: str, about: str, buckets: Sequence[float] = DURATION_BUCKETS) -> Histogram:
        """Adds a histogram without labels."""
        return Histogram(name, about, registry=self.registry, buckets=buckets)

    def watch_gauge(self, name: str, read: Callable[[], float], about: str | None = None) -> None:
        """Adds a gauge whose value is read at every scrape; the same name again replaces what is read."""
        if name not in self._watched:
            self._watched[name] = Gauge(name, about or name, registry=self.registry)
        self._watched[name].set_function(read)

    def watch_gauges(self, name: str, labelled: str, read: Callable[[], Mapping[str, float]], about: str) -> None:
        """Adds a gauge with a label whose values are read at every scrape, by the label's value: what is gone from them
        is shown no more. The same name again replaces what is read."""
        if name not in self._watched_by_label:
            self._watched_by_label[name] = _Watched(name, about, labelled)
            self.registry.register(self._watched_by_label[name])
        self._watched_by_label[name].read = read

    def add_cost(self, model: str, picos: int) -> None:
        """Counts a booked cost; a float for dashboards, the ledger has the exact one."""
        self.cost_usd[model].inc(picos / PICOS_PER_USD)

    def render(self) -> bytes:
        """Writes everything in Prometheus's text format 0.0.4."""
        return generate_latest(self.registry)
