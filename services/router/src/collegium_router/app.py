"""Wiring of the router: shards, the dispatcher, what it may use, schedules, and what tells it of ends."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import structlog
from collegium_bus.cancels import Cancellations
from collegium_bus.delivery import Delivery
from collegium_bus.errors import AlreadyStandsError
from collegium_bus.kv import Bucket, Entry
from collegium_bus.ordered import OrderedReader
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import CancelRequested, WorkerCapacity
from collegium_contracts.state import ModelRecord, Roster
from collegium_runtime.erasing import Erasing
from collegium_runtime.platform import Platform
from collegium_settings import Settings
from collegium_telemetry import names

from collegium_router.answers import QueueAnswers
from collegium_router.configured import records
from collegium_router.dispatch import Dispatcher
from collegium_router.erasing import erase
from collegium_router.permits import Permits
from collegium_router.pricing import PriceAnswers
from collegium_router.quota_windows import QuotaKeeper
from collegium_router.resources import Resources
from collegium_router.roster import merge
from collegium_router.schedules import Schedules
from collegium_router.shards import Shards
from collegium_router.shares import Need, SliceHolder

log = structlog.get_logger(__name__)

ENDS = (s.TASK_SETTLED_ALL, s.ATTEMPT_ENDED_ALL, s.ATTEMPT_RETRIED_ALL, s.ATTEMPT_DISCARDED_ALL)


class RouterApp:
    """The router as a service."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        connection = platform.connection
        self._permits = Permits()
        self._schedules = Schedules(platform, self._roster_models)
        self._slices = SliceHolder(
            Bucket(connection, s.KV_PERMITS),
            platform.instance,
            self._needs,
            changed=self._pump,
            now_ms=platform.now_ms,
        )
        self._resources = Resources(
            self._permits, self._slices.permits, platform.now_ms, platform.settings.workers.dedicated_pools
        )
        self._dispatcher = Dispatcher(platform, self._permits, self._resources)
        self._quotas = QuotaKeeper(platform, self._resources.quotas, ENDS, changed=self._pump)
        self._answers = QueueAnswers(platform, self._dispatcher)
        self._shards = Shards(platform, self._dispatcher, self._permits, on_change=self._answers.answer_for)
        self._models = Bucket(connection, s.KV_MODELS)
        self._watches = [
            self._models.watch(self._on_roster),
            Bucket(connection, s.KV_BREAKERS).watch(self._on_breaker),
        ]
        self._prices = PriceAnswers(connection, self._models, platform.now_ms)
        self._cancels = Cancellations(connection, self._on_cancel)
        self._dispatcher.why_cancel = self._cancels.reason
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self._ends = OrderedReader(
            connection, s.EVENTS, ENDS, self._on_end, start_time=now, headers_only=True, label="ends"
        )
        self._erasing = Erasing(platform, {"router": partial(erase, connection)})
        platform.on_settings.append(self._use_settings)
        self._pool_workers = platform.metrics.gauges(
            names.METRIC_POOL_WORKERS, "Workers heard of late that take attempts of a pool", ("pool",)
        )
        self._hearing: int | None = None
        self._started = False

    async def start(self) -> None:
        """Publishes the roster, learns what it may use, then takes shards."""
        await self._introduce_models()
        for watch in self._watches:
            await watch.start()
        await self._cancels.start()
        self._ends.start()
        await self._ends.caught_up.wait()
        self._quotas.start()
        self._hearing = self._platform.connection.client.subscribe_raw(s.CAPACITY_ALL, self._on_capacity)
        await self._slices.start()
        self._dispatcher.start()
        await self._shards.start()
        await self._schedules.start()
        await self._erasing.start()
        self._prices.start()
        metrics = self._platform.metrics
        metrics.watch_gauge(names.METRIC_QUEUE_DEPTH, lambda: self._dispatcher.queued)
        metrics.watch_gauge(names.METRIC_PERMITS_IN_USE, lambda: self._permits.in_use)
        metrics.watch_gauge(names.METRIC_LOW_THROTTLED, self._low_is_throttled)
        self._started = True

    def _roster_models(self) -> list[ModelRecord]:
        self._resources.turn_prices(self._platform.now_ms())
        return list(self._resources.models.values())

    async def stop(self) -> None:
        """Gives shards and slices back and stops; what is queued stays in INGRESS for the next owner."""
        self._started = False
        await self._erasing.stop()
        await self._prices.stop()
        await self._schedules.stop()
        await self._shards.stop()
        await self._dispatcher.stop()
        await self._slices.stop()
        self._answers.stop()
        if self._hearing is not None:
            self._platform.connection.client.unsubscribe_raw(self._hearing)
        await self._quotas.stop()
        await self._ends.stop()
        await self._cancels.stop()
        for watch in self._watches:
            await watch.stop()

    def readiness(self) -> dict[str, bool]:
        """Whether tasks are being dispatched."""
        return {"dispatching": self._started}

    def _needs(self) -> dict[str, Need]:
        for pool in self._resources.pools:
            self._pool_workers[pool].set(self._resources.workers(pool))
        return self._resources.needs(self._dispatcher.wanted())

    def _pump(self) -> None:
        self._dispatcher.pump()

    async def _introduce_models(self) -> None:
        configured = records(self._platform.settings, self._platform.embedded_model)
        while True:
            entry = await self._models.get(s.ROSTER_KEY)
            standing = codec.state.decode(entry.value) if entry is not None else None
            roster = merge(standing if isinstance(standing, Roster) else None, configured, self._platform.now_ms())
            if roster is standing:
                return
            try:
                await self._models.put(
                    s.ROSTER_KEY, codec.encode(roster), expected_revision=entry.revision if entry is not None else 0
                )
            except AlreadyStandsError:
                continue
            return

    async def _use_settings(self, settings: Settings) -> None:
        self._dispatcher.use_tiers(settings.tiers)
        await self._introduce_models()

    def _on_roster(self, entry: Entry) -> None:
        if self._resources.use_roster(entry.value):
            self._slices.renew_soon()
            self._quotas.look_soon()

    def _on_breaker(self, entry: Entry) -> None:
        self._resources.use_breaker(entry.value)
        self._dispatcher.pump()

    def _on_capacity(self, _subject: bytes, _reply: bytes, payload: bytes, _block: bytes | None) -> None:
        try:
            message = codec.journey.decode(payload)
        except ContractError:
            return
        if isinstance(message, WorkerCapacity) and self._resources.hear(message):
            self._slices.renew_soon()

    def _on_cancel(self, message: CancelRequested) -> None:
        self._dispatcher.cancel(message.task_id, message.reason)
        self._schedules.cancel(message)

    def _on_end(self, delivery: Delivery) -> None:
        self._quotas.hear(delivery)
        about = s.parse_event(delivery.subject)
        if about is not None and about.kind != "discarded":
            self._dispatcher.release(about.task, about.attempt, about.last)

    def _low_is_throttled(self) -> float:
        pools = {model.pool for model in self._resources.models.values()}
        return float(any(self._resources.throttles_low(pool) for pool in pools))


def build(platform: Platform) -> RouterApp:
    """Builds the service."""
    return RouterApp(platform)
