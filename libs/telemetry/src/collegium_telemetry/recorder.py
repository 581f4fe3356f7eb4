"""Recorded spans: OpenTelemetry's SDK and its OTLP exporter, one provider a service.

Loaded only where an endpoint is configured. One rule: the sampling decision was made before a span gets here.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from collegium_telemetry import traceparent as w3c
from collegium_telemetry.hop import Attribute, Attributes, Hop, Kind
from collegium_telemetry.names import ERROR_TYPE, SERVICE_PREFIX

# Some seconds of a busy service at a full sample; a span waits in about a kilobyte.
QUEUE_SPANS = 16_384
BATCH_SPANS = 512
DELAY_MS = 1000
EXPORT_SECONDS = 5.0

_KINDS: dict[str, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_EMPTY = Context()


class RecordedHop(Hop):
    """A hop with a span of the SDK."""

    __slots__ = ("_span",)

    sampled = True

    def __init__(self, span: Span) -> None:
        context = span.get_span_context()
        super().__init__(f"00-{context.trace_id:032x}-{context.span_id:016x}-01")
        self._span = span

    def set(self, key: str, value: Attribute | None) -> None:
        """Sets an attribute; None sets nothing."""
        # The SDK would warn about an attribute after the end.
        if value is not None and self._span.is_recording():
            self._span.set_attribute(key, value)

    def describe(self, attributes: Attributes) -> None:
        """Sets several attributes."""
        if self._span.is_recording():
            self._span.set_attributes(_given(attributes))

    def fail(self, error_type: str, message: str | None = None) -> None:
        """Marks the span as failed."""
        if self._span.is_recording():
            self._span.set_attribute(ERROR_TYPE, error_type)
            self._span.set_status(Status(StatusCode.ERROR, message))

    def end(self) -> None:
        """Ends the span and hands it to the exporter's queue."""
        if self._span.is_recording():
            self._span.end()


class Recorder:
    """Begins spans of one service and exports them in batches from a thread of its own."""

    def __init__(self, service: str, otlp_endpoint: str) -> None:
        resource = Resource.create({"service.name": SERVICE_PREFIX + service, "service.instance.id": str(uuid.uuid4())})
        exporter = OTLPSpanExporter(endpoint=otlp_endpoint.rstrip("/") + "/v1/traces", timeout=EXPORT_SECONDS)
        processor = BatchSpanProcessor(
            exporter,
            max_queue_size=QUEUE_SPANS,
            schedule_delay_millis=DELAY_MS,
            max_export_batch_size=BATCH_SPANS,
        )
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("collegium")
        self._closed = False

    def begin(
        self,
        name: str,
        kind: Kind,
        parent: tuple[str, str, bool] | None,
        attributes: Attributes | None,
        links: Sequence[str],
    ) -> Hop:
        """Begins a span below a parent, or as the first of a new trace."""
        context = _EMPTY
        if parent is not None:
            context = set_span_in_context(NonRecordingSpan(_context(parent)), _EMPTY)
        given = _given(attributes) if attributes is not None else None
        span = self._tracer.start_span(name, context, _KINDS[kind], given, _links(links))
        return RecordedHop(span)

    def flush(self, timeout_seconds: float) -> bool:
        """Sends what has ended."""
        return self._provider.force_flush(int(timeout_seconds * 1000))

    def shutdown(self, timeout_seconds: float) -> None:
        """Sends what has ended and stops; what the endpoint does not take in time is lost."""
        if self._closed:
            return
        self._closed = True
        # The SDK waits for its exporter's retries however long they take; its thread is left to end by itself.
        ending = threading.Thread(target=self._provider.shutdown, name="tracing-shutdown", daemon=True)
        ending.start()
        ending.join(timeout_seconds)


def _given(attributes: Attributes) -> dict[str, Attribute]:
    return {key: value for key, value in attributes.items() if value is not None}


def _context(parent: tuple[str, str, bool]) -> SpanContext:
    return SpanContext(int(parent[0], 16), int(parent[1], 16), is_remote=True, trace_flags=_SAMPLED)


def _links(traceparents: Sequence[str]) -> list[Link]:
    parsed = (w3c.parse(one) for one in traceparents)
    return [Link(_context(one)) for one in parsed if one is not None]
