"""Reading single messages of a stream by subject, without a consumer.

One rule: what is read here was stored (a core subscription on a stream's subject also shows what was refused).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from collegium_contracts import subjects as s

from collegium_bus.claims import ClaimStore
from collegium_bus.connection import Connection
from collegium_bus.delivery import Delivery
from collegium_bus.errors import NoAnswerError
from collegium_bus.wire import decode_headers, encode_headers

BATCH = 256
BATCH_SECONDS = 5.0
# The broker refuses a request for many more.
NEWEST_MAX = 256


class Stored(NamedTuple):
    """One stored message: its subject, sequence, payload (claims redeemed) and headers."""

    subject: str
    sequence: int
    payload: bytes
    headers: dict[str, str]


class DirectReader:
    """Direct gets over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._claims = ClaimStore(connection)

    async def last(self, stream: str, subject: str, *, timeout_seconds: float = 5.0) -> Stored | None:
        """Returns the newest message of a subject (wildcards allowed), or none. Raises NoAnswerError in time."""
        body = msgspec.json.encode({"last_by_subj": subject})
        payload, block = await self._connection.request_raw(
            f"$JS.API.DIRECT.GET.{stream}", body, timeout_seconds=timeout_seconds
        )
        return await self._stored(payload, block)

    async def at(self, stream: str, sequence: int, *, timeout_seconds: float = 5.0) -> Stored | None:
        """Returns the message of a sequence as it stands, its claim not redeemed; none where it stands no more."""
        return await self._raw(stream, {"seq": sequence}, timeout_seconds)

    async def after(self, stream: str, sequence: int, subject: str, *, timeout_seconds: float = 5.0) -> Stored | None:
        """Returns the next message of a filter after a sequence as it stands, its claim not redeemed, or none."""
        return await self._raw(stream, {"seq": sequence + 1, "next_by_subj": subject}, timeout_seconds)

    async def _raw(self, stream: str, where: dict[str, int | str], timeout_seconds: float) -> Stored | None:
        payload, block = await self._connection.request_raw(
            f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(where), timeout_seconds=timeout_seconds
        )
        headers = decode_headers(block)
        if "Nats-Sequence" not in headers:
            return None
        return Stored(headers["Nats-Subject"], int(headers["Nats-Sequence"]), payload, headers)

    async def following(
        self, stream: str, subject: str, after_sequence: int, *, timeout_seconds: float = 5.0
    ) -> Stored | None:
        """Returns the first message of a subject (wildcards allowed) after a sequence, or none."""
        body = msgspec.json.encode({"seq": after_sequence + 1, "next_by_subj": subject})
        payload, block = await self._connection.request_raw(
            f"$JS.API.DIRECT.GET.{stream}", body, timeout_seconds=timeout_seconds
        )
        return await self._stored(payload, block)

    async def _stored(self, payload: bytes, block: bytes | None) -> Stored | None:
        if block is not None and block.startswith(b"NATS/1.0 404"):
            return None
        headers = decode_headers(block)
        if claim := headers.get(s.H_CLAIM):
            payload = await self._claims.get(claim)
        return Stored(headers.get("Nats-Subject", ""), int(headers.get("Nats-Sequence", "0")), payload, headers)

    async def headers(self, stream: str, filter_subject: str, *, limit: int) -> list[Stored]:
        """Returns what stands on a filter, oldest first and at most ``limit``, without redeeming claims.

        A listing and no snapshot: what is stored or removed meanwhile may be in it or not. Raises NoAnswerError in
        time.
        """
        found: list[Stored] = []
        sequence = 1
        while len(found) < limit:
            batch = await self._batch(stream, filter_subject, sequence, min(BATCH, limit - len(found)))
            found += batch
            if len(batch) < BATCH:
                break
            sequence = batch[-1].sequence + 1
        return found

    async def newest(self, stream: str, subjects: Sequence[str]) -> dict[str, Stored]:
        """Returns the newest message of each of at most NEWEST_MAX subjects that has one, without redeeming claims.

        Raises NoAnswerError in time.
        """
        if not subjects:
            return {}
        found = await self._replies(stream, {"multi_last": list(subjects)}, f"{len(subjects)} subjects")
        return {stored.subject: stored for stored in found}

    async def _batch(self, stream: str, filter_subject: str, sequence: int, size: int) -> list[Stored]:
        where = {"seq": sequence, "batch": size, "next_by_subj": filter_subject}
        return await self._replies(stream, where, filter_subject)

    async def _replies(self, stream: str, where: Mapping[str, object], what: str) -> list[Stored]:
        """One request, many replies (ADR-31 of the NATS architecture); an empty one with a status ends them."""
        found: list[Stored] = []
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def receive(_subject: bytes, _reply: bytes, payload: bytes, block: bytes | None) -> None:
            headers = decode_headers(block)
            if not headers.get("Status"):
                found.append(Stored(headers.get("Nats-Subject", ""), int(headers["Nats-Sequence"]), payload, headers))
            elif not ended.done():
                if headers["Status"] in ("204", "404"):
                    ended.set_result(None)
                else:
                    ended.set_exception(NoAnswerError(f"{stream}: {headers['Status']} {headers['Description']}"))

        inbox = f"{self._connection.inbox}.b.{secrets.token_hex(4)}"
        body = msgspec.json.encode(where)
        sid = self._connection.client.subscribe_raw(inbox, receive)
        try:
            self._connection.publish(f"$JS.API.DIRECT.GET.{stream}", body, reply=inbox)
            async with asyncio.timeout(BATCH_SECONDS):
                await ended
        except TimeoutError:
            raise NoAnswerError(f"{stream}: {what} not listed in time") from None
        finally:
            self._connection.client.unsubscribe_raw(sid)
        return found


def as_delivered(connection: Connection, stored: Stored, stream: str, consumer: str, delivered: int) -> Delivery:
    """Returns a stored message as a consumer's last delivery of it looked, for handlers that take one.

    Nothing is in hand at the broker: it is not to be answered for.
    """
    reply = f"$JS.ACK.{stream}.{consumer}.{delivered}.{stored.sequence}.0.0.0".encode()
    headers = {name: value for name, value in stored.headers.items() if not name.startswith(s.BROKER_HEADERS)}
    return Delivery(connection, stored.subject.encode(), reply, stored.payload, encode_headers(headers))
