"""Names of evolution's spans, and which events get one.

One rule: an event that is not sampled costs the look at two characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from collegium_bus.events import EventOf
from collegium_contracts.journey import HOPS
from collegium_contracts.messages import JourneyMessage
from collegium_telemetry import names
from collegium_telemetry.tracing import Hop, Tracing

SPAN_FOLD: Final = "evolution fold"

_SAMPLED = "01"
# Every hop that ends here, by the name of its message.
_DESTINATIONS: dict[str, str] = {
    message: hop.subject
    for hop in HOPS
    if "evolution" in hop.receivers and hop.stream is not None
    for message in hop.messages
}


def begin_spans(tracing: Tracing, batch: Sequence[EventOf[JourneyMessage]]) -> list[Hop]:
    """Begins one span for each sampled event of a hop to evolution."""
    begun: list[Hop] = []
    for event in batch:
        traceparent = event.traceparent
        if traceparent[-2:] != _SAMPLED:
            continue
        destination = _DESTINATIONS.get(type(event.message).__name__)
        if destination is not None:
            begun.append(tracing.hop(SPAN_FOLD, "consumer", traceparent, {names.MESSAGING_DESTINATION: destination}))
    return begun
