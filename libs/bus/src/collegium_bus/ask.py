"""Questions between services: core NATS request–reply with typed messages.

One rule: an answer is a typed reply or a typed refusal, always within the caller's deadline.
"""

from __future__ import annotations

from typing import TypeVar

from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.messages import Message
from collegium_contracts.requests import Refused

from collegium_bus.connection import Connection
from collegium_bus.errors import NoAnswerError, RequestRefusedError
from collegium_bus.wire import encode_headers

R = TypeVar("R", bound=Message)


async def ask(
    connection: Connection,
    subject: str,
    question: Message,
    expected: type[R],
    *,
    timeout_seconds: float = 5.0,
    traceparent: str = "",
) -> R:
    """Asks a service and returns its reply; raises RequestRefusedError with its refusal, or NoAnswerError in time.

    A question with a number that no message can carry is refused here.
    """
    try:
        content = codec.encode(question)
    except OverflowError:
        raise RequestRefusedError("invalid_value", "a number is out of bounds") from None
    headers = encode_headers({s.TRACEPARENT: traceparent}) if traceparent else None
    payload, _ = await connection.request_raw(subject, content, headers=headers, timeout_seconds=timeout_seconds)
    reply = codec.reply.decode(payload)
    if isinstance(reply, Refused):
        raise RequestRefusedError(reply.code, reply.message, reply.param)
    if not isinstance(reply, expected):
        raise NoAnswerError(f"{subject}: answered with {type(reply).__name__}, not {expected.__name__}")
    return reply
