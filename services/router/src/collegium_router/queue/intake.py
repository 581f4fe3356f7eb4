"""From INGRESS messages to queue entries: decoded, claims redeemed, what cannot be read dead-lettered.

A shard that was just taken is replayed: its messages are kept back until WORK was listed, because some of them were
dispatched by the owner before. One rule: every message of a shard ends as an entry of the queue or as a dead letter.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import structlog
from collegium_bus.delivery import Delivery
from collegium_bus.errors import BusError
from collegium_bus.ingress import IngressShard
from collegium_contracts import subjects as s
from collegium_contracts.codec import journey
from collegium_contracts.errors import ContractError, TaskError
from collegium_contracts.messages import AttemptRequested, TaskRef, TaskSubmitted
from collegium_contracts.plans import SEVERAL
from collegium_runtime.platform import Platform

from collegium_router.limits.permits import AttemptKey

log = structlog.get_logger(__name__)


class Queued(msgspec.Struct, eq=False, kw_only=True):
    """One message of INGRESS: a new task, an attempt to be made again, or one that consensus asks for.

    ``replayed`` marks what stood when this owner took the shard: it may have been dispatched, and even settled, before,
    beyond what the broker's duplicate window remembers.
    """

    message: TaskSubmitted | AttemptRequested
    shard: IngressShard
    subject: str
    sequence: int
    traceparent: str
    replayed: bool

    @property
    def task(self) -> TaskRef:
        """The task concerned."""
        return self.message.task if isinstance(self.message, TaskSubmitted) else self.message.run.task

    @property
    def first_try(self) -> AttemptKey:
        """The first try that this message leads to."""
        if isinstance(self.message, TaskSubmitted):
            return AttemptKey(self.message.task.id, 1, 1)
        run = self.message.run
        return AttemptKey(run.task.id, run.attempt.number, run.try_number + 1)

    @property
    def is_one_attempt(self) -> bool:
        """Whether the message leads to one attempt, so that all of it was dispatched where that one stands in WORK."""
        if isinstance(self.message, AttemptRequested):
            return True
        return self.message.task.plan not in SEVERAL and not self.message.task.open_to

    @property
    def goes_on(self) -> bool:
        """Whether consensus asks for one more attempt of a plan that has begun."""
        return isinstance(self.message, AttemptRequested) and self.message.error is None

    @property
    def error(self) -> TaskError | None:
        """Why the try before this one failed; none where there was none."""
        return self.message.error if isinstance(self.message, AttemptRequested) else None

    @property
    def key(self) -> str:
        """Names the entry in the queue."""
        return ".".join(map(str, self.first_try))


class Intake:
    """Receives the deliveries of all shards that this router owns."""

    def __init__(self, platform: Platform, accept: Callable[[Queued], None]) -> None:
        self._platform = platform
        self._accept = accept
        self._working: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Stops what is being fetched or buried; it stays in INGRESS."""
        for task in list(self._working):
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)

    def receive(self, shard: IngressShard, delivery: Delivery) -> None:
        """Takes one message."""
        if delivery.header(s.H_CLAIM):
            self._begin(self._redeem(shard, delivery))
            return
        try:
            self._enter(shard, delivery, delivery.payload)
        except ContractError as error:
            self._begin(self._bury(shard, delivery, error))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    def _enter(self, shard: IngressShard, delivery: Delivery, payload: bytes) -> None:
        message = journey.decode(payload)
        if not isinstance(message, TaskSubmitted | AttemptRequested):
            raise ContractError(f"{type(message).__name__} on {delivery.subject}, where no such message may stand")
        queued = Queued(
            message=message,
            shard=shard,
            subject=delivery.subject,
            sequence=delivery.sequence,
            traceparent=delivery.header(s.TRACEPARENT),
            replayed=not shard.caught_up.is_set(),
        )
        self._accept(queued)

    async def _redeem(self, shard: IngressShard, delivery: Delivery) -> None:
        while True:
            try:
                self._enter(shard, delivery, await self._platform.claims.get(delivery.header(s.H_CLAIM)))
            except ContractError as error:
                await self._bury(shard, delivery, error)
            except BusError as error:
                log.warning("claim not redeemed, trying again", subject=delivery.subject, error=str(error))
                await asyncio.sleep(random.uniform(0.2, 2.0))  # noqa: S311 - jitter
                continue
            return

    async def _bury(self, shard: IngressShard, delivery: Delivery, error: ContractError) -> None:
        while not await self._platform.dead_letters.bury(delivery, error.code, str(error)):  # noqa: ASYNC110 - a retry
            await asyncio.sleep(random.uniform(0.5, 3.0))  # noqa: S311 - jitter
        shard.finish(delivery.subject, delivery.sequence)
