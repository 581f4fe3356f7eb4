"""What was charged, as all shards of this replica hear it: the headers of settled messages and of the ends of one of
several attempts, in the stream's order.

One reader serves every shard that is held here; one that needs older messages makes it begin again further back. One
rule: a shard sees every one of them after its own position, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from collegium_bus.connection import Connection
from collegium_bus.delivery import Delivery
from collegium_bus.errors import NoAnswerError
from collegium_bus.ordered import OrderedReader
from collegium_contracts import subjects as s
from collegium_contracts.holds import Billed, parse_billed
from collegium_contracts.ids import shard_of

OnBilled = Callable[[s.EventSubject, Billed | int, int, int], None]


class SettledFeed:
    """Reads EVENTS for the shards that were added."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reader: OrderedReader | None = None
        self._shards: dict[int, OnBilled] = {}
        self._read_to = 0
        # One at a time begins the reader again: two at once would leave one that nobody stops.
        self._beginning = asyncio.Lock()

    async def newest(self) -> int:
        """Returns the sequence of the newest event; raises NoAnswerError in time."""
        reply = msgspec.json.decode(await self._connection.api(f"STREAM.INFO.{s.EVENTS}"))
        if error := reply.get("error"):
            raise NoAnswerError(str(error.get("description")))
        return int(reply["state"]["last_seq"])

    async def add(self, shard: int, after: int, on_billed: OnBilled) -> None:
        """Calls ``on_billed(subject, billed, at_ms, sequence)`` for what was charged in a shard after a sequence.

        Of a task that waits for people it is the time (Unix ms) until which its hold is to stand. Returns once
        everything that stood was told.
        """
        self._shards[shard] = on_billed
        async with self._beginning:
            if self._reader is None or after < self._read_to:
                await self._read_from(after + 1)
            reader = self._reader
        while reader is not None:
            await reader.caught_up.wait()
            # A shard with an older position may have made it begin again meanwhile.
            async with self._beginning:
                if reader is self._reader:
                    return
                reader = self._reader

    async def remove(self, shard: int) -> None:
        """Tells a shard nothing more."""
        self._shards.pop(shard, None)
        async with self._beginning:
            if not self._shards:
                await self._end()

    async def stop(self) -> None:
        """Stops reading; whoever waits to be told waits no longer."""
        async with self._beginning:
            await self._end()

    async def _end(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.stop()
            reader.caught_up.set()

    async def _read_from(self, sequence: int) -> None:
        await self._end()
        self._read_to = sequence - 1
        self._reader = OrderedReader(
            self._connection,
            s.EVENTS,
            # A plan of one attempt has no end but its settled message.
            [s.TASK_SETTLED_ALL, s.ATTEMPT_ENDED_ALL, s.TASK_PAUSED_ALL],
            self._on_event,
            start_sequence=sequence,
            headers_only=True,
            label="settled",
        )
        self._reader.start()

    def _on_event(self, delivery: Delivery) -> None:
        self._read_to = delivery.sequence
        about = s.parse_event(delivery.subject)
        on_billed = self._shards.get(shard_of(about.tenant)) if about is not None else None
        if about is None or on_billed is None:
            return
        told: Billed | int | None = parse_billed(delivery.header(s.H_BILLED))
        if told is None and (until := delivery.header(s.H_HOLD_UNTIL)).isdecimal():
            told = int(until)
        if told is not None:
            on_billed(about, told, delivery.timestamp_ns // 1_000_000, delivery.sequence)
