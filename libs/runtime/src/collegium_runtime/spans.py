"""What spans of hops say, and the spans of folded events.

A hop's span follows OTel's messaging conventions (``received``, ``sent``) and says whose message it is (``about``).
Events are folded in batches, and each sampled one has a span of its own, child of the span that sent it: the
conventions' way for messages that are processed one by one, which keeps every journey one trace. What one step makes of
several messages has a span below the last of them, with links to the others and their count. One rule: an event that is
not sampled costs the look at two characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from collegium_bus.delivery import Delivery
from collegium_bus.events import EventOf
from collegium_contracts import subjects as s
from collegium_contracts.journey import HOPS, Service
from collegium_telemetry import names
from collegium_telemetry.hop import Attribute, Hop
from collegium_telemetry.tracing import Tracing

M = TypeVar("M")
Said = dict[str, Attribute | None]

# The conventions name no system that is ours; others call it so too.
SYSTEM: Final = "nats"

_SAMPLED = "01"
# By receiving service and message: the subject template of the hop. What a consumer gets again it reads as at first.
_DESTINATIONS: dict[tuple[str, str], str] = {
    (receiver, message): hop.subject
    for hop in HOPS
    if hop.stream is not None and hop.filter != s.AGAIN_ALL
    for receiver in hop.receivers
    for message in hop.messages
}


def received(destination: str, delivery: Delivery | None = None) -> Said:
    """Returns what the span of a handled message says of its hop: the subject's template, and how it was delivered."""
    said: Said = {
        names.MESSAGING_SYSTEM: SYSTEM,
        names.MESSAGING_OPERATION_TYPE: "process",
        names.MESSAGING_OPERATION_NAME: "process",
        names.MESSAGING_DESTINATION: destination,
    }
    if delivery is not None:
        said[names.MESSAGING_CONSUMER] = delivery.consumer
        said[names.MESSAGING_MESSAGE_ID] = delivery.header(s.MESSAGE_ID) or None
    return said


def sent(destination: str) -> Said:
    """Returns what the span of whoever sends a message says of its hop."""
    return {
        names.MESSAGING_SYSTEM: SYSTEM,
        names.MESSAGING_OPERATION_TYPE: "send",
        names.MESSAGING_OPERATION_NAME: "publish",
        names.MESSAGING_DESTINATION: destination,
    }


def about(message: Any) -> Said:
    """Returns whose a message is, as far as it tells: tenant, task, plan, rank and priority."""
    told = getattr(message, "run", message)
    task = getattr(told, "task", None)
    if task is None:
        return {names.TENANT: getattr(told, "tenant", None), names.TASK: getattr(told, "task_id", None)}
    answering = getattr(told, "attempt", told)
    return {
        names.TENANT: task.tenant,
        names.TASK: task.id,
        names.PLAN: getattr(answering, "plan", "") or task.plan or None,
        names.RANK: getattr(answering, "rank", "") or None,
        names.PRIORITY: task.priority,
    }


def begin_spans(tracing: Tracing, service: Service, name: str, batch: Sequence[EventOf[M]]) -> list[Hop]:
    """Begins the spans of a batch; whoever began them ends them when the batch is handled."""
    begun: list[Hop] = []
    for event in batch:
        traceparent = event.traceparent
        if traceparent[-2:] != _SAMPLED:
            continue
        destination = _DESTINATIONS.get((service, type(event.message).__name__))
        if destination is not None:
            said = received(destination, event.delivery) | about(event.message)
            begun.append(tracing.hop(name, "consumer", traceparent, said))
    return begun
