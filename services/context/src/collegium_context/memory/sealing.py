"""Opening what was asked and sealing what is answered, for one tenant at a time.

One rule: what cannot be read is a refusal that says so, never an empty answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import structlog
from collegium_bus.errors import RequestRefusedError
from collegium_contracts.envelope import Envelope, Keyring, UnknownKeyError, held
from collegium_contracts.ids import TENANT_ID
from collegium_contracts.memory_requests import MemoryContent, MemoryShown
from collegium_contracts.messages import Message
from collegium_store import is_transient

from collegium_context.errors import ContextError
from collegium_context.memory.memory_store import Memory

log = structlog.get_logger(__name__)

PURPOSE = "memory"

Q = TypeVar("Q", bound=Message)
_encode = msgspec.json.Encoder().encode
_decode_content = msgspec.json.Decoder(MemoryContent).decode


class Sealing:
    """A keyring, as memory uses it."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def shown(self, tenant: str, body: Any, outcome: Any = "") -> MemoryShown:
        """Seals an answer."""
        return MemoryShown(content=self._keyring.seal(tenant, _encode(body)), outcome=outcome)

    def seal(self, tenant: str, plain: bytes, purpose: str = "") -> Envelope:
        """Seals bytes."""
        return self._keyring.seal(tenant, plain, purpose)

    async def open(self, tenant: str, sealed: Envelope, purpose: str = "") -> bytes:
        """Opens what was asked, or what is kept; raises RequestRefusedError."""
        await held(self._keyring, tenant, sealed)
        try:
            return self._keyring.open(tenant, sealed, purpose)
        except UnknownKeyError as error:
            raise RequestRefusedError("internal_error", f"content of tenant {tenant} cannot be read") from error

    async def content(self, tenant: str, memory: Memory) -> MemoryContent | None:
        """Opens a memory; none where it was forgotten."""
        if memory.body is None:
            return None
        return _decode_content(await self.open(tenant, memory.body, PURPOSE))

    def seal_content(self, tenant: str, content: MemoryContent) -> Envelope:
        """Seals a memory as it is kept."""
        return self._keyring.seal(tenant, _encode(content), PURPOSE)


def checked(question: Message, kind: type[Q]) -> Q:
    """Returns a question of the kind that is answered here; refuses others, and tenants that are none."""
    if not isinstance(question, kind):
        raise RequestRefusedError("invalid_value", f"{type(question).__name__} is not asked here")
    if not TENANT_ID.match(getattr(question, "tenant", "")):
        raise RequestRefusedError("invalid_value", "not the id of a tenant", "tenant")
    return question


Answer = Callable[[Message, str], Awaitable[Message]]


def refusing(answer: Answer) -> Answer:
    """Wraps an answer so that what it refuses, and a database that is away, are refusals with a code."""

    async def guarded(question: Message, traceparent: str) -> Message:
        try:
            return await answer(question, traceparent)
        except ContextError as error:
            raise RequestRefusedError(error.code, str(error)) from error
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("memory cannot be read", question=type(question).__name__, error=type(error).__name__)
            raise RequestRefusedError("context_unavailable", "the memory's database is away; ask again") from error

    return guarded
