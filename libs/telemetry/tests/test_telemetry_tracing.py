"""Hops: who records, what is passed on, and what a receiver gets."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from collegium_telemetry import traceparent as w3c
from collegium_telemetry.tracing import Tracing, setup
from collegium_testing.otlp import OtlpReceiver
from hypothesis import given
from hypothesis import strategies as st

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01"
UNSAMPLED = f"00-{TRACE}-{SPAN}-00"
INVALID = [
    "",
    "x",
    SAMPLED.upper(),
    SAMPLED + "0",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"ff-{TRACE}-{SPAN}-01",
    "-00".rjust(55, "0"),
]


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as one:
        yield one


@pytest.fixture
def silent() -> Tracing:
    return setup("router", otlp_endpoint=None, sample_ratio=1.0)


@pytest.mark.parametrize("incoming", INVALID[:-1])
def test_a_door_begins_a_new_trace_where_none_came(silent: Tracing, incoming: str) -> None:
    hop = silent.root("gateway chat", "server", incoming_traceparent=incoming)
    assert hop.traceparent.endswith("-00")
    assert w3c.parse(hop.traceparent) is not None
    assert hop.trace_id == hop.traceparent.split("-")[1] != TRACE


@pytest.mark.parametrize("incoming", [SAMPLED, UNSAMPLED])
def test_without_an_endpoint_flags_pass_as_they_came(silent: Tracing, incoming: str) -> None:
    for hop in (silent.root("a", "server", incoming_traceparent=incoming), silent.hop("b", "consumer", incoming)):
        assert (hop.traceparent, hop.trace_id, hop.sampled) == (incoming, TRACE, False)
        with hop:
            hop.set("collegium.task", "tsk_1")
            hop.describe({"collegium.rank": "ta"})
            hop.fail("timeout", "too slow")
        hop.end()
    assert silent.flush()
    silent.shutdown()


def test_two_new_traces_differ(silent: Tracing) -> None:
    assert len({silent.root("a", "server").trace_id for _ in range(1000)}) == 1000


@pytest.mark.parametrize("incoming", INVALID[:-1])
def test_a_hop_below_nothing_is_of_a_new_trace(receiver: OtlpReceiver, incoming: str) -> None:
    tracing = setup("router", otlp_endpoint=receiver.endpoint, sample_ratio=1.0)
    hop = tracing.hop("b", "consumer", incoming)
    assert (hop.sampled, hop.traceparent[-2:]) == (False, "00")
    assert w3c.parse(hop.traceparent) is not None
    tracing.shutdown()


def test_one_trace_is_a_chain_through_services(receiver: OtlpReceiver) -> None:
    gateway = setup("gateway", otlp_endpoint=receiver.endpoint + "/", sample_ratio=1.0)
    router = setup("router", otlp_endpoint=receiver.endpoint, sample_ratio=0.0)
    door = gateway.root("gateway chat", "server", attributes={"collegium.tenant": "acme", "collegium.plan": None})
    assert door.sampled
    with router.hop("router dispatch", "consumer", door.traceparent, {"n": 1}, [SAMPLED, "broken"]) as hop:
        hop.set("collegium.task", "tsk_1")
        hop.set("absent", None)
        hop.describe({"collegium.rank": "ta", "collegium.plan": None})
        assert hop.trace_id == door.trace_id
    door.fail("deadline_exceeded", "the deadline passed")
    door.end()
    door.end()
    door.set("late", 1)
    assert gateway.flush()
    assert router.flush()
    first, second = receiver.trace(door.trace_id)
    assert (first.service, first.kind, first.parent_span_id) == ("collegium-gateway", "server", "")
    assert first.attributes == {"collegium.tenant": "acme", "error.type": "deadline_exceeded"}
    assert (first.status, first.status_message) == ("error", "the deadline passed")
    assert (second.service, second.kind, second.parent_span_id) == ("collegium-router", "consumer", first.span_id)
    assert second.attributes == {"n": 1, "collegium.task": "tsk_1", "collegium.rank": "ta"}
    assert second.links == ((TRACE, SPAN),)
    assert first.resource["service.instance.id"] != second.resource["service.instance.id"]
    gateway.shutdown()
    router.shutdown()


def test_a_clients_flag_is_obeyed(receiver: OtlpReceiver) -> None:
    never = setup("gateway", otlp_endpoint=receiver.endpoint, sample_ratio=0.0)
    always = setup("gateway", otlp_endpoint=receiver.endpoint, sample_ratio=1.0)
    assert not never.root("a", "server").sampled
    with never.root("a", "server", incoming_traceparent=SAMPLED) as hop:
        assert hop.sampled
        assert hop.trace_id == TRACE
    assert always.root("a", "server", incoming_traceparent=UNSAMPLED).traceparent == UNSAMPLED
    never.shutdown()
    always.shutdown()
    (span,) = receiver.spans
    assert span.parent_span_id == SPAN


def test_an_exception_marks_its_hop_without_its_words(receiver: OtlpReceiver) -> None:
    tracing = setup("worker-pool", otlp_endpoint=receiver.endpoint, sample_ratio=1.0)
    with pytest.raises(ValueError, match="prompt"), tracing.root("a", "internal"):
        raise ValueError("the prompt was: hello")
    tracing.shutdown()
    (span,) = receiver.spans
    assert (span.status, span.attributes["error.type"]) == ("error", "ValueError")
    assert "prompt" not in str(span)


async def test_closing_sends_what_is_left_off_the_loop(receiver: OtlpReceiver) -> None:
    tracing = setup("billing", otlp_endpoint=receiver.endpoint, sample_ratio=1.0)
    for _ in range(700):
        tracing.root("a", "internal").end()
    closing = asyncio.create_task(tracing.aclose())
    turns = 0
    while not closing.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 1
    assert len(receiver.spans) == 700
    tracing.shutdown()
    # A drain may outlive its tracing: what ends later is dropped without a word.
    tracing.root("late", "internal").end()


def test_a_dead_endpoint_does_not_hold_the_shutdown() -> None:
    with OtlpReceiver() as gone:
        endpoint = gone.endpoint
    tracing = setup("billing", otlp_endpoint=endpoint, sample_ratio=1.0)
    tracing.root("a", "internal").end()
    tracing.shutdown(timeout_seconds=0.05)


@given(st.floats(0, 1))
def test_the_ratio_is_a_probability(ratio: float) -> None:
    share = sum(w3c.sampled_by(ratio) for _ in range(2000)) / 2000
    assert abs(share - ratio) < 0.1


def test_chance_at_its_ends() -> None:
    assert not any(w3c.sampled_by(0.0) for _ in range(1000))
    assert all(w3c.sampled_by(1.0) for _ in range(1000))


@given(st.text(max_size=60) | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", fullmatch=True))
def test_no_text_breaks_the_parser(text: str) -> None:
    parsed = w3c.parse(text)
    assert parsed is None or (int(parsed[0], 16) > 0 and int(parsed[1], 16) > 0)


def test_a_newer_version_is_read_as_ours() -> None:
    assert w3c.parse(f"01-{TRACE}-{SPAN}-03-more") == (TRACE, SPAN, True)


def test_the_sdk_is_not_loaded_without_an_endpoint() -> None:
    code = """
import sys
from collegium_telemetry.tracing import setup
setup("router", otlp_endpoint=None, sample_ratio=1.0).root("a", "server").end()
assert not any(name.startswith("opentelemetry") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
