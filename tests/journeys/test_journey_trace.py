"""One trace shows the whole journey: every hop between services is a parent and child in what is received."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

from collegium_contracts.journey import HOPS
from collegium_testing import eventually
from collegium_testing.otlp import ReceivedSpan
from collegium_testing.simulator import Behaviour, Rule

from tests.conftest import Stage

# Core hops and cancellations have no span of their own: their messages are heard by whoever waits already. Hop 14 is on
# the way of a scheduled task only; billing's journal, the audit trail and reused answers are beside the journey.
WITHOUT_SPAN = {7, 8, 9, 10, 11, 13, 14, 15, 16}


def edges(spans: list[ReceivedSpan]) -> set[tuple[str, str, str]]:
    """Sender, receiver and subject of every hop that the spans show."""
    by_id = {span.span_id: span for span in spans}
    found: set[tuple[str, str, str]] = set()
    for span in spans:
        parent = by_id.get(span.parent_span_id)
        subject = span.attributes.get("messaging.destination.name")
        if parent is not None and subject and parent.service != span.service:
            found.add((service(parent), service(span), subject))
    return found


def service(span: ReceivedSpan) -> str:
    return span.service.removeprefix("collegium-")


async def answered(stage: Stage, collegium: dict) -> dict:
    body = {"model": "sim", "messages": [{"role": "user", "content": "hi"}], "collegium": collegium}
    async with stage.session() as session, session.post("/v1/chat/completions", json=body) as response:
        assert response.status == 200
        return (await response.json())["collegium"]


async def trace_of(stage: Stage, collegium: dict) -> str:
    return (await answered(stage, collegium))["trace_id"]


async def judged(stage: Stage) -> str:
    """Gives feedback on an answer in a trace of its own, and returns that trace."""
    task, trace = (await answered(stage, {}))["task_id"], secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
    async with (
        stage.session() as session,
        session.post(f"/v1/tasks/{task}/feedback", json={"score": 1}, headers=headers) as response,
    ):
        assert response.status == 201
    return trace


async def test_every_hop_is_an_edge_of_the_trace(stage: Stage):
    stage.simulator.script(Rule(Behaviour(answer="yes")))
    single = await trace_of(stage, {"conversation": "traced"})
    stage.simulator.script(Rule(Behaviour(answer="no"), times=1), Rule(Behaviour(answer="yes")))
    panel = await trace_of(stage, {"plan": "panel"})
    stage.simulator.script(Rule(Behaviour(status=500), times=1), Rule(Behaviour(answer="yes")))
    retried = await trace_of(stage, {})
    told = await judged(stage)
    stage.simulator.script(Rule(Behaviour(answer="def f(x):\n    return x + 1")))
    tested = await trace_of(stage, {"tests": [{"call": "f(1)", "equals": 2}]})
    wanted = {
        (sender, receiver, hop.subject)
        for hop in HOPS
        if hop.number not in WITHOUT_SPAN and "discarded" not in hop.subject
        for sender in hop.senders
        for receiver in hop.receivers
        # The router ends only what waits in its queue, and hears of ends without a span: it gives back their permits.
        if not (hop.number in (4, 6) and "router" in (sender, receiver))
        # The gateway sends only work that an operator requeues.
        if not (hop.number == 2 and sender == "gateway")
        # Consensus hears without a span what it tested itself: its verdict follows the answer.
        if not (sender == receiver == "consensus")
        # What a person says, and what asking again showed, are told by journeys of their own.
        if not (sender == "consensus" and hop.number == 12)
        # The router submits only what was scheduled.
        if not (sender == "router" and hop.number == 1)
    }

    def seen() -> set[tuple[str, str, str]]:
        return {edge for trace in (single, panel, retried, told, tested) for edge in edges(stage.receiver.trace(trace))}

    async def complete() -> set[tuple[str, str, str]] | None:
        found = seen()
        return found if wanted <= found else None

    try:
        await eventually(complete)
    except AssertionError:
        assert wanted - seen() == set(), stage.receiver.ladder(retried)


async def test_the_trace_of_a_scheduled_task_goes_on_when_it_is_released(stage: Stage):
    not_before = datetime.now(UTC) + timedelta(seconds=1)
    body = {"input": "hi", "not_before": not_before.isoformat()}
    async with stage.session() as session, session.post("/v1/tasks", json=body) as response:
        assert response.status == 202
        trace = response.headers["traceparent"].split("-")[1]

    async def chain() -> list[str] | None:
        spans = {one.span_id: one for one in stage.receiver.trace(trace)}
        found = [span for span in spans.values() if span.name == "chat sim"]
        while found and (parent := spans.get(found[-1].parent_span_id)) is not None:
            found.append(parent)
        return [span.name for span in found] if found and not found[-1].parent_span_id else None

    names = await eventually(chain)
    assert names == ["chat sim", "worker-pool run attempt", "router dispatch", "router release task", "POST /v1/tasks"]


async def test_the_model_call_has_the_genai_attributes(stage: Stage):
    trace = await trace_of(stage, {})

    async def chain() -> list[ReceivedSpan] | None:
        """The model call and its ancestors, once the root has come."""
        spans = {one.span_id: one for one in stage.receiver.trace(trace)}
        found = [span for span in spans.values() if span.name == "chat sim"]
        while found and (parent := spans.get(found[-1].parent_span_id)) is not None:
            found.append(parent)
        return found if found and not found[-1].parent_span_id else None

    spans = await eventually(chain)
    call = spans[0]
    assert call.attributes["gen_ai.operation.name"] == "chat"
    assert call.attributes["gen_ai.request.model"] == "sim"
    assert call.attributes["gen_ai.usage.input_tokens"] > 0
    assert call.attributes["collegium.tenant"] == "acme"
    assert call.kind == "client"
    assert [service(span) for span in spans] == ["worker-pool", "worker-pool", "router", "gateway"]


PROCESSED = {
    "messaging.system": "nats",
    "messaging.operation.type": "process",
    "messaging.operation.name": "process",
}


async def test_every_hop_says_how_its_message_came_and_whose_it_is(stage: Stage):
    stage.simulator.script(Rule(Behaviour(answer="yes")))
    told = await answered(stage, {"conversation": "told", "priority": "high"})

    async def whole() -> list[ReceivedSpan] | None:
        spans = stage.receiver.trace(told["trace_id"])
        received = {service(span) for span in spans if span.kind == "consumer"}
        wanted = {"router", "worker-pool", "billing", "context", "evolution", "gateway"}
        return spans if wanted <= received and any(not span.parent_span_id for span in spans) else None

    spans = await eventually(whole)
    (root,) = (span for span in spans if not span.parent_span_id)
    assert root.attributes["messaging.operation.type"] == "send"
    assert root.attributes["messaging.operation.name"] == "publish"
    for span in (span for span in spans if "messaging.destination.name" in span.attributes and span is not root):
        assert PROCESSED.items() <= span.attributes.items(), span
    whose = {"collegium.tenant": "acme", "collegium.task": told["task_id"], "collegium.priority": "high"}
    for span in (span for span in spans if span.kind == "consumer"):
        assert whose.items() <= span.attributes.items(), span
        assert span.attributes["collegium.plan"] == "single", span
        assert span.attributes["collegium.rank"], span
        # One message: the conventions' count is of spans over several.
        assert "messaging.batch.message_count" not in span.attributes, span
    for span in (span for span in spans if span.name.startswith(("billing", "evolution", "context fold"))):
        assert span.attributes["messaging.consumer.group.name"], span
        assert span.attributes["messaging.message.id"].startswith(told["task_id"]), span


async def test_a_step_of_several_messages_counts_them_and_is_linked_with_each(stage: Stage):
    stage.simulator.script(Rule(Behaviour(answer="yes")))
    told = await answered(stage, {"plan": "panel"})

    async def decision() -> tuple[ReceivedSpan, dict[str, ReceivedSpan]] | None:
        spans = {span.span_id: span for span in stage.receiver.trace(told["trace_id"])}
        found = next((span for span in spans.values() if span.name == "consensus decide"), None)
        wanted = {found.parent_span_id, *(link for _, link in found.links)} if found is not None else set()
        return (found, spans) if found is not None and wanted <= spans.keys() else None

    span, spans = await eventually(decision)
    ends = [spans[one] for one in (span.parent_span_id, *(link for _, link in span.links))]
    assert len({one.span_id for one in ends}) == len(ends) >= 2
    assert {one.name for one in ends} == {"worker-pool run attempt"}
    assert span.attributes["messaging.batch.message_count"] == len(ends)
    assert PROCESSED.items() <= span.attributes.items()
    assert span.attributes["collegium.plan"] == "panel"
    assert span.attributes["collegium.priority"] == "normal"
