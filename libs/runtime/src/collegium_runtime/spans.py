"""Spans of folded events: one for each sampled event of a hop that ends in a service, child of the span that sent it.

One rule: an event that is not sampled costs the look at two characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from collegium_bus.events import EventOf
from collegium_contracts import subjects as s
from collegium_contracts.journey import HOPS, Service
from collegium_telemetry import names
from collegium_telemetry.hop import Hop
from collegium_telemetry.tracing import Tracing

M = TypeVar("M")

_SAMPLED = "01"
# By receiving service and message: the subject template of the hop. What a consumer gets again it reads as at first.
_DESTINATIONS: dict[tuple[str, str], str] = {
    (receiver, message): hop.subject
    for hop in HOPS
    if hop.stream is not None and hop.filter != s.AGAIN_ALL
    for receiver in hop.receivers
    for message in hop.messages
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
            begun.append(tracing.hop(name, "consumer", traceparent, {names.MESSAGING_DESTINATION: destination}))
    return begun
