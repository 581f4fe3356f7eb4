"""Asking another service for a request. One rule: its refusals are the client's, and its silence is a 503."""

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
    return await _asked(platform, "billing", subject, question, expected, timeout_seconds)


async def ask_context(
    platform: Platform, subject: str, question: Message, expected: type[R], *, timeout_seconds: float = ASK_SECONDS
) -> R:
    """Returns context's answer; raises ApiError with its refusal, or ``context_unavailable``."""
    return await _asked(platform, "context", subject, question, expected, timeout_seconds)


async def ask_evolution(
    platform: Platform, subject: str, question: Message, expected: type[R], *, timeout_seconds: float = ASK_SECONDS
) -> R:
    """Returns evolution's answer; raises ApiError with its refusal, or ``evolution_unavailable``."""
    return await _asked(platform, "evolution", subject, question, expected, timeout_seconds)


async def ask_router(
    platform: Platform, subject: str, question: Message, expected: type[R], *, timeout_seconds: float = ASK_SECONDS
) -> R:
    """Returns the router's answer; raises ApiError with its refusal, or ``router_unavailable``."""
    return await _asked(platform, "router", subject, question, expected, timeout_seconds)


async def _asked(
    platform: Platform, service: str, subject: str, question: Message, expected: type[R], timeout_seconds: float
) -> R:
    try:
        return await ask(platform.connection, subject, question, expected, timeout_seconds=timeout_seconds)
    except RequestRefusedError as error:
        raise ApiError(error.code, error.message, param=error.param) from error
    except BusError as error:
        message = f"{service} does not answer; try again later"
        raise ApiError(f"{service}_unavailable", message, retry_after_seconds=2) from error
