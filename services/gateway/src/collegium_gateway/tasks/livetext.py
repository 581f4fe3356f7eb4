"""The text of one task as it is written, then its terminal message: what both doors' streams are made of.

Tokens come over core NATS and may be lost, late or doubled (healing.py); the settled message completes them. One rule:
whoever joins late, or sees a gap, gets the rest from the settled text.
"""

from __future__ import annotations

import asyncio

import msgspec
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import SettledMessage, TaskFailed, TaskRef, TokenChunk
from collegium_runtime.platform import Platform

from collegium_gateway.errors import ApiError
from collegium_gateway.tasks.healing import TextStream
from collegium_gateway.tasks.views import settled_view


class Piece(msgspec.Struct, frozen=True):
    """One step of a streamed answer: text to pass on, or the settled message that ends it."""

    text: str = ""
    model: str = ""
    settled: SettledMessage | None = None


class LiveText:
    """Follows one task's tokens from ``open`` to ``close``; ``settled`` takes the future of its terminal message."""

    def __init__(self, platform: Platform, task: TaskRef) -> None:
        self._platform = platform
        self._task = task
        self._queue: asyncio.Queue[TokenChunk | SettledMessage | ApiError] = asyncio.Queue()
        self._text = TextStream()
        self._sid: int | None = None

    def open(self) -> None:
        """Subscribes to the tokens."""
        subject = s.token(self._task.tenant, self._task.id)
        self._sid = self._platform.connection.client.subscribe_raw(subject, self._on_token)

    def close(self) -> None:
        """Ends the subscription."""
        if self._sid is not None:
            self._platform.connection.client.unsubscribe_raw(self._sid)

    def settled(self, future: asyncio.Future[SettledMessage]) -> None:
        """Ends the text with what the future brought; a callback for it."""
        if not future.cancelled():
            error = future.exception()
            self._queue.put_nowait(error if isinstance(error, ApiError) else future.result())

    async def next(self) -> Piece:
        """Returns the next piece; the one with the settled message is the last. Raises ApiError."""
        while True:
            item = await self._queue.get()
            if isinstance(item, ApiError):
                raise item
            if not isinstance(item, TokenChunk):
                return self._last(item)
            plain = self._platform.keyring.open(self._task.tenant, item.text).decode(errors="replace")
            if new := self._text.chunk(item.attempt, item.delivery, item.number, plain):
                return Piece(text=new, model=item.model)

    def _on_token(self, _subject: bytes, _reply: bytes, payload: bytes, _block: bytes | None) -> None:
        try:
            message = codec.journey.decode(payload)
        except ContractError:
            return
        if isinstance(message, TokenChunk):
            self._queue.put_nowait(message)

    def _last(self, settled: SettledMessage) -> Piece:
        if isinstance(settled, TaskFailed) and settled.error.gate is not None:
            # What was sent stands, and nothing follows.
            return Piece(model=settled.model, settled=settled)
        view = settled_view(settled, self._platform.keyring, "")
        rest = self._text.complete(view.output or "")
        if rest is None:
            raise ApiError(
                "upstream_cut",
                f"task {settled.task.id} was answered by a second try whose text differs from what was streamed;"
                f" read it at /v1/tasks/{settled.task.id}",
                task_id=settled.task.id,
            )
        return Piece(text=rest, model=settled.model, settled=settled)
