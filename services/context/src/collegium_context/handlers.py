"""Questions in, answers out: the earlier turns of a conversation.

One rule: an answer holds everything that the tenant has seen settled, or it is a refusal that may be asked again.
"""

from __future__ import annotations

import msgspec
import structlog
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Keyring, UnknownKeyError, held
from collegium_contracts.ids import CONVERSATION_ID, TENANT_ID
from collegium_contracts.messages import Message
from collegium_contracts.requests import TurnsReply, TurnsRequest
from collegium_contracts.scope import Scope
from collegium_runtime.spans import received
from collegium_store import is_transient
from collegium_telemetry import names
from collegium_telemetry.tracing import Tracing

from collegium_context.freshness import Freshness
from collegium_context.memory.places import place
from collegium_context.memory.summaries import Summaries
from collegium_context.store import Store
from collegium_context.telemetry import SPAN_TURNS
from collegium_context.turn import make_history

log = structlog.get_logger(__name__)

_HOP = received(s.SVC_CONTEXT_TURNS)
MESSAGES_MAX = 1_000
# An answer travels in one message, and the broker takes at most a megabyte.
HISTORY_BYTES_MAX = 768 * 1024


class Questions:
    """Answers what other services ask of context."""

    def __init__(
        self, store: Store, keyring: Keyring, freshness: Freshness, tracing: Tracing, summaries: Summaries
    ) -> None:
        self._store = store
        self._summaries = summaries
        self._keyring = keyring
        self._freshness = freshness
        self._tracing = tracing

    async def turns(self, question: Message, traceparent: str) -> Message:
        """Answers with the newest messages of a conversation, oldest first."""
        with self._tracing.hop(SPAN_TURNS, "server", traceparent, _HOP) as hop:
            asked = _checked(question)
            hop.set(names.TENANT, asked.tenant)
            await self._freshness.wait(asked.tenant)
            return await self._read(asked)

    async def _read(self, asked: TurnsRequest) -> TurnsReply:
        scope = Scope(asked.tenant).at(place(asked.project, asked.conversation))
        max_bytes = min(asked.max_bytes or HISTORY_BYTES_MAX, HISTORY_BYTES_MAX)
        summary = ""
        try:
            newest = await self._store.newest(scope, max_messages=asked.max_messages, max_bytes=max_bytes)
            if newest.is_cut:
                summary = await self._summaries.of(scope, newest.first_sequence, window_bytes=max_bytes)
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("conversation cannot be read", tenant=asked.tenant, error=type(error).__name__)
            raise RequestRefusedError(
                "context_unavailable", "the conversations' database is away; ask again"
            ) from error
        if newest.is_cut and not newest.turns and max_bytes == HISTORY_BYTES_MAX:
            raise RequestRefusedError(
                "context_length_exceeded",
                f"the last turn of conversation {asked.conversation} is over {HISTORY_BYTES_MAX} bytes; begin another",
                "conversation",
            )
        try:
            await held(self._keyring, asked.tenant, *newest.turns)
            opened = [self._keyring.open(asked.tenant, turn) for turn in newest.turns]
            history = make_history(opened, max_messages=asked.max_messages, is_cut=newest.is_cut)
        except (UnknownKeyError, msgspec.DecodeError) as error:
            log.error("stored turns cannot be read", tenant=asked.tenant, error=type(error).__name__)
            raise RequestRefusedError(
                "internal_error",
                f"conversation {asked.conversation} holds turns that cannot be read; see context's log",
            ) from error
        return TurnsReply(
            history=self._keyring.seal(asked.tenant, history.body) if history is not None else None,
            messages=history.messages if history is not None else 0,
            history_bytes=len(history.body) if history is not None else 0,
            summary=self._keyring.seal(asked.tenant, summary.encode()) if summary else None,
            summary_bytes=len(summary.encode()),
        )


def _checked(question: Message) -> TurnsRequest:
    if not isinstance(question, TurnsRequest):
        raise RequestRefusedError("invalid_value", f"{type(question).__name__} is not asked here")
    # A tenant becomes a subject token: a wildcard would read another tenant's mark.
    if not TENANT_ID.match(question.tenant):
        raise RequestRefusedError("invalid_value", "not the id of a tenant", "tenant")
    if not CONVERSATION_ID.match(question.conversation):
        raise RequestRefusedError("invalid_value", "not the id of a conversation", "conversation")
    if not 1 <= question.max_messages <= MESSAGES_MAX:
        raise RequestRefusedError("invalid_value", f"from 1 to {MESSAGES_MAX}", "max_messages")
    if question.max_bytes < 0:
        raise RequestRefusedError("invalid_value", "not below 0", "max_bytes")
    return question
