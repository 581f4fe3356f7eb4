"""Our own pull loop for work queues: slots, heartbeats, drain.

A fixed number of slot tasks run the handler; never more messages are taken than slots are free, because each holds a
lease. One task renews the leases of all running deliveries, each only up to its own deadline, so that a hung call loses
its lease. One rule: a message leaves the queue because its handler answered for it, or as a dead letter.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable

import structlog
from collegium_contracts.consumers import Consumer
from collegium_contracts.errors import ContractError

from collegium_bus.connection import Connection
from collegium_bus.dead import DeadLetters
from collegium_bus.delivery import Delivery, acknowledge
from collegium_bus.pull import PullRequests

log = structlog.get_logger(__name__)

MAX_BACKOFF_SECONDS = 10.0
# Some seconds of work at the highest rate; a few megabytes.
MAX_KEPT_ACKS = 20_000
# Far below any lease.
ACK_LINGER_SECONDS = 0.02


class WorkLoop:
    """Runs ``handle(delivery)`` for the messages of a work-queue consumer, ``slots`` at a time.

    The handler acknowledges. A ContractError from it dead-letters the message at once; any other exception gives it
    back with a full-jitter delay, and dead-letters it on the consumer's last delivery, after ``give_up`` was told, so
    that whoever waits for the work hears of it.
    """

    def __init__(
        self,
        connection: Connection,
        consumer: Consumer,
        handle: Callable[[Delivery], Awaitable[None]],
        dead_letters: DeadLetters,
        *,
        slots: int,
        give_up: Callable[[Delivery, Exception], Awaitable[None]] | None = None,
    ) -> None:
        self.consumer = consumer
        self.slots = slots
        self._connection = connection
        self._handle = handle
        self._dead_letters = dead_letters
        self._give_up = give_up
        self._queue: asyncio.Queue[Delivery] = asyncio.Queue()
        self._running: dict[Delivery, float] = {}
        # Deliveries whose lease may have run out unnoticed: this process stood still, or was cut off.
        self._doubtful: set[Delivery] = set()
        self._renewed_at = 0.0
        self._pulls = PullRequests(
            connection, consumer.stream, consumer.durable, self._on_message, on_lost=self._on_lost, on_idle=self._heard
        )
        # When messages of late were acknowledged, and where to say so again.
        self._unsaid: list[bytes] = []
        self._acknowledged: deque[tuple[float, bytes]] = deque(maxlen=MAX_KEPT_ACKS)
        self._acks_in_doubt = False
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """How many deliveries are in hand."""
        return len(self._running)

    def start(self) -> None:
        """Starts the slots and asks for work."""
        self._tasks = [
            asyncio.create_task(self._slot(), name=f"slot-{self.consumer.durable}-{number}")
            for number in range(self.slots)
        ]
        self._tasks.append(asyncio.create_task(self._renew(), name=f"leases-{self.consumer.durable}"))
        self._renewed_at = asyncio.get_running_loop().time()
        self._connection.on_reconnect.append(self._doubt_all)
        self._pulls.start()
        self._top_up()

    async def drain(self, *, timeout_seconds: float) -> None:
        """Stops taking work, waits for what runs, and hands back at once what did not finish in time."""
        self._draining = True
        self._pulls.stop()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            log.warning("handing back unfinished work", consumer=self.consumer.durable, running=len(self._running))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._say_acks()
        for delivery in self._running:
            delivery.nak(0.0)
        if self._doubt_all in self._connection.on_reconnect:
            self._connection.on_reconnect.remove(self._doubt_all)

    def may_be_lost(self, delivery: Delivery) -> bool:
        """Whether a delivery's lease may have run out: this process stood still for an ack wait, or was cut off.

        Then somebody else may run the same work by now, and whoever holds the delivery looks before it acts.
        """
        stood_still = asyncio.get_running_loop().time() - self._renewed_at > self.consumer.ack_wait_seconds
        return stood_still or delivery in self._doubtful

    def _doubt_all(self) -> None:
        self._doubtful.update(self._running)

    def extend_until(self, delivery: Delivery, deadline_ms: int) -> None:
        """Names the time (Unix ms) after which the delivery's lease is no longer renewed."""
        if delivery in self._running:
            self._running[delivery] = deadline_ms / 1000

    def _on_lost(self, reason: str) -> None:
        self._acks_in_doubt = self._acks_in_doubt or bool(reason)
        self._top_up()

    def _heard(self) -> None:
        """Says again what may not have been heard: an acknowledgement goes to the consumer's leader and dies with it.

        Without this the work would stand in its queue until its lease ends, though it was done long ago.
        """
        if not self._acks_in_doubt:
            return
        self._acks_in_doubt = False
        since = asyncio.get_running_loop().time() - self.consumer.ack_wait_seconds
        for at, reply in self._acknowledged:
            if at > since:
                acknowledge(self._connection, reply)

    def _on_message(self, subject: bytes, reply: bytes, payload: bytes, block: bytes | None) -> None:
        self._heard()
        delivery = Delivery(self._connection, subject, reply, payload, block)
        delivery.on_ack = self._ack_later
        self._running[delivery] = 0.0
        self._idle.clear()
        self._queue.put_nowait(delivery)

    def _ack_later(self, reply: bytes) -> None:
        """Acknowledges with the others of a moment.

        A work queue that an acknowledgement empties gives its file up and makes another, which costs the broker as much
        as the message did; and the answer that a client waits for goes out at the same time.
        """
        self._unsaid.append(reply)
        if len(self._unsaid) == 1:
            asyncio.get_running_loop().call_later(ACK_LINGER_SECONDS, self._say_acks)

    def _say_acks(self) -> None:
        unsaid, self._unsaid = self._unsaid, []
        for reply in unsaid:
            acknowledge(self._connection, reply)

    def _top_up(self) -> None:
        if self._draining:
            return
        requested = self._pulls.requested
        free = self.slots - len(self._running) - requested
        # Ask in lumps: one request for many messages costs what one for one message does.
        if free > 0 and (free >= self.slots // 4 or requested <= self.slots // 4):
            self._pulls.want(free)

    async def _slot(self) -> None:
        while True:
            delivery = await self._queue.get()
            try:
                await self._handle(delivery)
            except asyncio.CancelledError:
                raise
            except ContractError as error:
                await self._bury(delivery, error.code, str(error))
            except Exception as error:  # any failure of a handler must cost its message only
                await self._failed(delivery, error)
            if delivery.is_acknowledged:
                self._acknowledged.append((asyncio.get_running_loop().time(), delivery.reply))
            self._running.pop(delivery, None)
            self._doubtful.discard(delivery)
            if not self._running:
                self._idle.set()
            self._top_up()

    async def _failed(self, delivery: Delivery, error: Exception) -> None:
        log.error("handler failed", subject=delivery.subject, delivered=delivery.delivered, exc_info=error)
        if self._is_last(delivery):
            # What was given a deadline keeps its lease until its dead letter stands.
            self._running[delivery] = 0.0
            await self._tell_given_up(delivery, error)
            await self._bury(delivery, "handler_failed", f"{type(error).__name__} on delivery {delivery.delivered}")
        else:
            cap = min(MAX_BACKOFF_SECONDS, 0.5 * 2**delivery.delivered)
            delivery.nak(random.uniform(0.05, cap))  # noqa: S311 - jitter

    def _is_last(self, delivery: Delivery) -> bool:
        return 0 < self.consumer.max_deliver <= delivery.delivered

    async def _tell_given_up(self, delivery: Delivery, error: Exception) -> None:
        if self._give_up is None:
            return
        try:
            await self._give_up(delivery, error)
        except Exception as failure:  # a slot that ended here would keep its message and its lease for ever
            log.error("giving up failed", subject=delivery.subject, exc_info=failure)

    async def _bury(self, delivery: Delivery, cause: str, detail: str) -> None:
        while not await self._dead_letters.bury(delivery, cause, detail):
            if not self._is_last(delivery):
                delivery.nak(random.uniform(1.0, MAX_BACKOFF_SECONDS))  # noqa: S311 - jitter
                return
            # Handed back now, it would stand in the queue and never be delivered again.
            await asyncio.sleep(random.uniform(0.2, 2.0))  # noqa: S311 - jitter
        await delivery.ack_sync()

    async def _renew(self) -> None:
        period = self.consumer.ack_wait_seconds / 3
        while True:
            await asyncio.sleep(period)
            now = time.time()
            loop_now = asyncio.get_running_loop().time()
            if loop_now - self._renewed_at > self.consumer.ack_wait_seconds:
                self._doubt_all()
            self._renewed_at = loop_now
            for delivery, deadline in list(self._running.items()):
                if deadline == 0.0 or now < deadline:
                    delivery.in_progress()
