"""This router's slices of models and pools, kept in the bucket ``permits``.

One rule: where a slice could not be renewed before it expired, there is none.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

import structlog
from collegium_bus.errors import AlreadyStandsError, BusError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.state import Shares

from collegium_router.limits.slices import LEASE_MS, renew, without

log = structlog.get_logger(__name__)

ROUND_SECONDS = 1.0
# Taken as expired this long before the others do: they learn of a renewal a little later than it was made.
MARGIN_MS = 1_000


class Need(NamedTuple):
    """What a router knows of a resource: how much there is of it, how much it could use and uses."""

    capacity: int
    wanted: int
    in_use: int


class SliceHolder:
    """Renews this router's slices; ``needs`` returns every resource with its need, ``changed`` is told of growth."""

    def __init__(
        self,
        bucket: Bucket,
        me: str,
        needs: Callable[[], Mapping[str, Need]],
        *,
        changed: Callable[[], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._bucket = bucket
        self._me = me
        self._needs = needs
        self._changed = changed
        self._now_ms = now_ms
        self._standing: dict[str, tuple[Shares, int]] = {}
        # Of each resource and other router: the expiry that it wrote last, and since when it stands, by our clock.
        self._seen: dict[tuple[str, str], tuple[int, int]] = {}
        self._task: asyncio.Task[None] | None = None
        self._soon = asyncio.Event()

    async def start(self) -> None:
        """Takes the first slices, then renews them until stopped."""
        await self._round()
        self._task = asyncio.create_task(self._run(), name="slices")

    async def stop(self) -> None:
        """Gives the slices back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for resource, (standing, revision) in list(self._standing.items()):
            try:
                await self._bucket.put(
                    s.state_key(resource),
                    codec.encode(without(standing, self._me)),
                    expected_revision=revision,
                    budget_seconds=1.0,
                )
            except BusError as error:
                log.info("slice not given back", resource=resource, error=str(error))
        self._standing.clear()

    def permits(self, resource: str) -> int:
        """How many permits of a resource this router may use now."""
        entry = self._standing.get(resource)
        mine = entry[0].shares.get(self._me) if entry is not None else None
        if mine is None or mine.expires_ms - MARGIN_MS < self._now_ms():
            return 0
        return mine.permits

    def renew_soon(self) -> None:
        """Asks for a round before its time: a resource is new, or another's size."""
        self._soon.set()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(ROUND_SECONDS * random.uniform(0.8, 1.0)):  # noqa: S311 - jitter
                    await self._soon.wait()
            except TimeoutError:
                pass
            self._soon.clear()
            await self._round()

    async def _round(self) -> None:
        for resource, need in self._needs().items():
            before = self.permits(resource)
            if self._is_settled(resource, need):
                continue
            try:
                await self._renew(resource, need)
            except (BusError, ContractError) as error:
                log.warning("slice not renewed", resource=resource, error=str(error))
            if self.permits(resource) > before:
                self._changed()

    def _is_settled(self, resource: str, need: Need) -> bool:
        """Whether this router has the resource to itself, all of it, and for a while yet."""
        entry = self._standing.get(resource)
        if entry is None or entry[0].capacity != need.capacity:
            return False
        mine = entry[0].shares.get(self._me)
        alone = len(entry[0].shares) == 1 and mine is not None and mine.permits == need.capacity
        return alone and mine is not None and mine.expires_ms - self._now_ms() > LEASE_MS // 2

    async def _renew(self, resource: str, need: Need) -> None:
        key = s.state_key(resource)
        for _ in range(5):
            entry = await self._bucket.get(key)
            value = codec.state.decode(entry.value) if entry is not None else None
            standing = value if isinstance(value, Shares) else Shares(resource=resource, capacity=need.capacity)
            renewed = renew(
                standing,
                self._me,
                capacity=need.capacity,
                wanted=need.wanted,
                in_use=need.in_use,
                now_ms=self._now_ms(),
                gone=self._gone(standing),
            )
            try:
                revision = await self._bucket.put(
                    key,
                    codec.encode(renewed),
                    expected_revision=entry.revision if entry is not None else 0,
                    budget_seconds=2.0,
                )
            except AlreadyStandsError:
                continue
            self._standing[resource] = (renewed, revision)
            return

    def _gone(self, standing: Shares) -> set[str]:
        """Names the others whose slice was not renewed for as long as it lasts, as far as this router has watched.

        Their clocks are not compared with ours: one that is ahead would keep its slice long after its end.
        """
        now = self._now_ms()
        gone: set[str] = set()
        for key in [key for key in self._seen if key[0] == standing.resource and key[1] not in standing.shares]:
            del self._seen[key]
        for name, share in standing.shares.items():
            key = (standing.resource, name)
            seen = self._seen.get(key)
            if seen is None or seen[0] != share.expires_ms:
                self._seen[key] = seen = (share.expires_ms, now)
            if name != self._me and now - seen[1] >= LEASE_MS + MARGIN_MS:
                gone.add(name)
        return gone
