"""Questions about conversations in, answers out: list, read, forget.

One rule: what was forgotten is answered for only after the fold stands beyond it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import memory_requests as q
from collegium_contracts.ids import TASK_ID
from collegium_contracts.messages import Message
from collegium_contracts.scope import Scope

from collegium_context.freshness import Freshness
from collegium_context.memory.conversation_store import ConversationStore
from collegium_context.memory.places import own_id, place, span
from collegium_context.memory.sealing import Sealing, checked
from collegium_context.memory.showing import when

PAGE_MAX = 200
TURNS_MAX = 100
# What one answer may hold: it travels in one message.
BYTES_MAX = 700 * 1024


class Conversing:
    """Answers about conversations."""

    def __init__(
        self, store: ConversationStore, freshness: Freshness, sealing: Sealing, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._freshness = freshness
        self._sealing = sealing
        self._now_ms = now_ms

    async def page(self, question: Message, _traceparent: str) -> Message:
        """Lists conversations by name."""
        asked = checked(question, q.ConversationList)
        if not 1 <= asked.limit <= PAGE_MAX:
            raise RequestRefusedError("invalid_value", f"from 1 to {PAGE_MAX}", "limit")
        await self._freshness.wait(asked.tenant)
        found = await self._store.page(Scope(asked.tenant), span(asked.project, asked.after_id), limit=asked.limit)
        data = [
            {
                "id": own_id(one.place),
                "object": "conversation",
                "turns": one.turns,
                "messages": one.messages,
                "bytes": one.bytes,
                "created_at": when(one.first_ms),
                "updated_at": when(one.last_ms),
            }
            for one in found
        ]
        cursor = own_id(found[-1].place) if len(found) == asked.limit else None
        return self._sealing.shown(asked.tenant, {"object": "list", "data": data, "next_cursor": cursor})

    async def get(self, question: Message, _traceparent: str) -> Message:
        """Shows the turns of a conversation, newest first."""
        asked = checked(question, q.ConversationGet)
        if not 1 <= asked.limit <= TURNS_MAX:
            raise RequestRefusedError("invalid_value", f"from 1 to {TURNS_MAX}", "limit")
        await self._freshness.wait(asked.tenant)
        scope = Scope(asked.tenant).at(place(asked.project, asked.id))
        turns = await self._store.turns(scope, limit=asked.limit, before_sequence=asked.before_sequence)
        if not turns and not asked.before_sequence:
            raise _unknown(asked.id)
        data: list[dict[str, Any]] = []
        size, cursor = 0, None
        for turn in turns:
            plain = await self._sealing.open(asked.tenant, turn.body)
            size += len(plain)
            if data and size > BYTES_MAX:
                break
            shown = msgspec.Raw(plain) if size <= BYTES_MAX else None
            data.append({"task_id": turn.task_id, "created_at": when(turn.at_ms), "messages": shown})
            cursor = str(turn.sequence)
        is_all = len(data) == len(turns) < asked.limit
        body = {"id": asked.id, "object": "conversation", "data": data, "next_cursor": None if is_all else cursor}
        return self._sealing.shown(asked.tenant, body)

    async def forget(self, question: Message, _traceparent: str) -> Message:
        """Deletes a conversation, or one turn of it, with what was kept in mind of it."""
        asked = checked(question, q.ConversationForget)
        scope = Scope(asked.tenant).at(place(asked.project, asked.id))
        if asked.task and TASK_ID.match(asked.task) is None:
            raise RequestRefusedError("not_found", f"there is no turn of {asked.task[:64]!r}", "task")
        await self._freshness.wait(asked.tenant)
        gone = await self._store.forget(scope, asked.task, self._now_ms())
        if not gone:
            raise _unknown(asked.id)
        task = {"task_id": asked.task} if asked.task else {}
        return self._sealing.shown(asked.tenant, {"id": asked.id, **task, "deleted": True, "turns": gone}, "changed")


def _unknown(conversation: str) -> RequestRefusedError:
    return RequestRefusedError("not_found", f"there is no conversation {conversation}, or no such turn of it", "id")
