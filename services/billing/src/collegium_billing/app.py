"""Wiring of billing: the pool, the directory of tenants and keys, the fold of EVENTS, the answers."""

from __future__ import annotations

import asyncpg
from collegium_bus.events import EventLoop
from collegium_bus.kv import Bucket
from collegium_bus.shell import Answering
from collegium_contracts import codec, journey
from collegium_contracts import subjects as s
from collegium_contracts.messages import JourneyMessage
from collegium_runtime.platform import Platform
from collegium_store import open_pool
from collegium_telemetry import names

from collegium_billing.directory import Directory
from collegium_billing.fold import Fold
from collegium_billing.handlers import Questions
from collegium_billing.store import Store

MAX_BATCH = 1_000


class BillingApp:
    """Billing as a service."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._pool: asyncpg.Pool | None = None
        self._directory: Directory | None = None
        self._loop: EventLoop[JourneyMessage] | None = None
        self._answering: Answering | None = None

    async def start(self) -> None:
        """Publishes tenants and keys, then answers questions and folds events."""
        platform = self._platform
        self._pool = await open_pool(platform.database_url, application_name="collegium-billing")
        store = Store(self._pool)
        self._directory = Directory(store, Bucket(platform.connection, s.KV_TENANTS), platform.now_ms)
        await self._directory.start(platform.settings.tenants, platform.data_dir)
        questions = Questions(store, self._directory, list(platform.settings.tiers))
        self._answering = Answering(platform.connection, dict(questions.handlers()))
        await self._answering.start()
        fold = Fold(store, platform.dead_letters, platform.tracing)
        self._loop = EventLoop(
            platform.connection,
            journey.consumer("billing"),
            codec.journey,
            fold.handle,
            platform.dead_letters,
            max_batch=MAX_BATCH,
        )
        self._loop.start()
        platform.metrics.watch_gauge(names.EVENT_LAG, lambda: self._loop.lag if self._loop is not None else 0)

    async def stop(self) -> None:
        """Takes no more events and questions; what was not committed comes again to the next who asks."""
        if self._loop is not None:
            await self._loop.stop()
            self._loop = None
        if self._answering is not None:
            await self._answering.stop()
        if self._directory is not None:
            await self._directory.stop()
        if self._pool is not None:
            await self._pool.close()

    def readiness(self) -> dict[str, bool]:
        """Whether events are being booked, and gateways see every tenant as it is."""
        return {
            "booking": self._loop is not None,
            "tenants published": self._directory is not None and not self._directory.unpublished,
        }


def build(platform: Platform) -> BillingApp:
    """Builds the service."""
    return BillingApp(platform)
