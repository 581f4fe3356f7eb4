"""Folding events in batches: decode, hand over a batch, acknowledge after the handler returned.

The handler's return is the commit: what it did not return from is handed over again, in order. Undecodable bytes are
dead-lettered verbatim and the rest goes on. One rule: handlers are idempotent by stream sequence or by the ids in the
message, because after a crash the last batch comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import structlog
from collegium_contracts import subjects as s
from collegium_contracts.codec import Codec
from collegium_contracts.consumers import Consumer
from collegium_contracts.errors import ContractError

from collegium_bus.claims import ClaimStore
from collegium_bus.connection import Connection
from collegium_bus.dead import DeadLetters
from collegium_bus.delivery import Delivery
from collegium_bus.errors import BusError
from collegium_bus.pull import PullRequests
from collegium_bus.slices import in_slices

log = structlog.get_logger(__name__)

M = TypeVar("M")
MAX_RETRY_SECONDS = 5.0
# A broker that does not answer a fetch within this is away; the next round asks anew.
FETCH_SECONDS = 2.0


class EventOf(NamedTuple, Generic[M]):
    """One decoded event: the message, its payload as stored (claims redeemed), and how it was delivered."""

    message: M
    payload: bytes
    delivery: Delivery

    @property
    def sequence(self) -> int:
        """The event's sequence in its stream."""
        return self.delivery.sequence

    @property
    def subject(self) -> str:
        """The event's subject."""
        return self.delivery.subject

    @property
    def traceparent(self) -> str:
        """The trace context the event was published in; empty where there was none."""
        return self.delivery.header(s.TRACEPARENT)


class EventLoop(Generic[M]):
    """Collects the events of a durable consumer and calls ``handle(batch)``; acknowledges when it returns.

    A batch holds at most ``max_batch`` events and is handed over about ``linger_seconds`` after its first. While the
    consumer is idle one request for one message stands; its arrival starts the linger, after which everything that came
    meanwhile is fetched at once, so that the broker wakes this process twice a batch instead of once an event.
    :meth:`hurry` ends the linger, for whoever waits for what is folded. While the handler fails the same batch is
    retried with backoff and nothing is acknowledged; its leases are renewed.
    """

    def __init__(
        self,
        connection: Connection,
        consumer: Consumer,
        codec: Codec[M],
        handle: Callable[[Sequence[EventOf[M]]], Awaitable[None]],
        dead_letters: DeadLetters,
        *,
        max_batch: int = 500,
        linger_seconds: float = 0.05,
    ) -> None:
        self.consumer = consumer
        self.folded_sequence = 0
        self._connection = connection
        self._codec = codec
        self._handle = handle
        self._dead_letters = dead_letters
        self._claims = ClaimStore(connection)
        self._max_batch = max_batch
        self._linger_seconds = linger_seconds
        self._arrived: list[Delivery] = []
        self._in_hand: list[Delivery] = []
        self._wake = asyncio.Event()
        self._fetched = asyncio.Event()
        self._hurried = asyncio.Event()
        self._busy = False
        self._pulls = PullRequests(
            connection, consumer.stream, consumer.durable, self._on_message, on_lost=self._on_pull_ended
        )
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def lag(self) -> int:
        """Events that are here and not yet handled."""
        return len(self._arrived) + len(self._in_hand)

    def start(self) -> None:
        """Asks for events and starts handling them."""
        self._pulls.start()
        self._pulls.want(1)
        self._tasks = [
            asyncio.create_task(self._run(), name=f"events-{self.consumer.durable}"),
            asyncio.create_task(self._renew(), name=f"leases-{self.consumer.durable}"),
        ]

    def hurry(self) -> None:
        """Handles what has come, or what comes next, without waiting for more."""
        self._hurried.set()

    async def stop(self) -> None:
        """Stops; what was not handled comes again to the next who asks."""
        self._pulls.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for delivery in self._in_hand + self._arrived:
            delivery.nak(0.0)

    def _on_message(self, subject: bytes, reply: bytes, payload: bytes, block: bytes | None) -> None:
        self._arrived.append(Delivery(self._connection, subject, reply, payload, block))
        self._wake.set()
        if self._pulls.requested == 0:
            self._fetched.set()

    def _on_pull_ended(self, _reason: str) -> None:
        self._fetched.set()
        if not self._busy and self._pulls.requested == 0:
            self._pulls.want(1)

    async def _fetch(self) -> None:
        """Gets what is there now, up to a batch."""
        self._fetched.clear()
        self._pulls.want(self._max_batch - len(self._arrived), standing=False)
        if self._pulls.requested == 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FETCH_SECONDS):
                await self._fetched.wait()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._busy = True
            await self._linger()
            await self._fetch()
            while self._arrived:
                full = len(self._arrived) >= self._max_batch
                await self._handle_arrived()
                if full:
                    await self._fetch()
            self._busy = False
            self._wake.clear()
            if self._pulls.requested == 0:
                self._pulls.want(1)

    async def _linger(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._linger_seconds):
                await self._hurried.wait()
        self._hurried.clear()

    async def _handle_arrived(self) -> None:
        self._in_hand, self._arrived = self._arrived, []
        batch: list[EventOf[M]] = []
        async for some in in_slices(self._in_hand):
            batch += [event for delivery in some if (event := await self._decode(delivery)) is not None]
        if batch:
            await self._until_handled(batch)
        for delivery in self._in_hand:
            delivery.ack()
        self.folded_sequence = max(self.folded_sequence, self._in_hand[-1].sequence)
        self._in_hand = []

    async def _decode(self, delivery: Delivery) -> EventOf[M] | None:
        try:
            payload = await self._payload(delivery)
            return EventOf(self._codec.decode(payload), payload, delivery)
        except ContractError as error:
            while not await self._dead_letters.bury(delivery, error.code, str(error)):  # noqa: ASYNC110 - a retry
                await asyncio.sleep(random.uniform(0.5, MAX_RETRY_SECONDS))  # noqa: S311 - jitter
            return None

    async def _payload(self, delivery: Delivery) -> bytes:
        """Returns a delivery's payload, its claim redeemed, however long the broker takes."""
        claim = delivery.header(s.H_CLAIM)
        while claim:
            try:
                return await self._claims.get(claim)
            except BusError as error:
                log.warning("claim not redeemed, trying again", subject=delivery.subject, error=str(error))
                await asyncio.sleep(random.uniform(0.2, 2.0))  # noqa: S311 - jitter
        return delivery.payload

    async def _until_handled(self, batch: Sequence[EventOf[M]]) -> None:
        tries = 0
        while True:
            try:
                await self._handle(batch)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # a fold must not lose its batch, whatever failed
                tries += 1
                log.error("batch failed, trying again", consumer=self.consumer.durable, tries=tries, exc_info=error)
                await asyncio.sleep(random.uniform(0.05, min(MAX_RETRY_SECONDS, 0.1 * 2**tries)))  # noqa: S311
            else:
                return

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.consumer.ack_wait_seconds / 3)
            for delivery in self._in_hand + self._arrived:
                delivery.in_progress()
