"""Keeping what was spent: of each shard, what learning earned and may have cost, and debts against targets.

The owner of a shard counts in memory and writes what changed about once a second into the bucket ``spending``, one
value a shard; who takes a shard adds what stands there to what it has counted since. What was counted in the second
before a process died is forgotten. A write whose acknowledgement was lost, or a former owner's late one, may stand
where the owner expects its own last: it writes over that. One rule: nothing is written of a shard before what stood of
it when it was taken was read.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

import structlog
from collegium_bus.errors import AlreadyStandsError, BusError
from collegium_bus.kv import Bucket, Entry
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.spending import SpendingKept
from collegium_runtime.platform import Platform

from collegium_router.choosing.policies import Policies
from collegium_router.dispatching.probes import Probes

log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 1.0


class SpendingKeeper:
    """Reads and writes what was spent; ``own`` says of which shards, ``holds`` whether the lease of one stands now."""

    def __init__(self, platform: Platform, probes: Probes, policies: Policies, holds: Callable[[int], bool]) -> None:
        self._platform = platform
        self._probes = probes
        self._policies = policies
        self._holds = holds
        self._bucket = Bucket(platform.connection, s.KV_SPENDING)
        self._wanted: frozenset[int] = frozenset()
        # By shard, once read: the revision of what stands, and what it says.
        self._standing: dict[int, tuple[int, SpendingKept]] = {}
        self._soon = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins."""
        self._task = asyncio.create_task(self._run(), name="spending")

    async def stop(self) -> None:
        """Writes what is owned, and stops."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        # The write that was just broken off may stand: then the first look learns of it, and the second writes.
        await self.look()
        await self.look()

    def own(self, shards: frozenset[int]) -> None:
        """Keeps these shards from now on; what was counted of others is forgotten here, it is another's to count."""
        for shard in self._wanted - shards:
            self._standing.pop(shard, None)
            self._probes.forget(shard)
            self._policies.forget_spending(shard)
        self._wanted = shards
        self._soon.set()

    async def look(self) -> None:
        """Reads what was not read yet, and writes what has changed; what fails is told, and waits for another look."""
        await asyncio.gather(*(self._look_at(shard) for shard in self._wanted))

    async def _look_at(self, shard: int) -> None:
        try:
            if shard not in self._standing:
                await self._read(shard)
            elif self._kept(shard) != self._standing[shard][1]:
                await self._write(shard)
        except (BusError, ContractError) as error:
            log.warning("what was spent is not kept, trying again", shard=shard, error=str(error))

    async def _run(self) -> None:
        while True:
            await self.look()
            try:
                async with asyncio.timeout(ROUND_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
                    await self._soon.wait()
            except TimeoutError:
                pass
            self._soon.clear()

    async def _read(self, shard: int) -> None:
        wanted = self._wanted
        revision, kept = await self._newest(shard)
        if self._wanted is not wanted:
            # Another may have owned it since, and written: it is read again.
            return
        self._standing[shard] = (revision, kept)
        if kept.at_ms:
            self._probes.load(kept)
            self._policies.load_spending(kept, self._platform.now_ms())

    async def _newest(self, shard: int) -> tuple[int, SpendingKept]:
        """Returns the revision of what stands of a shard (0: nothing, not even the mark of a deletion), and its value
        (``at_ms`` 0: none that can be read)."""
        entry: Entry | None = None
        async for one in self._bucket.entries(str(shard)):
            entry = one
        nothing = SpendingKept(shard=shard, at_ms=0)
        if entry is None or entry.deleted:
            return (entry.revision if entry is not None else 0), nothing
        try:
            value = codec.state.decode(entry.value)
        except ContractError as error:
            log.error("what was spent is unreadable, counted anew", shard=shard, error=str(error))
            return entry.revision, nothing
        return entry.revision, value if isinstance(value, SpendingKept) else nothing

    def _kept(self, shard: int) -> SpendingKept:
        earned, spent, out = self._probes.kept(shard)
        debts = self._policies.spending_of(shard)
        standing = self._standing[shard][1]
        return SpendingKept(
            shard=shard, at_ms=standing.at_ms, earned_picos=earned, spent_picos=spent, out=out, debts=debts
        )

    async def _write(self, shard: int) -> None:
        kept = self._kept(shard)
        value = SpendingKept(
            shard=shard, at_ms=self._platform.now_ms(), earned_picos=kept.earned_picos, spent_picos=kept.spent_picos,
            out=kept.out, debts=kept.debts,
        )  # fmt: skip
        began = self._standing[shard]
        try:
            revision = await self._bucket.put(
                str(shard), codec.encode(value), expected_revision=began[0], budget_seconds=2.0
            )
            now = (revision, value)
        except AlreadyStandsError:
            now = await self._newest(shard)
            if not self._holds(shard):
                # Another router counts it: this one's lease is over, or it was not told yet.
                log.info("what was spent is kept by another", shard=shard)
                return
        # Where the shard was lost meanwhile, and even taken again, this says nothing of what stands.
        if self._standing.get(shard) is began:
            self._standing[shard] = now
