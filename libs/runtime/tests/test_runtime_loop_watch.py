"""The watch of an event loop: what blocks it is counted with its length, and waiting counts as none."""

from __future__ import annotations

import asyncio
import time

from collegium_runtime.loop_watch import EVERY_SECONDS, LoopWatch
from collegium_telemetry import names
from collegium_telemetry.metrics import Metrics
from collegium_testing import eventually


def counted(metrics: Metrics, name: str, above: str) -> int:
    """How many observations were above a bucket's limit."""
    samples = {
        sample.labels.get("le", sample.name.rpartition("_")[2]): sample.value
        for family in metrics.registry.collect()
        if family.name == name
        for sample in family.samples
    }
    return int(samples["+Inf"] - samples[above])


def observed(metrics: Metrics) -> float | None:
    """How many timers ran in all."""
    return metrics.registry.get_sample_value(f"{names.METRIC_LOOP_LAG}_count")


async def test_what_computes_in_the_loop_is_seen_as_blocking_it() -> None:
    one, other = Metrics("one"), Metrics("other")
    watch = LoopWatch([one, other])
    watch.start()
    until = time.thread_time() + 0.3
    while time.thread_time() < until:
        pass
    await eventually(lambda: counted(one, names.METRIC_LOOP_BLOCKED, "0.1"))
    assert counted(other, names.METRIC_LOOP_BLOCKED, "0.1") == counted(one, names.METRIC_LOOP_LAG, "0.1") == 1
    watch.stop()


async def test_standing_still_without_computing_is_lag_alone() -> None:
    metrics = Metrics("one")
    watch = LoopWatch([metrics])
    watch.start()
    time.sleep(0.3)  # noqa: ASYNC251 - it is to stand still
    await eventually(lambda: counted(metrics, names.METRIC_LOOP_LAG, "0.1"))
    assert counted(metrics, names.METRIC_LOOP_BLOCKED, "0.1") == 0
    watch.stop()
    seen = observed(metrics)
    # A timer that is due after the watch's next would have been: timers run in order.
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(2 * EVERY_SECONDS, later.set)
    await later.wait()
    assert observed(metrics) == seen
