"""Reading single messages of a stream by subject, without a consumer.

One rule: what is read here was stored (a core subscription on a stream's subject also shows what was refused).
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from collegium_contracts import subjects as s

from collegium_bus.claims import ClaimStore
from collegium_bus.connection import Connection
from collegium_bus.wire import decode_headers


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
