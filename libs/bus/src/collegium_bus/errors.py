"""Errors of the bus.

BusError
├── BrokerUnavailableError    retryable: nothing was stored, or it cannot be told within the publish budget
├── RefusedError              terminal: the broker answered and refused, or the client did before it
│   ├── AlreadyStandsError    a create-once subject already holds a message
│   ├── QueueFullError        the stream or the subject's share of it is full
│   ├── TooLargeError         the message is over the size limit
│   ├── InvalidSubjectError   what was to be sent to is no subject, so nothing was sent
│   └── NotPermittedError     this service may not publish to the subject
├── NoAnswerError             retryable: nobody answered a request in time
├── RequestRefusedError       the asked service answered with a refusal (its code is in the error catalogue)
└── TopologyError             streams or consumers are missing or differ from their declaration

GoneError is none of them: what an event tells of stands no more, and asking again changes nothing.
"""

from __future__ import annotations


class BusError(Exception):
    """Base of the errors of the bus; ``code`` is a key of the error catalogue."""

    code = "broker_unavailable"


class BrokerUnavailableError(BusError):
    """The broker did not acknowledge within the publish budget."""


class RefusedError(BusError):
    """The broker refused a publish; ``number`` is its error number."""

    def __init__(self, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.number = number


class AlreadyStandsError(RefusedError):
    """A create-once subject already holds a message: somebody else was first."""

    code = "already_exists"


class QueueFullError(RefusedError):
    """The stream, or the subject's share of it, is full."""

    code = "tenant_queue_full"


class TooLargeError(RefusedError):
    """The message is larger than may be stored."""

    code = "body_too_large"


class InvalidSubjectError(RefusedError, ValueError):
    """A subject, reply subject or filter that may not be written to the wire: nothing was sent."""

    code = "internal_error"


class NotPermittedError(RefusedError):
    """The broker's rights do not let this service publish to a subject."""

    code = "internal_error"


class NoAnswerError(BusError):
    """Nobody answered a request within its time."""


class RequestRefusedError(BusError):
    """The asked service refused; ``code``, ``message`` and ``param`` are what it said."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code  # pyright: ignore[reportIncompatibleVariableOverride] - per instance here
        self.message = message
        self.param = param


class GoneError(Exception):
    """An event was handed over that stands no more: it aged out, or its tenant was erased."""

    code = "event_gone"


class TopologyError(BusError):
    """Streams or consumers are missing, or differ from their declaration; run ``collegium migrate``."""
