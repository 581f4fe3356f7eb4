import gzip
import json
import signal
import subprocess
import sys
import urllib.request
from urllib.error import HTTPError

import pytest
from collegium_testing.otlp import OtlpReceiver
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode


def export_a_trace(endpoint: str, compression: Compression = Compression.NoCompression) -> str:
    provider = TracerProvider(resource=Resource.create({"service.name": "collegium-gateway"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, compression=compression)))
    tracer = provider.get_tracer("test")
    attributes = {"text": "a", "count": 3, "ratio": 0.5, "yes": True, "many": ["x", "y"]}
    with tracer.start_as_current_span("door", kind=SpanKind.SERVER, attributes=attributes) as door:
        link = Link(door.get_span_context())
        with tracer.start_as_current_span("publish", kind=SpanKind.PRODUCER, links=[link]) as publish:
            publish.add_event("acknowledged")
            publish.set_status(Status(StatusCode.ERROR, "refused"))
        with tracer.start_as_current_span("wait"):
            pass
    assert provider.force_flush()
    provider.shutdown()
    return f"{door.get_span_context().trace_id:032x}"


@pytest.mark.parametrize("compression", list(Compression))
async def test_decodes_what_the_sdk_exports(compression: Compression) -> None:
    # The flush blocks this event loop; the receiver answers from its own thread.
    async with OtlpReceiver() as receiver:
        trace_id = export_a_trace(receiver.traces_endpoint, compression)
        door, publish, wait = receiver.trace(trace_id)
    assert (door.name, door.kind, door.service, door.parent_span_id) == ("door", "server", "collegium-gateway", "")
    assert door.attributes == {"text": "a", "count": 3, "ratio": 0.5, "yes": True, "many": ["x", "y"]}
    assert door.status == "unset"
    assert door.end_ns > door.start_ns
    assert door.resource["service.name"] == "collegium-gateway"
    assert (publish.kind, publish.parent_span_id, publish.status) == ("producer", door.span_id, "error")
    assert publish.links == ((door.trace_id, door.span_id),)
    assert publish.events == ("acknowledged",)
    assert (wait.kind, wait.parent_span_id) == ("internal", door.span_id)


def test_draws_the_ladder_and_marks_orphans() -> None:
    with OtlpReceiver() as receiver:
        trace_id = export_a_trace(receiver.traces_endpoint)
        lines = receiver.ladder(trace_id).splitlines()
        assert [line.split(" [")[0] for line in lines] == [
            "collegium-gateway: door",
            "  collegium-gateway: publish",
            "  collegium-gateway: wait",
        ]
        assert lines[1].endswith("ERROR refused")
        assert receiver.ladder("00") == "(no spans)"
        receiver.clear()
        assert receiver.spans == ()


def test_refuses_what_it_cannot_read_and_drops_metrics_and_logs() -> None:
    def post(path: str, body: bytes, **headers: str) -> int:
        named = {"content-type": "application/x-protobuf"} | {k.replace("_", "-"): v for k, v in headers.items()}
        request = urllib.request.Request(f"{receiver.endpoint}{path}", body, named, method="POST")
        try:
            with urllib.request.urlopen(request) as reply:
                return reply.status
        except HTTPError as error:
            with error:
                return error.code

    with OtlpReceiver() as receiver:
        assert post("/v1/metrics", b"anything") == 200
        assert post("/v1/logs", b"anything") == 200
        assert post("/v1/traces", b"") == 200
        assert post("/v1/traces", b"\xff\xff") == 400
        assert post("/v1/traces", b"not gzip", content_encoding="gzip") == 400
        assert post("/v1/traces", gzip.compress(b"x" * 100)[:20], content_encoding="gzip") == 400
        assert post("/v1/traces", b"", content_encoding="br") == 400
        assert post("/v1/traces", b"{}", content_type="application/json") == 415
        assert post("/v1/other", b"") == 404
        assert receiver.spans == ()


def test_a_taken_port_is_reported() -> None:
    with OtlpReceiver() as first, pytest.raises(OSError, match="address already in use"):
        OtlpReceiver(port=int(first.endpoint.rsplit(":", 1)[1])).__enter__()


def test_the_command_prints_spans_and_ends_on_sigterm() -> None:
    command = [sys.executable, "-m", "collegium_testing.otlp", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        endpoint = json.loads(process.stdout.readline())["endpoint"]
        trace_id = export_a_trace(f"{endpoint}/v1/traces")
        spans = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert {span["trace_id"] for span in spans} == {trace_id}
    assert {span["name"] for span in spans} == {"door", "publish", "wait"}
