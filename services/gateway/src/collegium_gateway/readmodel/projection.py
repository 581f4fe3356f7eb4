"""Projecting events into the read model: one batch, one statement, then spans and metrics of what settled.

A batch with callbacks in it takes a second statement; one without pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from collegium_bus.events import EventOf
from collegium_bus.slices import in_slices
from collegium_contracts.messages import JourneyMessage, Settled
from collegium_runtime.platform import Platform
from collegium_runtime.spans import begin_spans
from collegium_telemetry.hop import trace_of

from collegium_gateway.people import book
from collegium_gateway.readmodel.rows import TaskRow, fold, state_of
from collegium_gateway.readmodel.store import TaskStore
from collegium_gateway.webhooks.values import changes_of

SPAN_PROJECT: Final = "gateway project task"


class Projection:
    """Folds EVENTS into the tasks' rows; ``on_due`` is called when callbacks may have become due."""

    def __init__(self, platform: Platform, store: TaskStore, on_due: Callable[[], None]) -> None:
        self._platform = platform
        self._store = store
        self._on_due = on_due

    async def handle(self, events: Sequence[EventOf[JourneyMessage]]) -> None:
        """Writes a batch; counts it once the rows stand."""
        spans = begin_spans(self._platform.tracing, "gateway", SPAN_PROJECT, events)
        try:
            rows: dict[str, TaskRow] = {}
            async for some in in_slices(events):
                fold(rows, ((event.message, event.payload, trace_of(event.traceparent)) for event in some))
            webhooks = changes_of(event.message for event in events)
            people = book.changes_of(event.message for event in events)
            if rows or people is not None:
                await self._store.upsert(list(rows.values()), webhooks, people)
            if webhooks is not None:
                self._on_due()
        finally:
            for span in spans:
                span.end()
        async for some in in_slices(events):
            for event in some:
                if isinstance(event.message, Settled) and event.message.task.probe is None:
                    self._measure(event.message)

    def _measure(self, settled: Settled) -> None:
        metrics = self._platform.metrics
        state = state_of(settled)
        if state is not None:
            metrics.tasks[state].inc()
        # What a scheduled task waited for its time is nobody's slowness.
        began_ms = max(settled.task.created_at_ms, settled.task.not_before_ms)
        duration_ms = max(0, settled.settled_at_ms - began_ms)
        metrics.task_duration.observe(duration_ms / 1000)
        model_ms = max((attempt.duration_ms for attempt in settled.attempts), default=0)
        metrics.overhead.observe(max(0, duration_ms - model_ms) / 1000)
