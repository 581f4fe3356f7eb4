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
