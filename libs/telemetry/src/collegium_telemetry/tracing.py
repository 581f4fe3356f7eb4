"""One span a hop, sampled at the root, carried by W3C trace context.

An unsampled hop touches no SDK: its trace context is passed on as it came, so that a hop costs about a microsecond. A
sampled hop is a span of the OpenTelemetry SDK. One rule: the root decides, everybody else follows the flag.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanKind, Tracer

HopKind = Literal["server", "client", "producer", "consumer", "internal"]
Attributes = Mapping[str, Any]

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")
_SAMPLED_FLAG = "-01"


class Hop:
    """One hop's span. ``traceparent`` goes into the headers of what the hop causes."""

    __slots__ = ("_span", "sampled", "traceparent")

    def __init__(self, traceparent: str, span: Span | None) -> None:
        self.traceparent = traceparent
        self.sampled = span is not None
        self._span = span

    @property
    def trace_id(self) -> str:
        """The trace's id, 32 hex digits; empty where there is no trace."""
        return self.traceparent[3:35]

    def set(self, name: str, value: Any) -> None:
        """Sets an attribute of a sampled span."""
        if self._span is not None:
            self._span.set_attribute(name, value)

    def fail(self, error_type: str) -> None:
        """Marks the span failed with an error code (never a message, which may hold content)."""
        if self._span is not None:
            from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

            self._span.set_attribute("error.type", error_type)
            self._span.set_status(Status(StatusCode.ERROR, error_type))

    def end(self) -> None:
        """Ends the span; ending it twice is harmless."""
        if self._span is not None:
            self._span.end()
            self._span = None

    def __enter__(self) -> Hop:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc_type is not None:
            self.fail(getattr(exc, "code", None) or exc_type.__name__)
        self.end()


class Tracing:
    """The tracer of one service."""

    def __init__(self, service: str, provider: TracerProvider | None, sample_ratio: float) -> None:
        self.service = service
        self._provider = provider
        self._tracer: Tracer | None = provider.get_tracer("collegium") if provider is not None else None
        self._sample_ratio = sample_ratio
        self._random = random.Random()  # noqa: S311 - trace ids and sampling are no secret

    def root(
        self, name: str, kind: HopKind, *, incoming_traceparent: str | None = None, attributes: Attributes | None = None
    ) -> Hop:
        """Begins a journey: follows the caller's trace context where it sent one, else makes and samples a new one."""
        if incoming_traceparent is not None and _TRACEPARENT.match(incoming_traceparent) is not None:
            return self.hop(name, kind, incoming_traceparent, attributes)
        if self._tracer is not None and self._random.random() < self._sample_ratio:
            return self._sampled(name, kind, None, attributes)
        return Hop(f"00-{self._random.getrandbits(128):032x}-{self._random.getrandbits(64):016x}-00", None)

    def hop(self, name: str, kind: HopKind, traceparent: str | None, attributes: Attributes | None = None) -> Hop:
        """Continues a journey from the trace context in a message's headers."""
        if not traceparent or self._tracer is None or not traceparent.endswith(_SAMPLED_FLAG):
            return Hop(traceparent or "", None)
        return self._sampled(name, kind, traceparent, attributes)

    def _sampled(self, name: str, kind: HopKind, parent: str | None, attributes: Attributes | None) -> Hop:
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.context import Context  # noqa: PLC0415

        assert self._tracer is not None, "only a tracer samples"
        context = Context()
        match = _TRACEPARENT.match(parent) if parent is not None else None
        if match is not None:
            remote = trace.SpanContext(
                trace_id=int(match.group(1), 16),
                span_id=int(match.group(2), 16),
                is_remote=True,
                trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
            )
            context = trace.set_span_in_context(trace.NonRecordingSpan(remote), context)
        span = self._tracer.start_span(name, context=context, kind=_kind(kind), attributes=attributes)
        own = span.get_span_context()
        return Hop(f"00-{own.trace_id:032x}-{own.span_id:016x}-01", span)

    def shutdown(self) -> None:
        """Sends what is pending and stops; blocks for at most the exporter's timeout."""
        if self._provider is not None:
            self._provider.shutdown()


def _kind(kind: HopKind) -> SpanKind:
    from opentelemetry.trace import SpanKind  # noqa: PLC0415

    return SpanKind[kind.upper()]


def setup(service: str, *, otlp_endpoint: str | None, sample_ratio: float) -> Tracing:
    """Returns a service's tracing; without an endpoint nothing is sampled here and the SDK is not imported.

    ``otlp_endpoint`` is the base URL of an OTLP/HTTP receiver; traces go to ``<base>/v1/traces``.
    """
    if not otlp_endpoint:
        return Tracing(service, None, 0.0)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415

    resource = Resource.create({"service.name": f"collegium-{service}", "service.instance.id": f"{os.getpid()}"})
    provider = TracerProvider(resource=resource, sampler=ALWAYS_ON, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=otlp_endpoint.rstrip("/") + "/v1/traces", timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    return Tracing(service, provider, sample_ratio)
