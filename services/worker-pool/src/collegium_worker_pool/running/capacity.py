"""Telling the routers how much this worker can take, so that they dispatch no more than that.

One rule: a worker that stops says so first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import structlog
from collegium_bus.errors import BrokerUnavailableError
from collegium_bus.work import WorkLoop
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.messages import WorkerCapacity
from collegium_runtime.platform import Platform

log = structlog.get_logger(__name__)

ANNOUNCE_SECONDS = 1.0
_MEMINFO = Path("/proc/meminfo")


class Announcer:
    """Announces each pool's slots every second."""

    def __init__(self, platform: Platform, loops: Mapping[str, WorkLoop]) -> None:
        self._platform = platform
        self._loops = loops
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Announces now, and then every second."""
        self._task = asyncio.create_task(self._run(), name="capacity")

    async def stop(self) -> None:
        """Says that nothing more is taken."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._announce(0)

    async def _run(self) -> None:
        while True:
            self._announce(None)
            await asyncio.sleep(ANNOUNCE_SECONDS)

    def _announce(self, slots: int | None) -> None:
        worker = self._platform.connection.instance
        memory_ratio = memory_in_use()
        for pool, loop in self._loops.items():
            message = WorkerCapacity(
                pool=pool,
                worker=worker,
                slots=loop.slots if slots is None else slots,
                running=loop.running,
                memory_ratio=memory_ratio,
            )
            try:
                self._platform.connection.publish(s.capacity(pool, worker), encode(message))
            except BrokerUnavailableError as error:
                log.info("capacity not announced", pool=pool, error=str(error))


def memory_in_use() -> float:
    """Returns the share of this machine's memory that is in use, from 0 to 1; 0 where it cannot be told."""
    try:
        lines = _MEMINFO.read_text().splitlines()
        kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
        return 1 - kilobytes["MemAvailable"] / kilobytes["MemTotal"]
    except (OSError, ValueError, LookupError, ZeroDivisionError):
        return 0.0
