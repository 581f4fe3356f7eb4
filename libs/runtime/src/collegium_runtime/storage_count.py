"""Telling what this service stores of each tenant: the database counts, one replica sums up and publishes.

One rule: a sum is published before its transaction ends, so that what is summed up is told, if need be twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any

import structlog
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.state import StorageUse
from collegium_store import storage
from collegium_store.storage import Stored

from collegium_runtime.platform import Platform

log = structlog.get_logger(__name__)

ROUND_SECONDS = 2.0


class StorageCount:
    """Publishes one schema's sums under the service's name; ``start`` and ``stop`` bracket its life."""

    def __init__(self, platform: Platform, pool: Any) -> None:
        self._platform = platform
        self._pool = pool
        self._part: str = platform.service
        self._bucket = Bucket(platform.connection, s.KV_STORAGE)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Tells of everything once, then of what changes."""
        self._task = asyncio.create_task(self._run(), name="storage-count")

    async def stop(self) -> None:
        """Stops; what was not told is told by the next."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        is_told = False
        while True:
            try:
                await self._round(everything=not is_told)
                is_told = True
            except Exception as error:  # a round that failed must not end the rounds
                log.warning("use of storage not told", part=self._part, error=type(error).__name__)
            await asyncio.sleep(ROUND_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def _round(self, *, everything: bool) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            if not await storage.take_turn(connection, self._part):
                return
            changed = await storage.fold(connection, self._part)
            await self._tell(await storage.totals(connection, self._part) if everything else changed)

    async def _tell(self, sums: Iterable[Stored]) -> None:
        for one in sums:
            use = StorageUse(tenant=one.tenant, part=self._part, items=max(0, one.items), bytes=max(0, one.bytes))
            value = codec.encode(use)
            key = f"{one.tenant}.{self._part}"
            standing = await self._bucket.get(key)
            if standing is None or standing.value != value:
                await self._bucket.put(key, value)
