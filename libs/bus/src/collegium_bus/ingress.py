"""Reading one INGRESS shard in order, and removing what was dispatched.

The shard's owner replays what stands (a takeover is a replay) and then follows. Messages leave the stream by purges of
a subject up to a sequence, batched, because a purge removes many messages for the price of one delete; what finished
behind a message that stays long (it waits for its time, or for a model) is deleted one by one, so that it does not
count against the subject's limit. One rule: what is not finished is never removed.
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
# Finished messages that may stand behind an unfinished one before they are deleted one by one, and how many a round.
STRAGGLERS = 64
DELETES_AT_ONCE = 256


class IngressShard:
    """One shard: hands every message to ``on_message`` in order; ``finish`` says that it may be removed."""

    def __init__(self, connection: Connection, shard: int, on_message: Callable[[Delivery], None]) -> None:
        self.shard = shard
        self._connection = connection
        self._on_message = on_message
        self._open: dict[str, deque[int]] = {}
        self._finished: dict[str, set[int]] = {}
        self._purge_to: dict[str, int] = {}
        self._reader = OrderedReader(
            connection, s.INGRESS, [s.ingress_shard(shard)], self._receive, label=f"shard-{shard}"
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

    def finish(self, subject: str, sequence: int) -> None:
        """Notes that a message was dispatched or settled; it is removed with the next purge."""
        finished = self._finished.setdefault(subject, set())
        finished.add(sequence)
        waiting = self._open.get(subject)
        while waiting and waiting[0] in finished:
            head = waiting.popleft()
            finished.discard(head)
            self._purge_to[subject] = head

    async def _purge_loop(self) -> None:
        while True:
            await asyncio.sleep(PURGE_SECONDS)
            if self._purge_to:
                await self._purge()
            for subject, finished in list(self._finished.items()):
                if len(finished) > STRAGGLERS:
                    await self._delete(subject, finished)

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
                self._finished.pop(subject, None)

    async def _delete(self, subject: str, finished: set[int]) -> None:
        """Deletes finished messages that a purge cannot reach."""
        chosen = sorted(finished)[:DELETES_AT_ONCE]
        answers = await asyncio.gather(
            *(self._connection.api(f"STREAM.MSG.DELETE.{s.INGRESS}", _deletion(sequence)) for sequence in chosen),
            return_exceptions=True,
        )
        gone = {sequence for sequence, answer in zip(chosen, answers, strict=True) if not isinstance(answer, Exception)}
        if len(gone) < len(chosen):
            log.warning("finished tasks not deleted, trying again", subject=subject, left=len(chosen) - len(gone))
        finished -= gone
        waiting = self._open.get(subject, deque())
        self._open[subject] = deque(sequence for sequence in waiting if sequence not in gone)


def _deletion(sequence: int) -> bytes:
    return msgspec.json.encode({"seq": sequence, "no_erase": True})
