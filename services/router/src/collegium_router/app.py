"""Wiring of the router: shards, the dispatcher, what it may use, schedules, and what tells it of ends."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import structlog
from collegium_bus.cancels import Cancellations
from collegium_bus.delivery import Delivery
from collegium_bus.errors import BusError
from collegium_bus.kv import Bucket, Entry
from collegium_bus.ordered import OrderedReader
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.event_subjects import EventSubject
from collegium_contracts.holds import parse_billed
from collegium_contracts.messages import CancelRequested, WorkerCapacity
from collegium_contracts.state import ModelRecord
from collegium_learning.routing.spending import Target
from collegium_runtime.erasing import Erasing
from collegium_runtime.platform import Platform
from collegium_settings import Settings
from collegium_settings.money import PICOS_PER_USD
from collegium_telemetry import names

from collegium_router.choosing.policies import Aims, Policies
from collegium_router.dispatching.answers import QueueAnswers
from collegium_router.dispatching.dispatch import Dispatcher
from collegium_router.dispatching.erasing import erase
from collegium_router.dispatching.held_out import HeldOutAnswers
from collegium_router.dispatching.probes import Probes
from collegium_router.dispatching.shards import Shards
from collegium_router.limits.permits import Permits
from collegium_router.limits.quota_windows import QuotaKeeper
from collegium_router.limits.resources import Resources
from collegium_router.limits.shares import Need, SliceHolder
from collegium_router.limits.spending_kept import SpendingKeeper
from collegium_router.roster.configured import records
from collegium_router.roster.introducing import Introduced, introduce
from collegium_router.roster.pricing import PriceAnswers
from collegium_router.roster.registering import RegistrationAnswers
from collegium_router.roster.students import StudentAnswers
from collegium_router.roster.switching import ModelAnswers
from collegium_router.schedules.schedules import Schedules

log = structlog.get_logger(__name__)

ENDS = (s.TASK_SETTLED_ALL, s.ATTEMPT_ENDED_ALL, s.ATTEMPT_RETRIED_ALL, s.ATTEMPT_DISCARDED_ALL)


class RouterApp:
    """The router as a service."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        connection = platform.connection
        self._permits = Permits()
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
        self._probes = Probes(platform, self._resources)
        self._schedules = Schedules(platform, self._roster_models, self._probes)
        self._policies = Policies(aims(platform.settings))
        self._probes.in_play = self._policies.in_play
        self._dispatcher = Dispatcher(platform, self._permits, self._resources, self._probes, self._policies)
        self._trials = self._dispatcher.trials
        self._probes.interleaves = lambda: self._trials.interleaves
        self._quotas = QuotaKeeper(platform, self._resources.quotas, ENDS, changed=self._pump)
        self._answers = QueueAnswers(platform, self._dispatcher)
        self._held_out = HeldOutAnswers(platform, self._probes)
        self._shards = Shards(platform, self._dispatcher, self._permits, on_change=self._on_shards)
        self._spending = SpendingKeeper(platform, self._probes, self._policies, self._shards.holds)
        self._models = Bucket(connection, s.KV_MODELS)
        self._watches = [
            self._models.watch(self._on_roster),
            Bucket(connection, s.KV_BREAKERS).watch(self._on_breaker),
            Bucket(connection, s.KV_POLICY).watch(self._on_policy, self._on_no_policy),
        ]
        self._prices = PriceAnswers(connection, self._models, platform.now_ms)
        self._switches = ModelAnswers(connection, self._models, platform.now_ms)
        self._students = StudentAnswers(connection, self._models, platform.now_ms)
        self._registrations = RegistrationAnswers(connection, self._models, platform.now_ms, lambda: platform.settings)
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
        self._introduced = Introduced()
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
        self._spending.start()
        await self._shards.start()
        await self._schedules.start()
        await self._erasing.start()
        self._prices.start()
        self._switches.start()
        self._students.start()
        self._registrations.start()
        await self._sweep()
        metrics = self._platform.metrics
        metrics.watch_gauge(names.METRIC_QUEUE_DEPTH, lambda: self._dispatcher.queued)
        metrics.watch_gauge(names.METRIC_PERMITS_IN_USE, lambda: self._permits.in_use)
        metrics.watch_gauge(names.METRIC_POLICIES, lambda: self._policies.count)
        metrics.watch_gauge(names.METRIC_POLICIES_REFUSED, lambda: self._policies.refused + self._trials.refused)
        metrics.watch_gauge(names.METRIC_ROSTER_OVERSIZE, lambda: float(self._introduced.over_bytes))
        metrics.watch_gauge(names.METRIC_ROSTER_UNREADABLE, lambda: float(self._introduced.unreadable))
        metrics.watch_gauge(names.METRIC_LOW_THROTTLED, self._low_is_throttled)
        self._started = True

    def _roster_models(self) -> list[ModelRecord]:
        self._resources.turn_prices(self._platform.now_ms())
        return list(self._resources.models.values())

    async def stop(self) -> None:
        """Gives shards and slices back and stops; what is queued stays in INGRESS for the next owner."""
        self._started = False
        await self._erasing.stop()
        await self._registrations.stop()
        await self._students.stop()
        await self._switches.stop()
        await self._prices.stop()
        await self._schedules.stop()
        await self._spending.stop()
        await self._shards.stop()
        await self._dispatcher.stop()
        await self._slices.stop()
        self._answers.stop()
        await self._held_out.stop()
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
        self._introduced = await introduce(self._models, configured, self._platform.now_ms)

    async def _sweep(self) -> None:
        try:
            await self._registrations.sweep()
        except (BusError, ContractError) as error:
            log.warning("places of removed models not looked through", error=type(error).__name__)

    async def _use_settings(self, settings: Settings) -> None:
        self._dispatcher.use_tiers(settings.tiers)
        self._policies.aim(aims(settings))
        self._probes.use_settings(settings)
        await self._introduce_models()

    def _on_roster(self, entry: Entry) -> None:
        if self._resources.use_roster(entry.value):
            self._slices.renew_soon()
            self._quotas.look_soon()
            students = (model.student for model in self._resources.models.values() if model.enabled)
            self._probes.examines = any(one is not None and one.kind == "endpoint" for one in students)

    def _on_shards(self, shards: frozenset[int]) -> None:
        self._answers.answer_for(shards)
        self._held_out.answer_for(shards)
        self._spending.own(shards)

    def _on_policy(self, entry: Entry) -> None:
        self._policies.use(entry.key, entry.value, entry.revision)
        self._trials.use(entry.key, entry.value, entry.revision)

    def _on_no_policy(self, entry: Entry) -> None:
        self._policies.forget(entry.key)
        self._trials.forget(entry.key)

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
        if about is not None and about.kind == "settled" and self._policies.counts_spending:
            self._count_spending(about, delivery)
        if about is not None and self._probes.is_on and self._shards.owns(about.tenant):
            # Each tenant's work counts with one router.
            self._probes.hear(about, delivery)
        if about is not None and about.kind != "discarded":
            self._dispatcher.release(about.task, about.attempt, about.last)

    def _count_spending(self, about: EventSubject, delivery: Delivery) -> None:
        billed = parse_billed(delivery.header(s.H_BILLED))
        if billed is not None and self._shards.owns(about.tenant):
            self._policies.spent(about.tenant, billed.project, billed.picos, self._platform.now_ms())

    def _low_is_throttled(self) -> float:
        pools = {model.pool for model in self._resources.models.values()}
        return float(any(self._resources.throttles_low(pool) for pool in pools))


def aims(settings: Settings) -> Aims:
    """Returns what the configuration wants of choices."""
    routing = settings.routing
    spend = {
        name: Target(int(target.usd * PICOS_PER_USD), target.period_seconds * 1000)
        for name, target in routing.spend.items()
        if target.usd > 0
    }
    return Aims(routing.quality_floor, routing.exploration, dict(routing.shares), spend, routing.novel_members)


def build(platform: Platform) -> RouterApp:
    """Builds the service."""
    return RouterApp(platform)
