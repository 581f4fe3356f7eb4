"""Telling billing which keys were used: in batches, away from every request.

One rule: when a key was used last is known to about half a minute, and no request pays for it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from itertools import islice

import structlog
from collegium_bus.ask import ask
from collegium_bus.connection import Connection
from collegium_bus.errors import BusError
from collegium_contracts import subjects as s
from collegium_contracts.identity import KeysUsed, Noted

from collegium_gateway.identity.principal import KeyBook

log = structlog.get_logger(__name__)

EVERY_SECONDS = 30.0
BATCH = 5_000


class KeyUse:
    """Reports used keys as long as it runs; what cannot be told is told the next time."""

    def __init__(
        self,
        connection: Connection,
        keys: KeyBook,
        now_ms: Callable[[], int],
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._now_ms = now_ms
        self._every_seconds = every_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts."""
        self._task = asyncio.create_task(self._run(), name="key-use")

    async def stop(self) -> None:
        """Stops, after one last report."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.report()

    async def report(self) -> None:
        """Tells what was used since the last time."""
        used, self._keys.used = self._keys.used, set()
        while used:
            batch = set(islice(used, BATCH))
            try:
                told = KeysUsed(keys=sorted(batch), at_ms=self._now_ms())
                await ask(self._connection, s.SVC_BILLING_KEYS_USED, told, Noted)
            except BusError as error:
                self._keys.used |= used
                log.info("use of keys not noted yet", keys=len(used), error=type(error).__name__)
                return
            used -= batch

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.8, 1.2) * self._every_seconds)  # noqa: S311 - jitter
            await self.report()
