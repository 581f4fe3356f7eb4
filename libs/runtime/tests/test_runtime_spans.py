"""Spans of folded events: one for each sampled event whose hop ends in the service, below the span that sent it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from collegium_bus.delivery import Delivery
from collegium_bus.events import EventOf
from collegium_bus.wire import encode_headers
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.journey import HOPS
from collegium_contracts.messages import (
    AttemptRef,
    AttemptRequested,
    AttemptStarted,
    CancelRequested,
    RunAttempt,
    Sampling,
    TaskAccepted,
    TaskCompleted,
    TaskRef,
)
from collegium_contracts.money import Price, Usage
from collegium_runtime.spans import about, begin_spans, sent
from collegium_telemetry import names

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
TASK = TaskRef(id="t", tenant="acme", created_at_ms=1, deadline_ms=2, model="sim")
ACCEPTED = TaskAccepted(task=TASK, at_ms=1)
CANCEL = CancelRequested(task_id="t", tenant="acme", at_ms=1)


def event(message, traceparent: str) -> EventOf:
    block = encode_headers({s.TRACEPARENT: traceparent, s.MESSAGE_ID: "t.accepted"})
    delivery = Delivery(SimpleNamespace(), b"x.y", b"$JS.ACK.EVENTS.d.1.1.1.1.0", b"", block)  # type: ignore[arg-type]
    return EventOf(message, b"", delivery)


class Tracing:
    """Remembers which hops were begun."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str, str]] = []
        self.said: dict[str, object] = {}

    def hop(self, name, kind, traceparent, attributes):
        self.said = attributes
        self.begun.append((name, traceparent, attributes[names.MESSAGING_DESTINATION]))
        return SimpleNamespace(kind=kind)


@pytest.mark.parametrize(
    ("message", "traceparent", "begun"),
    [
        (ACCEPTED, SAMPLED, [("fold", SAMPLED, "task.changed.<tenant>.<task>")]),
        (ACCEPTED, UNSAMPLED, []),
        (ACCEPTED, "", []),
        (CANCEL, SAMPLED, []),  # hears of it, but its hop does not end in the gateway
    ],
)
def test_a_sampled_event_of_an_own_hop_has_a_span(message, traceparent, begun):
    tracing = Tracing()
    spans = begin_spans(tracing, "gateway", "fold", [event(message, traceparent)])  # type: ignore[arg-type]
    assert tracing.begun == begun
    assert [span.kind for span in spans] == ["consumer"] * len(begun)


def test_a_span_says_how_its_message_came_and_whose_it_is():
    tracing = Tracing()
    begin_spans(tracing, "gateway", "fold", [event(ACCEPTED, SAMPLED)])  # type: ignore[arg-type]
    assert tracing.said == {
        "messaging.system": "nats",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "task.changed.<tenant>.<task>",
        "messaging.consumer.group.name": "d",
        "messaging.message.id": "t.accepted",
        "collegium.tenant": "acme",
        "collegium.task": "t",
        "collegium.plan": "auto",
        "collegium.rank": None,
        "collegium.priority": "normal",
    }


def test_whoever_sends_says_so():
    assert sent("task.submitted.<priority>.<shard>.<tenant>") == {
        "messaging.system": "nats",
        "messaging.operation.type": "send",
        "messaging.operation.name": "publish",
        "messaging.destination.name": "task.submitted.<priority>.<shard>.<tenant>",
    }


ATTEMPT = AttemptRef(
    number=1, of=2, model="sim", rank="ta", pool="general", plan="panel", price=Price(), charge=Price()
)
RUN = RunAttempt(task=TASK, attempt=ATTEMPT, prompt=Envelope("identity", b"", b""), sampling=Sampling(), prompt_bytes=0)
COMPLETED = TaskCompleted(
    task=TASK,
    plan="cascade",
    rank="teacher",
    stop_reason="completed",
    usage=Usage(),
    attempts=[],
    settled_at_ms=1,
    output=Envelope("identity", b"", b""),
)


@pytest.mark.parametrize(
    ("message", "plan", "rank"),
    [
        (AttemptStarted(task=TASK, attempt=ATTEMPT, delivery=1, worker="w", at_ms=1), "panel", "ta"),
        (AttemptRequested(run=RUN), "panel", "ta"),
        (COMPLETED, "cascade", "teacher"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_plan_and_a_rank_are_those_that_a_message_tells(message, plan, rank):
    assert about(message) == {
        "collegium.tenant": "acme",
        "collegium.task": "t",
        "collegium.plan": plan,
        "collegium.rank": rank,
        "collegium.priority": "normal",
    }


def test_a_message_that_only_names_its_task_says_no_more():
    assert about(CANCEL) == {"collegium.tenant": "acme", "collegium.task": "t"}


def _first_hops():
    return [hop for hop in HOPS if hop.stream and hop.filter != s.AGAIN_ALL]


def test_the_expected_hops_are_in_the_table():
    receivers = {message: hop.receivers for hop in _first_hops() for message in hop.messages}
    assert "gateway" in receivers["TaskAccepted"]
    assert "gateway" not in receivers["CancelRequested"]
