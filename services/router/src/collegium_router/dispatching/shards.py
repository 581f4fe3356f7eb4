"""The INGRESS shards that this router owns: leases, readers, and the permits of what was dispatched before.

A shard that was just taken is read at once and its messages are kept back until WORK was listed: what stands there was
dispatched already, by this router or the owner before, and holds its permits. One rule: nothing of a shard is
dispatched before its share of the permits is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from collegium_bus.errors import BusError
from collegium_bus.ingress import IngressShard
from collegium_bus.kv import Bucket
from collegium_bus.leases import LeaseHolder
from collegium_contracts import subjects as s
from collegium_contracts.ids import SHARDS, shard_of
from collegium_runtime.platform import Platform

from collegium_router.dispatching.dispatch import Dispatcher
from collegium_router.dispatching.resuming import Resuming
from collegium_router.limits.permits import AttemptKey, Permits
from collegium_router.limits.standing import standing_work
from collegium_router.queue.intake import Intake, Queued

log = structlog.get_logger(__name__)

RECONCILE_SECONDS = 10.0
# How often it is looked whether everything waits for permits that nobody gives back.
STALL_LOOK_SECONDS = 2.0


class Shards:
    """Owns shards; ``on_change`` is told the numbers owned whenever they change."""

    def __init__(
        self,
        platform: Platform,
        dispatcher: Dispatcher,
        permits: Permits,
        *,
        on_change: Callable[[frozenset[int]], None],
    ) -> None:
        self._platform = platform
        self._dispatcher = dispatcher
        self._permits = permits
        self._on_change = on_change
        self._intake = Intake(platform, self._accept)
        self._shards: dict[str, IngressShard] = {}
        # Messages of shards that were taken since WORK was listed last.
        self._kept: dict[int, list[Queued]] = {}
        self._list_now = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._leases = LeaseHolder(
            Bucket(platform.connection, s.KV_OWNERS),
            platform.instance,
            [_name(shard) for shard in SHARDS],
            on_gained=self._gained,
            on_lost=self._lost,
        )
        self._resuming = Resuming(platform, self.owns_queued, self._enter)
        dispatcher.still_ours = self.owns_queued

    async def start(self) -> None:
        """Takes what is free."""
        self._task = asyncio.create_task(self._keep_reconciled(), name="reconcile")
        await self._leases.start()

    async def stop(self) -> None:
        """Gives the shards back."""
        await self._leases.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._intake.stop()
        await self._resuming.stop()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def owns(self, tenant: str) -> bool:
        """Whether a tenant's tasks are dispatched by this router at this moment."""
        return self.holds(shard_of(tenant))

    def holds(self, shard: int) -> bool:
        """Whether a shard's lease is this router's at this moment."""
        return self._leases.holds(_name(shard))

    def owns_queued(self, queued: Queued) -> bool:
        """Whether a queued message's shard is still held, by the very lease it was read under."""
        name = _name(queued.shard.shard)
        return self._shards.get(name) is queued.shard and self._leases.holds(name)

    def _gained(self, name: str, _epoch: int) -> None:
        number = int(name.rpartition("-")[2])
        shard = IngressShard(self._platform.connection, number, lambda delivery: self._intake.receive(shard, delivery))
        self._shards[name] = shard
        self._kept[number] = []
        self._list_now.set()
        shard.start()
        self._tell()

    def _lost(self, name: str) -> None:
        shard = self._shards.pop(name, None)
        if shard is None:
            return
        self._kept.pop(shard.shard, None)
        self._dispatcher.drop(lambda queued: queued.shard is not shard)
        closing = asyncio.create_task(shard.stop())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._tell()

    def _tell(self) -> None:
        self._on_change(frozenset(shard.shard for shard in self._shards.values()))

    def _accept(self, queued: Queued) -> None:
        kept = self._kept.get(queued.shard.shard)
        if kept is not None:
            kept.append(queued)
        elif self._shards.get(_name(queued.shard.shard)) is queued.shard:
            self._enter(queued)

    def _enter(self, queued: Queued) -> None:
        if queued.replayed and queued.task.open_to:
            self._resuming.begin(queued)
            return
        # Of a panel, the members after the first may not have been sent; sending all again changes nothing. What
        # consensus asked for again, after longer than the broker remembers, may be running.
        if (queued.replayed or queued.goes_on) and queued.is_one_attempt and self._permits.holds(queued.first_try):
            queued.shard.finish(queued.subject, queued.sequence)
        else:
            self._dispatcher.accept(queued)

    async def _keep_reconciled(self) -> None:
        """Lists WORK when a shard was taken, and every now and then, and makes the permits agree with it."""
        loop = asyncio.get_running_loop()
        listed_at = loop.time()
        seen: frozenset[AttemptKey] = frozenset()
        while True:
            try:
                async with asyncio.timeout(STALL_LOOK_SECONDS):
                    await self._list_now.wait()
            except TimeoutError:
                if loop.time() - listed_at < RECONCILE_SECONDS and not self._dispatcher.is_stalled:
                    continue
            self._list_now.clear()
            listed_at = loop.time()
            taken = list(self._kept)
            now = self._platform.now_ms()
            try:
                standing = await standing_work(self._platform.direct, now)
            except BusError as error:
                log.warning("work not listed, trying again", error=str(error))
                if taken:
                    await asyncio.sleep(0.2)
                    self._list_now.set()
                continue
            added, dropped = self._permits.reconcile(standing, self.owns, now, seen_before=None if taken else seen)
            seen = frozenset(permit.key for permit in standing)
            if dropped or (added and not taken):
                log.info("permits reconciled", added=added, dropped=dropped, in_use=self._permits.in_use)
            for number in taken:
                for queued in self._kept.pop(number, ()):
                    self._enter(queued)
            self._dispatcher.pump()


def _name(shard: int) -> str:
    return f"ingress-{shard}"
