"""Names of context's spans, and which events get one.

One rule: an event that is not sampled costs the look at two characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from collegium_bus.events import EventOf
from collegium_contracts import subjects as s
from collegium_contracts.journey import HOPS
from collegium_contracts.messages import SettledMessage
from collegium_telemetry import names
from collegium_telemetry.tracing import Hop, Tracing

SPAN_FOLD: Final = "context fold turn"
SPAN_TURNS: Final = "context turns"
# The hop by which settled tasks come here, as the journey names it.
DESTINATION: Final = next(hop.subject for hop in HOPS if hop.filter == s.TASK_SETTLED_ALL)

_SAMPLED = "01"


def begin_spans(tracing: Tracing, batch: Sequence[EventOf[SettledMessage]]) -> list[Hop]:
    """Begins one span for each sampled event."""
    return [
        tracing.hop(SPAN_FOLD, "consumer", event.traceparent, {names.MESSAGING_DESTINATION: DESTINATION})
        for event in batch
        if event.traceparent[-2:] == _SAMPLED
    ]
