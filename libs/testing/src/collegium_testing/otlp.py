"""A small real OTLP/HTTP receiver: what an exporter sends, decoded.

Here: `OtlpReceiver`, for tests, and `python -m collegium_testing.otlp`, which prints spans as JSON lines. Not
here: storage, sampling, gRPC. Metrics and logs are accepted and dropped.
The one rule: it listens on a thread of its own, so that a blocking `force_flush()` in the test's event loop is
answered.
"""

import argparse
import asyncio
import signal
import sys
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import msgspec
import uvloop
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collegium_testing.http1 import Http1Connection, Request, listen, stop_listening

# An exporter's batch is some hundred kilobytes; more than this after decompression is a mistake.
MAX_BATCH_BYTES = 64 * 1024 * 1024
# Keeps a receiver that runs for days from filling the memory; the oldest spans go first.
MAX_SPANS = 1_000_000

_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES = ("unset", "ok", "error")
_PROTOBUF = b"application/x-protobuf"


class ReceivedSpan(msgspec.Struct, frozen=True):
    """One span; ids are lower-case hex, `parent_span_id` is "" for a root, times are unix nanoseconds.

    `service` is the resource's `service.name`; `kind` one of internal, server, client, producer, consumer or
    unspecified; `status` unset, ok or error; `links` holds pairs of trace and span id; `events` names.
    """

    name: str
    trace_id: str
    span_id: str
    parent_span_id: str
    service: str
    kind: str
    start_ns: int
    end_ns: int
    status: str
    status_message: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    events: tuple[str, ...]

    @property
    def duration_ms(self) -> float:
        """Milliseconds from start to end."""
        return (self.end_ns - self.start_ns) / 1e6


class OtlpReceiver:
    """Receives spans from `async with` (or `with`) to its end.

    `endpoint` is what OTEL_EXPORTER_OTLP_ENDPOINT takes; an exporter given its whole address wants
    `traces_endpoint`. `on_spans` runs on the receiver's thread with each batch.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        on_spans: Callable[[list[ReceivedSpan]], None] | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._on_spans = on_spans
        self._lock = threading.Lock()
        self._spans: list[ReceivedSpan] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._connections: set[Http1Connection] = set()

    def __enter__(self) -> Self:
        listening = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening,), name="otlp-receiver", daemon=True)
        self._thread.start()
        listening.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._ended is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, problem, trace)

    @property
    def endpoint(self) -> str:
        """The base address."""
        return f"http://{self._host}:{self._port}"

    @property
    def traces_endpoint(self) -> str:
        """The address spans are posted to."""
        return f"{self.endpoint}/v1/traces"

    @property
    def spans(self) -> tuple[ReceivedSpan, ...]:
        """All spans so far, in the order they came."""
        with self._lock:
            return tuple(self._spans)

    def trace(self, trace_id: str) -> tuple[ReceivedSpan, ...]:
        """Returns the spans of one trace, by start time."""
        found = (span for span in self.spans if span.trace_id == trace_id)
        return tuple(sorted(found, key=lambda span: (span.start_ns, span.span_id)))

    def ladder(self, trace_id: str) -> str:
        """Draws one trace as an indented tree (see `draw_ladder`)."""
        return draw_ladder(self.trace(trace_id))

    def clear(self) -> None:
        """Forgets all spans."""
        with self._lock:
            self._spans.clear()

    def _run(self, listening: threading.Event) -> None:
        try:
            uvloop.run(self._serve(listening))
        except BaseException as failure:
            # Raised again in the thread that waits for `listening`.
            self._failure = failure
        finally:
            listening.set()

    async def _serve(self, listening: threading.Event) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server, self._port = await listen(self._handle, self._host, self._port, self._connections)
        listening.set()
        await self._ended.wait()
        await stop_listening(server, self._connections)

    def _handle(self, connection: Http1Connection, request: Request) -> None:
        if request.path not in {"/v1/traces", "/v1/metrics", "/v1/logs"}:
            connection.reply(404, b"accepted: /v1/traces, /v1/metrics, /v1/logs", b"text/plain")
        elif request.method != "POST":
            connection.reply(405, b"accepted: POST", b"text/plain")
        elif request.path != "/v1/traces":
            connection.reply(200, b"", _PROTOBUF)
        elif not request.headers.get(b"content-type", b"").startswith(_PROTOBUF):
            connection.reply(415, b"accepted: application/x-protobuf", b"text/plain")
        else:
            self._receive(connection, request)

    def _receive(self, connection: Http1Connection, request: Request) -> None:
        try:
            spans = decode_spans(_inflate(request))
        except (DecodeError, zlib.error, ValueError) as problem:
            connection.reply(400, str(problem).encode(), b"text/plain")
            return
        with self._lock:
            self._spans.extend(spans)
            del self._spans[: max(0, len(self._spans) - MAX_SPANS)]
        if self._on_spans is not None:
            self._on_spans(spans)
        connection.reply(200, b"", _PROTOBUF)


def decode_spans(body: bytes) -> list[ReceivedSpan]:
    """Decodes an ExportTraceServiceRequest; raises protobuf's DecodeError for other bytes."""
    spans: list[ReceivedSpan] = []
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            spans.extend(_span(span, resource) for span in scope.spans)
    return spans


def draw_ladder(spans: Iterable[ReceivedSpan]) -> str:
    """Draws spans as a tree, one line each: service, name, kind, start after the first span, duration, error.

    A span whose parent was not received stands at the margin and says so.
    """
    ordered = sorted(spans, key=lambda span: (span.start_ns, span.span_id))
    if not ordered:
        return "(no spans)"
    known = {span.span_id for span in ordered}
    children: dict[str, list[ReceivedSpan]] = defaultdict(list)
    for span in ordered:
        children[span.parent_span_id if span.parent_span_id in known else ""].append(span)
    first_ns = ordered[0].start_ns
    lines: list[str] = []
    waiting = [(span, 0) for span in reversed(children[""])]
    while waiting:
        span, depth = waiting.pop()
        orphan = depth == 0 and span.parent_span_id
        lines.append(
            f"{'  ' * depth}{span.service}: {span.name} [{span.kind}] "
            f"+{(span.start_ns - first_ns) / 1e6:.2f} ms, {span.duration_ms:.2f} ms"
            f"{f' ERROR {span.status_message}'.rstrip() if span.status == 'error' else ''}"
            f"{f' (parent {span.parent_span_id} not received)' if orphan else ''}"
        )
        waiting.extend((child, depth + 1) for child in reversed(children[span.span_id]))
    return "\n".join(lines)


def _span(span: Span, resource: dict[str, Any]) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        service=str(resource.get("service.name", "")),
        kind=_KINDS[span.kind] if span.kind < len(_KINDS) else _KINDS[0],
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        status=_STATUSES[span.status.code] if span.status.code < len(_STATUSES) else _STATUSES[0],
        status_message=span.status.message,
        attributes=_attributes(span.attributes),
        resource=resource,
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        events=tuple(event.name for event in span.events),
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [_value(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, which)


def _inflate(request: Request) -> bytes:
    encoding = request.headers.get(b"content-encoding", b"identity").lower()
    if encoding == b"identity":
        return request.body
    if encoding not in {b"gzip", b"deflate"}:
        message = f"content-encoding {encoding.decode('latin-1')}: accepted are gzip, deflate, identity"
        raise ValueError(message)
    # 32 + 15: zlib finds out by itself whether the header is gzip's or zlib's.
    inflater = zlib.decompressobj(47)
    body = inflater.decompress(request.body, MAX_BATCH_BYTES)
    if not inflater.eof:
        message = f"compressed body is cut short, or longer than {MAX_BATCH_BYTES} bytes inflated"
        raise ValueError(message)
    return body


def main(arguments: list[str] | None = None) -> int:
    """Prints every received span as one JSON line until SIGTERM or Ctrl-C; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m collegium_testing.otlp", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4318, help="0 takes a free one")
    options = parser.parse_args(arguments)

    def show(spans: list[ReceivedSpan]) -> None:
        for span in spans:
            sys.stdout.buffer.write(msgspec.json.encode(span) + b"\n")
        sys.stdout.buffer.flush()

    ended = {signal.SIGTERM, signal.SIGINT}
    # Blocked before the receiver's thread starts, which inherits it: only the wait below takes these signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, ended)
    try:
        with OtlpReceiver(host=options.host, port=options.port, on_spans=show) as receiver:
            sys.stdout.buffer.write(msgspec.json.encode({"ready": True, "endpoint": receiver.endpoint}) + b"\n")
            sys.stdout.buffer.flush()
            signal.sigwait(ended)
    except OSError as problem:
        sys.stderr.write(f"otlp: {problem}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
