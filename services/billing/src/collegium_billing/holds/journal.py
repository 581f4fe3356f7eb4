"""The journal of a shard of holds in the stream LEDGER: records by expected sequence, and snapshots.

One rule: only who knows the newest record can write the next, so a former owner's record is refused.
"""

from __future__ import annotations

import asyncio

from collegium_bus.errors import AlreadyStandsError, NoAnswerError
from collegium_bus.ordered import OrderedReader
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.holds import HoldsJournaled, HoldsSnapshot
from collegium_runtime.platform import Platform

from collegium_billing.holds.shardbook import ShardBook

REPLAY_SECONDS = 30.0


class ShardJournal:
    """Reads and writes one shard's; ``sequence`` is the newest record's, ``records`` are those since the snapshot."""

    def __init__(self, platform: Platform, shard: int) -> None:
        self._platform = platform
        self._shard = shard
        self.sequence = 0
        self.records = 0

    async def replay(self, book: ShardBook, now_ms: int) -> bool:
        """Makes the book's state from the snapshot and the records after it; true where there never was any."""
        stored = await self._platform.direct.last(s.LEDGER, s.ledger_snapshot(self._shard))
        after = 0
        if stored is not None:
            snapshot = codec.journey.decode(stored.payload)
            if isinstance(snapshot, HoldsSnapshot):
                book.restore(snapshot, now_ms)
                after = snapshot.journal_sequence
        self.sequence = await self._records_after(book, after, now_ms)
        self.records = 0
        return stored is None and not self.sequence

    async def append(self, record: bytes) -> None:
        """Stores a record behind the last; raises AlreadyStandsError where somebody else has written meanwhile."""
        subject = s.ledger_journal(self._shard)
        message_id = f"{self._platform.connection.instance}.{self._shard}.{self.sequence}"
        try:
            ack = await self._platform.publisher.publish(
                subject, record, message_id=message_id, expected_sequence=self.sequence
            )
            sequence = ack.sequence
        except AlreadyStandsError:
            # Its own first try may have been stored although its acknowledgement was lost.
            standing = await self._platform.direct.last(s.LEDGER, subject)
            if standing is None or standing.headers.get(s.MESSAGE_ID) != message_id:
                raise
            sequence = standing.sequence
        self.sequence = sequence
        self.records += 1

    async def store_snapshot(self, book: ShardBook, now_ms: int) -> None:
        """Stores the book's state as it is after the newest record."""
        self.records = 0
        snapshot = book.snapshot(self.sequence, now_ms)
        await self._platform.publisher.publish(
            s.ledger_snapshot(self._shard),
            codec.encode(snapshot),
            message_id=f"{self._platform.connection.instance}.{self._shard}.{self.sequence}.{snapshot.at_ms}",
        )

    async def _records_after(self, book: ShardBook, after: int, now_ms: int) -> int:
        """Applies the records after a sequence, and returns the newest one's."""
        subject = s.ledger_journal(self._shard)
        last = await self._platform.direct.last(s.LEDGER, subject)
        newest = last.sequence if last is not None else 0
        if newest <= after:
            return newest
        failed: list[ContractError] = []
        done = asyncio.Event()

        def on_record(delivery: object) -> None:
            sequence: int = delivery.sequence  # pyright: ignore[reportAttributeAccessIssue]
            try:
                record = codec.journey.decode(delivery.payload)  # pyright: ignore[reportAttributeAccessIssue]
            except ContractError as error:
                failed.append(error)
                record = None
            if isinstance(record, HoldsJournaled):
                book.apply(record, now_ms)
            if sequence >= newest:
                done.set()

        reader = OrderedReader(
            self._platform.connection,
            s.LEDGER,
            [subject],
            on_record,
            start_sequence=after + 1,
            label=f"journal-{self._shard}",
        )
        reader.start()
        try:
            async with asyncio.timeout(REPLAY_SECONDS):
                await done.wait()
        except TimeoutError:
            raise NoAnswerError(f"the journal of shard {self._shard} could not be read in time") from None
        finally:
            await reader.stop()
        if failed:
            raise failed[0]
        return newest
