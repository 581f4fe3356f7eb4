"""What the router asks for a task: notes from memory for its model, within bytes and time.

One rule: a task is told only what its path shows, and what it was told is noted.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from collegium_contracts import memory_requests as q
from collegium_contracts import subjects as s
from collegium_contracts.content import ChatMessage, decode_messages
from collegium_contracts.messages import Message
from collegium_contracts.parts import MemoryUse
from collegium_contracts.scope import Scope
from collegium_runtime.spans import received
from collegium_telemetry import names
from collegium_telemetry.tracing import Tracing

from collegium_context.memory.gist import text_of
from collegium_context.memory.recalling import Question, Recalling, note_of
from collegium_context.memory.remembering import path_of
from collegium_context.memory.sealing import Sealing, checked
from collegium_context.memory.view_store import ViewStore
from collegium_context.telemetry import SPAN_RECALL

MEMORIES_MAX = 12
# The end of what was asked says what it is about.
QUESTION_CHARS_MAX = 2_000
_HOP = received(s.SVC_CONTEXT_RECALL)
# The other half of what a prompt may be added to is for a summary.
NOTE_BYTES = q.NOTE_BYTES_MAX // 2


class Telling:
    """Answers the router."""

    def __init__(
        self, recalling: Recalling, views: ViewStore, sealing: Sealing, tracing: Tracing, now_ms: Callable[[], int]
    ) -> None:
        self._recalling = recalling
        self._views = views
        self._sealing = sealing
        self._tracing = tracing
        self._now_ms = now_ms

    async def recall(self, question: Message, traceparent: str) -> Message:
        """Answers with what a task's model is told from memory."""
        asked = checked(question, q.RecallRequest)
        with self._tracing.hop(SPAN_RECALL, "server", traceparent, _HOP) as hop:
            hop.set(names.TENANT, asked.tenant)
            return await self._recall(asked)

    async def _recall(self, asked: q.RecallRequest) -> q.RecallReply:
        scope = Scope(asked.tenant)
        view = await self._recalling.view(scope, path_of(asked.path))
        if view.is_off:
            return q.RecallReply(use=MemoryUse(state="off"))
        text = asked_in(decode_messages(await self._sealing.open(asked.tenant, asked.prompt)))
        if not text:
            return q.RecallReply(use=MemoryUse())
        now = self._now_ms()
        max_bytes = max(0, min(asked.max_bytes, NOTE_BYTES))
        done = await self._recalling.recall(scope, view, Question(text, now, now, MEMORIES_MAX, max_bytes))
        note, told = note_of(done.found, max_bytes)
        state = "words" if done.degraded else "recalled"
        use = MemoryUse(state=state, ids=[one.memory.id for one in told])
        if not note:
            return q.RecallReply(use=use)
        noted = [(one.memory.id, msgspec.json.encode(one.signals)) for one in told]
        await self._views.note_told(scope, asked.task, noted, now)
        plain = note.encode()
        return q.RecallReply(use=use, note=self._sealing.seal(asked.tenant, plain), note_bytes=len(plain))


def asked_in(messages: list[ChatMessage]) -> str:
    """Returns what a prompt asks: the end of its last message of the user."""
    for message in reversed(messages):
        if message.role == "user":
            return text_of(message)[-QUESTION_CHARS_MAX:].strip()
    return ""
