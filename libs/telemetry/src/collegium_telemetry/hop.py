"""One hop of a journey as whoever makes it sees it; this one records nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal, Self

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attribute = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Attribute | None]


def trace_of(traceparent: str) -> str:
    """Returns the id of the trace that a context is of, 32 hexadecimal digits; empty for an empty one."""
    return traceparent[3:35]


class Hop:
    """One hop of a journey; this base records nothing. Ends with ``end()`` or as a context manager."""

    __slots__ = ("traceparent",)

    #: Whether this hop is recorded here.
    sampled = False

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    @property
    def trace_id(self) -> str:
        """The trace's id, 32 hexadecimal digits."""
        return trace_of(self.traceparent)

    def set(self, key: str, value: Attribute | None) -> None:
        """Sets an attribute; None sets nothing."""

    def describe(self, attributes: Attributes) -> None:
        """Sets several attributes; whoever has to gather them asks first whether the hop is ``sampled``."""

    def fail(self, error_type: str, message: str | None = None) -> None:
        """Marks the hop as failed with a low-cardinality type (``error.type``); the message holds no content."""

    def end(self) -> None:
        """Ends the hop; a second time does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            # An exception's own text may quote content.
            self.fail(kind.__name__)
        self.end()
