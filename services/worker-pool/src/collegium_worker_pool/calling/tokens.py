"""Sending a streamed answer on: numbered token chunks, coalesced, and a text checkpoint every second and a half.

Chunks go over core NATS and may be lost; numbers show the gap and the durable result heals it. One rule: the first
piece goes out at once, the rest in lumps, so that a fast model does not flood the broker.
"""

from __future__ import annotations

import asyncio

import structlog
from collegium_bus.errors import BusError
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.messages import RunAttempt, TextCheckpointed, TokenChunk
from collegium_runtime.platform import Platform

log = structlog.get_logger(__name__)

COALESCE_SECONDS = 0.015
CHECKPOINT_SECONDS = 1.5


class TokenStream:
    """One attempt's stream. ``feed`` takes text as it comes; ``close`` ends it."""

    def __init__(self, platform: Platform, run: RunAttempt, delivery: int) -> None:
        self._platform = platform
        self._run = run
        self._delivery = delivery
        self._subject = s.token(run.task.tenant, run.task.id)
        self._pending: list[str] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._parts: list[str] = []
        self._checkpointed = 0
        self._checkpoint: asyncio.Task[None] | None = None
        self._checkpoint_timer = asyncio.get_running_loop().call_later(CHECKPOINT_SECONDS, self._keep_checkpoint)

    def close(self) -> None:
        """Sends what is left and stores no further checkpoint."""
        self._checkpoint_timer.cancel()
        if self._checkpoint is not None:
            self._checkpoint.cancel()
        self.flush()

    def feed(self, text: str) -> None:
        """Takes a piece of text."""
        self._parts.append(text)
        self._pending.append(text)
        if self._number == 0:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COALESCE_SECONDS, self.flush)

    def flush(self) -> None:
        """Sends what is pending."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pending:
            return
        text, self._pending = "".join(self._pending), []
        task = self._run.task
        chunk = TokenChunk(
            task_id=task.id,
            attempt=self._run.attempt.number,
            delivery=self._delivery,
            number=self._number,
            text=self._platform.keyring.seal(task.tenant, text.encode()),
            model=self._run.attempt.model,
        )
        self._number += 1
        try:
            self._platform.connection.publish(self._subject, encode(chunk))
        except BusError as error:
            log.info("token chunk dropped", task=task.id, number=chunk.number, error=str(error))

    def _keep_checkpoint(self) -> None:
        """Begins to store a checkpoint where there is something new and the last one stands."""
        loop = asyncio.get_running_loop()
        self._checkpoint_timer = loop.call_later(CHECKPOINT_SECONDS, self._keep_checkpoint)
        stands = self._checkpoint is None or self._checkpoint.done()
        if stands and len(self._parts) > self._checkpointed:
            self._checkpointed = len(self._parts)
            self._checkpoint = loop.create_task(self._store_checkpoint())

    async def _store_checkpoint(self) -> None:
        task, attempt = self._run.task, self._run.attempt
        message = TextCheckpointed(
            task=task,
            attempt=attempt,
            delivery=self._delivery,
            chunks=self._number,
            text=self._platform.keyring.seal(task.tenant, "".join(self._parts).encode()),
            at_ms=self._platform.now_ms(),
        )
        try:
            await self._platform.publisher.publish(
                s.attempt_checkpoint(task.tenant, task.id, attempt.number),
                encode(message),
                message_id=f"{task.id}.{attempt.number}.{self._delivery}.text.{self._checkpointed}",
                headers={s.H_TENANT: task.tenant},
            )
        except BusError as error:
            log.info("checkpoint not stored", task=task.id, error=str(error))
