"""What the doors have in common that ask billing for their answers: who asks, for which time, and the question itself.

One rule: a time that is no time, and a key without the scope, are refused before anybody is asked.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeVar

from collegium_contracts.messages import Message
from collegium_runtime.platform import Platform
from starlette.requests import Request

from collegium_gateway.asking import ASK_SECONDS, ask_billing
from collegium_gateway.errors import ApiError
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal

R = TypeVar("R", bound=Message)


class AskingDoor:
    """A door whose answers are billing's."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        self._platform = platform
        self._directory = directory

    def _principal(self, request: Request, scope: str) -> Principal:
        principal = self._directory.keys.authenticate(request.headers.get("authorization"))
        principal.need(scope)
        return principal

    async def _ask(
        self, subject: str, question: Message, expected: type[R], *, timeout_seconds: float = ASK_SECONDS
    ) -> R:
        return await ask_billing(self._platform, subject, question, expected, timeout_seconds=timeout_seconds)

    def _time_of(self, request: Request, name: str, default: timedelta) -> int:
        """Reads a time of the query in Unix ms; without one, now and the default."""
        now = datetime.fromtimestamp(self._platform.now_ms() / 1000, UTC)
        return _time_of(request.query_params.get(name), now + default, name)


def _time_of(text: str | None, default: datetime, name: str) -> int:
    if not text:
        return int(default.timestamp() * 1000)
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ApiError("invalid_value", f"{name} must be a time in RFC 3339 or a date", param=name) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)
