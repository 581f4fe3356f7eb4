"""Key–value buckets: read, compare-and-set, watch.

Reads may be stale; only a compare-and-set's result is true. A watch reads the bucket in order from its newest values
on, and once a minute reads everything again, because a watcher may take long to recover after a broker restart. Values
stand in the bucket itself, however large: a claim would expire before them. One rule: a decision that must not be made
twice goes through :meth:`Bucket.put` with the expected revision.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

import msgspec
from collegium_contracts import subjects as s

from collegium_bus.connection import Connection
from collegium_bus.delivery import Delivery
from collegium_bus.direct import NEWEST_MAX, DirectReader
from collegium_bus.errors import NoAnswerError, TooLargeError
from collegium_bus.ordered import OrderedReader
from collegium_bus.publisher import Publisher

REREAD_SECONDS = 60.0
# A value is one message: the broker takes a megabyte with its headers.
VALUE_BYTES_MAX = 1024 * 1024 - 16 * 1024
_ABSENT = 404


class Entry(NamedTuple):
    """A value and its revision (the bucket's sequence); ``deleted`` marks what is left of a key that was deleted."""

    key: str
    value: bytes
    revision: int
    deleted: bool = False


class Bucket:
    """One bucket over one connection."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.name = name
        self._connection = connection
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."
        self._direct = DirectReader(connection)
        self._publisher = Publisher(connection)

    async def get(self, key: str, *, timeout_seconds: float = 5.0) -> Entry | None:
        """Returns the newest value of a key, or none. Raises NoAnswerError in time."""
        stored = await self._direct.last(self._stream, self._prefix + key, timeout_seconds=timeout_seconds)
        if stored is None or stored.headers.get(s.KV_OPERATION):
            return None
        return Entry(key, stored.payload, stored.sequence)

    async def newest(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Returns the newest values of those keys that have one; raises NoAnswerError in time."""
        found: dict[str, Entry] = {}
        for begin in range(0, len(keys), NEWEST_MAX):
            subjects = [self._prefix + key for key in keys[begin : begin + NEWEST_MAX]]
            for stored in (await self._direct.newest(self._stream, subjects)).values():
                if not stored.headers.get(s.KV_OPERATION):
                    key = stored.subject[len(self._prefix) :]
                    found[key] = Entry(key, stored.payload, stored.sequence)
        return found

    async def put(
        self, key: str, value: bytes, *, expected_revision: int | None = None, budget_seconds: float = 15.0
    ) -> int:
        """Stores a value and returns its revision.

        ``expected_revision`` (0: the key must not exist) makes it a compare-and-set, refused with AlreadyStandsError.
        Raises TooLargeError beyond VALUE_BYTES_MAX.
        """
        if len(value) > VALUE_BYTES_MAX:
            raise TooLargeError(f"{self.name}: a value of {len(value)} bytes for {key} is over {VALUE_BYTES_MAX}")
        ack = await self._publisher.publish(
            self._prefix + key,
            value,
            message_id="",
            expected_sequence=expected_revision,
            budget_seconds=budget_seconds,
            claim_checks=False,
        )
        return ack.sequence

    def tell(self, key: str, value: bytes, headers: dict[str, str]) -> None:
        """Stores a value without waiting for it; for what may be lost."""
        self._publisher.tell(self._prefix + key, value, headers=headers)

    async def delete(self, key: str, *, expected_revision: int) -> None:
        """Deletes a key by compare-and-set, refused with AlreadyStandsError; a mark stays until it is removed."""
        await self._publisher.publish(
            self._prefix + key,
            b"",
            message_id="",
            headers={s.KV_OPERATION: "DEL"},
            expected_sequence=expected_revision,
        )

    async def remove(self, key: str, *, revision: int) -> None:
        """Removes what stands of a key up to a revision, without a trace; raises NoAnswerError where it is refused."""
        body = msgspec.json.encode({"filter": self._prefix + key, "seq": revision + 1})
        reply = msgspec.json.decode(await self._connection.api(f"STREAM.PURGE.{self._stream}", body))
        if error := reply.get("error"):
            raise NoAnswerError(f"{self.name}: {error.get('description')}")

    async def overwrite(self, revision: int) -> None:
        """Deletes one value and has the broker overwrite it on disk; one that is gone already is no error."""
        body = msgspec.json.encode({"seq": revision})
        reply = msgspec.json.decode(await self._connection.api(f"STREAM.MSG.DELETE.{self._stream}", body))
        if (error := reply.get("error")) and error.get("code") != _ABSENT:
            raise NoAnswerError(f"{self.name}: {error.get('description')}")

    async def entries(self, keys: str = ">") -> AsyncIterator[Entry]:
        """Yields what stands of the keys of a filter, the oldest change first, by one request each and no consumer."""
        sequence = 0
        while (stored := await self._direct.following(self._stream, self._prefix + keys, sequence)) is not None:
            sequence = stored.sequence
            deleted = s.KV_OPERATION in stored.headers
            yield Entry(stored.subject[len(self._prefix) :], stored.payload, sequence, deleted)

    async def size_bytes(self) -> int:
        """Returns how much the bucket holds; raises NoAnswerError where the broker does not tell."""
        reply = msgspec.json.decode(await self._connection.api(f"STREAM.INFO.{self._stream}"))
        if error := reply.get("error"):
            raise NoAnswerError(f"{self.name}: {error.get('description')}")
        size: int = reply["state"]["bytes"]
        return size

    def follow_headers(self, on_change: Callable[[Delivery], None]) -> OrderedReader:
        """Returns a reader of what stands and what changes without the values; call its ``start``.

        After a broker's restart it may be late, and unlike a watch it does not read everything again.
        """
        return OrderedReader(
            self._connection, self._stream, [self._prefix + ">"], on_change, headers_only=True, label="headers"
        )

    def watch(
        self, on_value: Callable[[Entry], None], on_deleted: Callable[[Entry], None] | None = None
    ) -> BucketWatch:
        """Returns a watch that calls back for every value, the standing ones first; call its ``start``.

        ``on_deleted`` is called back for every deleted key of which a mark stands, again and again as values are.
        """
        return BucketWatch(self._connection, self._stream, self._prefix, on_value, on_deleted)


class BucketWatch:
    """Calls back for every value of a bucket, the standing ones first; a value may be called back more than once."""

    def __init__(
        self,
        connection: Connection,
        stream: str,
        prefix: str,
        on_value: Callable[[Entry], None],
        on_deleted: Callable[[Entry], None] | None = None,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._prefix = prefix
        self._on_value = on_value
        self._on_deleted = on_deleted
        self._reader = self._new_reader()
        self._task: asyncio.Task[None] | None = None

    def _new_reader(self) -> OrderedReader:
        return OrderedReader(
            self._connection,
            self._stream,
            [self._prefix + ">"],
            self._on_delivery,
            last_per_subject=True,
            label="watch",
        )

    async def start(self) -> None:
        """Starts and returns once all standing values were called back."""
        self._reader.start()
        await self._reader.caught_up.wait()
        self._task = asyncio.create_task(self._reread(), name=f"reread-{self._stream}")

    async def stop(self) -> None:
        """Stops."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._reader.stop()

    async def _reread(self) -> None:
        while True:
            await asyncio.sleep(REREAD_SECONDS)
            fresh = self._new_reader()
            fresh.start()
            try:
                await fresh.caught_up.wait()
            except asyncio.CancelledError:
                await fresh.stop()
                raise
            stale, self._reader = self._reader, fresh
            await stale.stop()

    def _on_delivery(self, delivery: Delivery) -> None:
        key = delivery.subject[len(self._prefix) :]
        if not delivery.header(s.KV_OPERATION):
            self._on_value(Entry(key, delivery.payload, delivery.sequence))
        elif self._on_deleted is not None:
            self._on_deleted(Entry(key, b"", delivery.sequence, deleted=True))
