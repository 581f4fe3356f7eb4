"""Leases on names in a bucket: one owner at a time, with an epoch that grows at every change of hands.

A lease is a value {owner, epoch, expires}; taking and renewing are compare-and-sets on the value's revision, so two
owners are impossible at the broker. An owner that could not renew before its own expiry (by its own clock, less a
margin) stops acting. Everybody else takes a lease that they have seen unrenewed for a lease and a margin. An owner that
comes back under its own name takes its leases at once: the epoch grows, and a leftover of its former life is refused
at its next renewal. One rule: time is compared only with time of the same process, so it does not matter by how much
the clocks of two machines differ.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

import msgspec
import structlog

from collegium_bus.errors import AlreadyStandsError, BusError
from collegium_bus.kv import Bucket

log = structlog.get_logger(__name__)

LEASE_SECONDS = 6.0
CLOCK_MARGIN_SECONDS = 1.0


class Lease(msgspec.Struct, frozen=True):
    """Who holds a name, since which epoch, until when (seconds of the owner's own clock, of no meaning to others)."""

    owner: str
    epoch: int
    expires: float


class LeaseHolder:
    """Holds what is free of the given names, renews it, and tells when a name is gained (with its epoch) or lost."""

    def __init__(
        self,
        bucket: Bucket,
        owner: str,
        names: Sequence[str],
        *,
        on_gained: Callable[[str, int], None],
        on_lost: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bucket = bucket
        self._owner = owner
        self._names = list(names)
        self._on_gained = on_gained
        self._on_lost = on_lost
        self._now = now
        self._held: dict[str, tuple[Lease, int]] = {}
        # Of what others hold: the newest revision seen, and since when by this process's clock.
        self._seen: dict[str, tuple[int, float]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def held(self) -> frozenset[str]:
        """The names held now."""
        return frozenset(self._held)

    def holds(self, name: str) -> bool:
        """Whether a name is held at this moment, by this process's own clock; asked before every act in its name."""
        held = self._held.get(name)
        return held is not None and held[0].expires - CLOCK_MARGIN_SECONDS > self._now()

    async def start(self) -> None:
        """Takes what is free, then renews and looks for freed names until stopped."""
        await self._round()
        self._task = asyncio.create_task(self._run(), name=f"leases-{self._bucket.name}")

    async def stop(self) -> None:
        """Gives every lease back, so that the next owner need not wait for the expiry."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for name, (lease, revision) in list(self._held.items()):
            freed = Lease("", lease.epoch, 0.0)
            try:
                await self._bucket.put(name, msgspec.json.encode(freed), expected_revision=revision, budget_seconds=1.0)
            except BusError as error:
                log.info("lease not given back", name=name, error=str(error))
            self._lose(name)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3 * random.uniform(0.8, 1.0))  # noqa: S311 - jitter
            await self._round()

    async def _round(self) -> None:
        for name in self._names:
            try:
                if name in self._held:
                    await self._renew(name)
                if name not in self._held:
                    await self._take(name)
            except BusError as error:
                log.warning("lease round failed", name=name, error=str(error))
            self._lose_if_lapsed(name)

    async def _renew(self, name: str) -> None:
        self._lose_if_lapsed(name)
        if name not in self._held:
            return
        lease, revision = self._held[name]
        renewed = Lease(self._owner, lease.epoch, self._now() + LEASE_SECONDS)
        try:
            revision = await self._bucket.put(
                name, msgspec.json.encode(renewed), expected_revision=revision, budget_seconds=2.0
            )
        except AlreadyStandsError:
            self._lose(name)
        else:
            # Where it lapsed while the broker was asked, work was refused in its name: it is taken anew, and told so.
            self._lose_if_lapsed(name)
            if name in self._held:
                self._held[name] = (renewed, revision)

    async def _take(self, name: str) -> None:
        entry = await self._bucket.get(name)
        standing = msgspec.json.decode(entry.value, type=Lease) if entry is not None else Lease("", 0, 0.0)
        if entry is not None and standing.owner not in ("", self._owner) and self._is_alive(name, entry.revision):
            return
        lease = Lease(self._owner, standing.epoch + 1, self._now() + LEASE_SECONDS)
        try:
            revision = await self._bucket.put(
                name,
                msgspec.json.encode(lease),
                expected_revision=0 if entry is None else entry.revision,
                budget_seconds=2.0,
            )
        except AlreadyStandsError:
            return
        self._held[name] = (lease, revision)
        log.info("lease taken", name=name, owner=self._owner, epoch=lease.epoch)
        self._on_gained(name, lease.epoch)

    def _is_alive(self, name: str, revision: int) -> bool:
        """Whether the lease of another was renewed within the time that it lasts, as this process has watched."""
        now = self._now()
        seen = self._seen.get(name)
        if seen is None or seen[0] != revision:
            self._seen[name] = seen = (revision, now)
        return now - seen[1] < LEASE_SECONDS + CLOCK_MARGIN_SECONDS

    def _lose_if_lapsed(self, name: str) -> None:
        """Ends what could not be renewed in time: who asked :meth:`holds` was told no, so it must not just go on."""
        if name in self._held and not self.holds(name):
            self._lose(name)

    def _lose(self, name: str) -> None:
        if self._held.pop(name, None) is not None:
            log.info("lease ended", name=name, owner=self._owner)
            self._on_lost(name)
