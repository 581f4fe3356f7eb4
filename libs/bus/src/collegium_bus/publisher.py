"""Publishing to streams: acknowledged, deduplicated, create-once, with claim checks for what is large.

A publish retries with the same message id for at least 15 seconds (a lost stream leader costs 5–7), so a retry is
never stored twice. One rule: what returned is stored; what raised :class:`RefusedError` is not; only
:class:`BrokerUnavailableError` leaves it open.
"""

from __future__ import annotations

import asyncio
import random
from typing import NamedTuple

import msgspec
import structlog
from collegium_contracts import subjects as s

from collegium_bus.claims import ClaimStore
from collegium_bus.connection import Connection
from collegium_bus.direct import DirectReader
from collegium_bus.errors import (
    AlreadyStandsError,
    BrokerUnavailableError,
    NoAnswerError,
    QueueFullError,
    RefusedError,
    TooLargeError,
)
from collegium_bus.wire import encode_headers

log = structlog.get_logger(__name__)

CLAIM_CHECK_BYTES = 256 * 1024
PUBLISH_BUDGET_SECONDS = 15.0
TRY_SECONDS = 3.0
LEAST_TRY_SECONDS = 0.05
# Longer than any turn of a busy event loop.
STANDSTILL_SECONDS = 2.0

_WRONG_LAST_SEQUENCE = (10071, 10164)
_FULL = (10047, 10077, 10110, 10167)
_TOO_LARGE = (10054,)
_TEMPORARY = (10008, 10039, 10074, 10118)


class PubAck(NamedTuple):
    """Where a message was stored; ``duplicate`` means that an earlier try with the same id had stored it."""

    stream: str
    sequence: int
    duplicate: bool


class _ApiError(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: _ApiError | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


class Publisher:
    """Publishes to JetStream over one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._connection = connection
        self._claims = ClaimStore(connection)
        self._direct = DirectReader(connection)

    async def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        message_id: str,
        headers: dict[str, str] | None = None,
        create_once: bool = False,
        expected_sequence: int | None = None,
        budget_seconds: float = PUBLISH_BUDGET_SECONDS,
        claim_checks: bool = True,
    ) -> PubAck:
        """Stores one message and returns where.

        ``create_once`` (EVENTS only) refuses with AlreadyStandsError where the subject holds a message;
        ``expected_sequence`` is the general compare-and-set; without ``claim_checks`` the payload is never put aside.
        Raises QueueFullError, TooLargeError, RefusedError, or BrokerUnavailableError after ``budget_seconds``.
        """
        fields = dict(headers) if headers else {}
        if message_id:
            fields[s.MESSAGE_ID] = message_id
        if create_once:
            fields[s.EXPECTED_LAST_SUBJECT_SEQUENCE] = "0"
        elif expected_sequence is not None:
            fields[s.EXPECTED_LAST_SUBJECT_SEQUENCE] = str(expected_sequence)
        if claim_checks and len(payload) > CLAIM_CHECK_BYTES:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + budget_seconds
            fields[s.H_CLAIM] = await self._put_aside(payload, deadline)
            payload = b""
            budget_seconds = max(deadline - loop.time(), min(budget_seconds, TRY_SECONDS))
        own = message_id if create_once else ""
        return await self._store(subject, payload, encode_headers(fields), budget_seconds, own)

    async def _put_aside(self, payload: bytes, deadline: float) -> str:
        attempt = 0
        while True:
            try:
                return await self._claims.put(payload)
            except BrokerUnavailableError:
                attempt += 1
                pause = random.uniform(0.02, min(1.0, 0.05 * 2**attempt))  # noqa: S311 - jitter
                if asyncio.get_running_loop().time() + pause >= deadline:
                    raise
                await asyncio.sleep(pause)

    async def _store(
        self, subject: str, payload: bytes, headers: bytes, budget_seconds: float, create_once_id: str
    ) -> PubAck:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + budget_seconds
        attempt = 0
        while True:
            began = loop.time()
            try_seconds = min(TRY_SECONDS, max(deadline - began, LEAST_TRY_SECONDS))
            try:
                raw, _ = await self._connection.request_raw(
                    subject, payload, headers=headers, timeout_seconds=try_seconds
                )
                ack = _decode_ack(raw)
                if ack.error is None:
                    return PubAck(ack.stream, ack.seq, ack.duplicate)
                _raise_refusal(subject, ack.error)
                reason = ack.error.description
            except NoAnswerError as error:
                reason = str(error)
            except AlreadyStandsError:
                # The broker compares the sequence before it looks for duplicates (2.15.1, measured), so a retry of
                # a publish whose acknowledgement was lost is refused by its own first try.
                if attempt and create_once_id and (own := await self._own_first_try(subject, create_once_id)):
                    return own
                raise
            attempt += 1
            # A process that was stopped was not waiting: without this it would give up what it has hardly tried.
            stood_still_seconds = loop.time() - began - try_seconds
            if stood_still_seconds > STANDSTILL_SECONDS:
                deadline += stood_still_seconds
            pause = random.uniform(0.02, min(1.0, 0.05 * 2**attempt))  # noqa: S311 - jitter
            if loop.time() + pause >= deadline:
                raise BrokerUnavailableError(
                    f"{subject}: not stored within {budget_seconds:g} s ({reason}); try again later"
                )
            await asyncio.sleep(pause)

    async def _own_first_try(self, subject: str, message_id: str) -> PubAck | None:
        standing = await self._direct.last(s.EVENTS, subject)
        if standing is None or standing.headers.get(s.MESSAGE_ID) != message_id:
            return None
        return PubAck(s.EVENTS, standing.sequence, True)

    def tell(self, subject: str, payload: bytes, *, headers: dict[str, str]) -> None:
        """Sends a small message to a stream without waiting for it to be stored; for what may be lost."""
        try:
            self._connection.publish(subject, payload, headers=encode_headers(headers))
        except (BrokerUnavailableError, RefusedError) as error:
            log.info("message not sent", subject=subject, error=str(error))

    async def notify(self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None) -> None:
        """Sends a core NATS message, by claim check where it is large; nothing waits for it to arrive."""
        fields = dict(headers) if headers else {}
        if len(payload) > CLAIM_CHECK_BYTES:
            fields[s.H_CLAIM] = await self._claims.put(payload)
            payload = b""
        self._connection.publish(subject, payload, headers=encode_headers(fields) if fields else None)


def _raise_refusal(subject: str, error: _ApiError) -> None:
    """Raises the typed error of a refusal; returns for errors that pass by themselves (no leader, shutting down)."""
    text = f"{subject}: {error.description}"
    if error.err_code in _WRONG_LAST_SEQUENCE:
        raise AlreadyStandsError(text, error.err_code)
    if error.err_code in _FULL or "maximum" in error.description:
        raise QueueFullError(text, error.err_code)
    if error.err_code in _TOO_LARGE:
        raise TooLargeError(text, error.err_code)
    if error.err_code not in _TEMPORARY and error.code != 503:
        raise RefusedError(text, error.err_code)
