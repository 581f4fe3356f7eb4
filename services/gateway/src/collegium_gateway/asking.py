"""Asking billing or context for a request. One rule: their refusals are the client's, and their silence is a 503."""

from __future__ import annotations

from typing import TypeVar

from collegium_bus.ask import ask
from collegium_bus.errors import BusError, RequestRefusedError
from collegium_contracts.messages import Message
from collegium_runtime.platform import Platform

from collegium_gateway.errors import ApiError

R = TypeVar("R", bound=Message)


ASK_SECONDS = 5.0


async def ask_billing(
    platform: Platform, subject: str, question: Message, expected: type[R], *, timeout_seconds: float = ASK_SECONDS
) -> R:
    """Returns billing's answer; raises ApiError with its refusal, or ``billing_unavailable``."""
    try:
        return await ask(platform.connection, subject, question, expected, timeout_seconds=timeout_seconds)
    except RequestRefusedError as error:
        raise ApiError(error.code, error.message, param=error.param) from error
    except BusError as error:
        raise ApiError(
            "billing_unavailable", "billing does not answer; try again later", retry_after_seconds=2
        ) from error


async def ask_context(
    platform: Platform, subject: str, question: Message, expected: type[R], *, timeout_seconds: float = ASK_SECONDS
) -> R:
    """Returns context's answer; raises ApiError with its refusal, or ``context_unavailable``."""
    try:
        return await ask(platform.connection, subject, question, expected, timeout_seconds=timeout_seconds)
    except RequestRefusedError as error:
        raise ApiError(error.code, error.message, param=error.param) from error
    except BusError as error:
        raise ApiError(
            "context_unavailable", "context does not answer; try again later", retry_after_seconds=2
        ) from error
