"""Wiring of evolution: the pool, the fold of calls, the scoreboard."""

from __future__ import annotations

import asyncpg
from collegium_bus.events import EventLoop
from collegium_contracts import codec, consumers
from collegium_contracts.messages import JourneyMessage
from collegium_runtime.erasing import Erasing
from collegium_runtime.platform import Platform
from collegium_store import open_pool
from collegium_telemetry import names

from collegium_evolution.board import ScoreboardPublisher
from collegium_evolution.fold import Fold
from collegium_evolution.store import Store


class EvolutionApp:
    """Evolution as a service."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._pool: asyncpg.Pool | None = None
        self._loop: EventLoop[JourneyMessage] | None = None
        self._board: ScoreboardPublisher | None = None
        self._erasing: Erasing | None = None

    async def start(self) -> None:
        """Publishes the scoreboard as it stands, and folds events."""
        platform = self._platform
        consumer = consumers.consumer("scoreboard")
        self._pool = await open_pool(platform.database_url, application_name="collegium-evolution")
        store = Store(self._pool, consumer.durable)
        self._board = ScoreboardPublisher(store, platform.connection, consumer, platform.now_ms)
        fold = Fold(store, platform.dead_letters, platform.tracing, self._board.changed)
        self._loop = EventLoop(platform.connection, consumer, codec.journey, fold.handle, platform.dead_letters)
        self._erasing = Erasing(platform, {"evolution": store.erase})
        await self._erasing.start()
        self._board.start()
        self._loop.start()
        platform.metrics.watch_gauge(names.METRIC_QUEUE_DEPTH, lambda: self._loop.lag if self._loop is not None else 0)

    async def stop(self) -> None:
        """Takes no more events; what was not committed comes again to the next who asks."""
        if self._loop is not None:
            await self._loop.stop()
            self._loop = None
        if self._erasing is not None:
            await self._erasing.stop()
        if self._board is not None:
            await self._board.stop()
        if self._pool is not None:
            await self._pool.close()

    def readiness(self) -> dict[str, bool]:
        """Whether events are being folded."""
        return {"folding": self._loop is not None}


def build(platform: Platform) -> EvolutionApp:
    """Builds the service."""
    return EvolutionApp(platform)
