"""Reading one INGRESS shard in order, and removing what was dispatched.

The shard's owner replays what stands (a takeover is a replay) and then follows. Messages leave the stream by purges of
a subject up to a sequence, batched, because a purge removes many messages for the price of one delete. One rule: a
subject is purged only up to its oldest message that is not finished.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec
import structlog
from collegium_contracts import subjects as s

from collegium_bus.connection import Connection
from collegium_bus.delivery import Delivery
from collegium_bus.errors import BusError, NoAnswerError
from collegium_bus.ordered import OrderedReader

log = structlog.get_logger(__name__)

PURGE_SECONDS = 0.1


class IngressShard:
    """One shard: hands every message to ``on_message`` in order; ``finish`` says that it may be removed."""

    def __init__(self, connection: Connection, shard: int, on_message: Callable[[Delivery], None]) -> None:
        self.shard = shard
        self._connection = connection
        self._on_message = on_message
        self._open: dict[str, deque[int]] = {}
        self._finished: set[int] = set()
        self._purge_to: dict[str, int] = {}
        self._reader = OrderedReader(
            connection, s.INGRESS, [s.task_submitted_shard(shard)], self._receive, label=f"shard-{shard}"
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def caught_up(self) -> asyncio.Event:
        """Set once everything that stood at the start was handed over."""
        return self._reader.caught_up

    def start(self) -> None:
        """Starts replaying and following."""
        self._reader.start()
        self._task = asyncio.create_task(self._purge_loop(), name=f"purge-{self.shard}")

    async def stop(self) -> None:
        """Stops; purges once more what is finished."""
        await self._reader.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._purge()

    def _receive(self, delivery: Delivery) -> None:
        self._open.setdefault(delivery.subject, deque()).append(delivery.sequence)
        self._on_message(delivery)

    def finish(self, delivery: Delivery) -> None:
        """Notes that a message was dispatched or settled; it is removed with the next purge."""
        self._finished.add(delivery.sequence)
        waiting = self._open.get(delivery.subject)
        while waiting and waiting[0] in self._finished:
            sequence = waiting.popleft()
            self._finished.discard(sequence)
            self._purge_to[delivery.subject] = sequence

    async def _purge_loop(self) -> None:
        while True:
            await asyncio.sleep(PURGE_SECONDS)
            if self._purge_to:
                await self._purge()

    async def _purge(self) -> None:
        batch, self._purge_to = self._purge_to, {}
        for subject, sequence in batch.items():
            body = msgspec.json.encode({"filter": subject, "seq": sequence + 1})
            try:
                reply = msgspec.json.decode(await self._connection.api(f"STREAM.PURGE.{s.INGRESS}", body))
                if error := reply.get("error"):
                    raise NoAnswerError(str(error.get("description")))
            except BusError as error:
                log.warning("purge failed, trying again", subject=subject, error=str(error))
                self._purge_to.setdefault(subject, sequence)
            if not self._open.get(subject):
                self._open.pop(subject, None)
