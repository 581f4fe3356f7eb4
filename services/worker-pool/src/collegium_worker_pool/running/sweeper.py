"""The backstop of the work queue: messages that the broker delivers no more.

A worker gives up on its last delivery and buries the message itself; where it was killed on that very delivery, the
broker hides the message for ever. Two looks find it: the broker's advisory, kept in ADVISORIES and shared by all
replicas, and a comparison of the stream with its consumers, for advisories that were never written. What is found is
ended as a worker would have ended it: its task's attempt, a dead letter, and then the message is removed.

The comparison cannot be told which messages are in hand, only how many. So a message counts as stuck when it stood in
two looks running, was delivered before, and either nothing at all was in hand or its task's deadline is long past.
One rule: a message that a worker may still hold is left alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import msgspec
import structlog
from collegium_bus.delivery import Delivery
from collegium_bus.direct import Stored, as_delivered
from collegium_bus.errors import BrokerUnavailableError, BusError
from collegium_bus.work import WorkLoop
from collegium_contracts import consumers
from collegium_contracts import subjects as s
from collegium_contracts.codec import journey as messages
from collegium_contracts.errors import ContractError, UndecodableMessageError
from collegium_contracts.messages import RunAttempt
from collegium_runtime.platform import Platform
from collegium_telemetry import names

log = structlog.get_logger(__name__)

LOOK_SECONDS = 30.0
# Oldest messages of a pool that one look goes through; what lies behind them is seen when they are gone.
LOOK_MESSAGES = 256
# Beyond a deadline no lease is renewed, so after two of them nobody holds the message.
LONG_PAST_MS = 40_000
SLOTS = 2
_DRAIN_SECONDS = 5.0
_GONE = (10043, 10057)

T = TypeVar("T")
GiveUp = Callable[[Delivery, Exception], Awaitable[None]]


class NeverAnsweredError(Exception):
    """Every delivery of a message ended without an answer: its workers were killed or stopped with it in hand."""


class Advisory(msgspec.Struct, frozen=True):
    """The broker's word that a consumer has delivered a message as often as it may."""

    stream: str
    consumer: str
    stream_seq: int
    deliveries: int = 0


class _Floor(msgspec.Struct):
    stream_seq: int = 0


class _Consumer(msgspec.Struct):
    """What a look needs of a consumer's state."""

    delivered: _Floor = msgspec.field(default_factory=_Floor)
    num_ack_pending: int = 0
    num_pending: int = 0


class _State(msgspec.Struct):
    subjects: dict[str, int] = {}


class _Stream(msgspec.Struct):
    state: _State = msgspec.field(default_factory=_State)


_advisory = msgspec.json.Decoder(Advisory)


def stuck(seen: Iterable[int], seen_before: Iterable[int], in_hand: int, expired: Iterable[int]) -> list[int]:
    """Returns which sequences are stuck: seen in both looks, while nothing is in hand or after their deadline."""
    twice = set(seen) & set(seen_before)
    return sorted(twice if in_hand == 0 else twice & set(expired))


class Sweeper:
    """Ends what the broker delivers no more; every replica may run one."""

    def __init__(
        self, platform: Platform, pools: Iterable[str], give_up: GiveUp, *, look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._platform = platform
        self._give_up = give_up
        self._look_seconds = look_seconds
        self._consumers = [consumers.work_consumer(pool) for pool in pools]
        self._seen: dict[str, set[int]] = {}
        self._stuck = platform.metrics.gauges(
            names.METRIC_STUCK_MESSAGES, "Messages that stand and are delivered no more", ("stream",)
        )
        self._stuck[s.WORK].set(0)
        self._advisories = WorkLoop(
            platform.connection, consumers.consumer("sweeper"), self._on_advisory, platform.dead_letters, slots=SLOTS
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Takes advisories, and looks from time to time."""
        self._advisories.start()
        self._task = asyncio.create_task(self._look_for_ever(), name="sweeper")

    async def stop(self) -> None:
        """Stops; an advisory in hand comes again to the next who asks."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._advisories.drain(timeout_seconds=_DRAIN_SECONDS)

    async def _on_advisory(self, delivery: Delivery) -> None:
        try:
            advisory = _advisory.decode(delivery.payload)
        except msgspec.DecodeError as error:
            raise UndecodableMessageError(f"{delivery.subject} holds no advisory: {error}") from None
        if advisory.stream == s.WORK:
            stored = await self._platform.direct.at(s.WORK, advisory.stream_seq)
            if stored is not None:
                await self._end(stored, advisory.consumer, advisory.deliveries)
        else:
            log.warning("a message is delivered no more", stream=advisory.stream, consumer=advisory.consumer)
        delivery.ack()

    async def _look_for_ever(self) -> None:
        while True:
            # Replicas do not look in step.
            await asyncio.sleep(self._look_seconds * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            found = 0
            for consumer in self._consumers:
                try:
                    found += await self._look(consumer)
                except (BusError, msgspec.DecodeError) as error:
                    log.warning("look for stuck messages failed", consumer=consumer.durable, error=str(error))
            self._stuck[s.WORK].set(found)

    async def _look(self, consumer: consumers.Consumer) -> int:
        """Looks at one pool's part of the queue once; returns how many messages were stuck there."""
        # In this order: what is acknowledged in between is then missed, and nothing is counted that was just published.
        state = await self._state(f"CONSUMER.INFO.{s.WORK}.{consumer.durable}", b"", _Consumer)
        wanted = msgspec.json.encode({"subjects_filter": consumer.filters[0]})
        stream = await self._state(f"STREAM.INFO.{s.WORK}", wanted, _Stream)
        hidden = sum(stream.state.subjects.values()) - state.num_pending - state.num_ack_pending
        standing = await self._standing(consumer, state.delivered.stream_seq) if hidden > 0 else []
        before, self._seen[consumer.durable] = (
            self._seen.get(consumer.durable, set()),
            {stored.sequence for stored in standing},
        )
        now = self._platform.now_ms()
        expired = [one.sequence for one in standing if await self._is_long_past(one, now)]
        ended = stuck(self._seen[consumer.durable], before, state.num_ack_pending, expired)
        by_sequence = {stored.sequence: stored for stored in standing}
        for sequence in ended:
            log.error("found a stuck message", stream=s.WORK, consumer=consumer.durable, sequence=sequence)
            await self._end(by_sequence[sequence], consumer.durable, consumer.max_deliver)
        return len(ended)

    async def _state(self, subject: str, body: bytes, kind: type[T]) -> T:
        raw = await self._platform.connection.api(subject, body)
        if error := msgspec.json.decode(raw).get("error"):
            raise BrokerUnavailableError(f"{subject}: {error.get('description')}")
        return msgspec.json.decode(raw, type=kind)

    async def _standing(self, consumer: consumers.Consumer, delivered_sequence: int) -> list[Stored]:
        """Reads the oldest messages of a pool that were delivered at least once."""
        found: list[Stored] = []
        sequence = 0
        while len(found) < LOOK_MESSAGES:
            stored = await self._platform.direct.after(s.WORK, sequence, consumer.filters[0])
            if stored is None or stored.sequence > delivered_sequence:
                break
            found.append(stored)
            sequence = stored.sequence
        return found

    async def _is_long_past(self, stored: Stored, now_ms: int) -> bool:
        try:
            claim = stored.headers.get(s.H_CLAIM)
            run = messages.decode(await self._platform.claims.get(claim) if claim else stored.payload)
        except ContractError:
            return False
        return isinstance(run, RunAttempt) and now_ms > run.task.deadline_ms + LONG_PAST_MS

    async def _end(self, stored: Stored, consumer: str, delivered: int) -> None:
        """Ends a message's attempt, buries it, removes it: each can be done again by another replica."""
        delivery = as_delivered(self._platform.connection, stored, s.WORK, consumer, delivered)
        await self._give_up(delivery, NeverAnsweredError(f"delivered {delivered} times without an answer"))
        buried = await self._platform.dead_letters.bury(
            delivery, "never_answered", f"delivered {delivered} times; no worker answered for it"
        )
        if not buried:
            raise BrokerUnavailableError(f"message {stored.sequence} of {s.WORK} can not be dead-lettered now")
        body = msgspec.json.encode({"seq": stored.sequence})
        reply_body = msgspec.json.decode(await self._platform.connection.api(f"STREAM.MSG.DELETE.{s.WORK}", body))
        error = reply_body.get("error")
        if error is not None and error.get("err_code") not in _GONE:
            raise BrokerUnavailableError(f"message {stored.sequence} of {s.WORK}: {error.get('description')}")
