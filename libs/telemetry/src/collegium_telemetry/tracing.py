"""Spans: one a hop, decided once a trace, and free where nobody records.

The root (a door) decides whether a trace is recorded, by the client's own flag or by chance; every later hop follows
the flag in its message's ``traceparent``. An unrecorded hop is a small object around that text. A recorded one is a
span of OpenTelemetry's SDK, which is loaded only where an endpoint is configured. Each service has a
:class:`Tracing` of its own and nothing is global, so several can share a process. One rule: no content in attributes;
``fail`` is given a type and a text that the caller wrote.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from collegium_telemetry import traceparent as w3c
from collegium_telemetry.hop import Attributes, Hop, Kind

if TYPE_CHECKING:
    from collegium_telemetry.recorder import Recorder

_UNSAMPLED = "-00"


class Tracing:
    """One service's tracing; without a recorder nothing is recorded and flags pass through as they came."""

    __slots__ = ("_ratio", "_recorder")

    def __init__(self, recorder: Recorder | None, sample_ratio: float) -> None:
        self._recorder = recorder
        self._ratio = sample_ratio

    def root(
        self, name: str, kind: Kind, *, incoming_traceparent: str | None = None, attributes: Attributes | None = None
    ) -> Hop:
        """Begins a journey's first hop and decides whether the trace is recorded.

        A valid incoming traceparent is continued and its flag obeyed; otherwise a new trace begins, recorded by chance.
        """
        if incoming_traceparent:
            parent = w3c.parse(incoming_traceparent)
            if parent is not None:
                if self._recorder is None or not parent[2]:
                    return Hop(incoming_traceparent[: w3c.LENGTH])
                return self._recorder.begin(name, kind, parent, attributes, ())
        if self._recorder is None or not w3c.sampled_by(self._ratio):
            return Hop(w3c.unsampled())
        return self._recorder.begin(name, kind, None, attributes, ())

    def hop(
        self,
        name: str,
        kind: Kind,
        traceparent: str | None,
        attributes: Attributes | None = None,
        links: Sequence[str] | None = None,
    ) -> Hop:
        """Begins a later hop below the span that ``traceparent`` names, recorded when its flag says so.

        Without a valid traceparent the hop is of a new trace that is not recorded. ``links`` are traceparents of other
        spans that the hop also works for.
        """
        if not traceparent:
            return Hop(w3c.unsampled())
        if self._recorder is None or (traceparent.endswith(_UNSAMPLED) and len(traceparent) == w3c.LENGTH):
            return Hop(traceparent)
        parent = w3c.parse(traceparent)
        if parent is None:
            return Hop(w3c.unsampled())
        if not parent[2]:
            return Hop(traceparent)
        return self._recorder.begin(name, kind, parent, attributes, links or ())

    def flush(self, timeout_seconds: float = 5.0) -> bool:
        """Sends what is recorded so far; blocks, and returns false where the time was not enough."""
        return self._recorder is None or self._recorder.flush(timeout_seconds)

    def shutdown(self, timeout_seconds: float = 3.0) -> None:
        """Sends what is left and ends; blocks for at most about ``timeout_seconds``. Later hops are dropped."""
        if self._recorder is not None:
            self._recorder.shutdown(timeout_seconds)

    async def aclose(self, timeout_seconds: float = 3.0) -> None:
        """Does what ``shutdown`` does in a thread, so that the event loop goes on."""
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.shutdown, timeout_seconds)


def setup(service: str, *, otlp_endpoint: str | None, sample_ratio: float) -> Tracing:
    """Makes a service's tracing; ``otlp_endpoint`` is OTLP's base URL (``http://host:4318``), None: no export."""
    if otlp_endpoint is None:
        return Tracing(None, sample_ratio)
    from collegium_telemetry.recorder import Recorder  # noqa: PLC0415 - the SDK costs 0.1 s and 15 MB

    return Tracing(Recorder(service, otlp_endpoint), sample_ratio)
