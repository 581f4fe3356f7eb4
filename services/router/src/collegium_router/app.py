"""Wiring of the router: shard leases, shard readers, the dispatcher, the roster, schedules, the cancellations."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import structlog
from collegium_bus.delivery import Delivery
from collegium_bus.errors import AlreadyStandsError
from collegium_bus.ingress import IngressShard
from collegium_bus.kv import Bucket
from collegium_bus.leases import LeaseHolder
from collegium_bus.ordered import OrderedReader
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.ids import SHARDS
from collegium_contracts.messages import CancelRequested
from collegium_contracts.state import Roster
from collegium_runtime.platform import Platform
from collegium_telemetry import names

from collegium_router.configured import records
from collegium_router.dispatch import Dispatcher
from collegium_router.roster import merge
from collegium_router.schedules import Schedules

log = structlog.get_logger(__name__)

CANCEL_LOOK_BACK = timedelta(hours=1)


class RouterApp:
    """The router as a service."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._dispatcher = Dispatcher(platform)
        self._schedules = Schedules(platform)
        self._models = Bucket(platform.connection, s.KV_MODELS)
        self._watch = self._models.watch(lambda entry: self._use_roster(entry.value))
        self._shards: dict[str, IngressShard] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._leases = LeaseHolder(
            Bucket(platform.connection, s.KV_OWNERS),
            platform.instance,
            [f"ingress-{shard}" for shard in SHARDS],
            on_gained=self._gained,
            on_lost=self._lost,
        )
        since = (datetime.now(UTC) - CANCEL_LOOK_BACK).isoformat().replace("+00:00", "Z")
        self._cancels = OrderedReader(
            platform.connection, s.EVENTS, [s.CANCEL_ALL], self._on_cancel, start_time=since, label="cancels"
        )
        self._started = False

    async def start(self) -> None:
        """Publishes the roster, then takes shards."""
        await self._introduce_models()
        await self._watch.start()
        self._cancels.start()
        await self._cancels.caught_up.wait()
        self._dispatcher.start()
        await self._leases.start()
        await self._schedules.start()
        self._platform.metrics.watch_gauge(names.METRIC_QUEUE_DEPTH, lambda: self._dispatcher.queued)
        self._started = True

    async def stop(self) -> None:
        """Gives the shards back and stops; what is queued stays in INGRESS for the next owner."""
        self._started = False
        await self._schedules.stop()
        await self._leases.stop()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._dispatcher.stop()
        await self._cancels.stop()
        await self._watch.stop()

    def readiness(self) -> dict[str, bool]:
        """Whether tasks are being dispatched."""
        return {"dispatching": self._started}

    async def _introduce_models(self) -> None:
        configured = records(self._platform.settings, self._platform.embedded_model)
        while True:
            entry = await self._models.get(s.ROSTER_KEY)
            standing = codec.state.decode(entry.value) if entry is not None else None
            roster = merge(standing if isinstance(standing, Roster) else None, configured)
            if roster is standing:
                return
            try:
                await self._models.put(
                    s.ROSTER_KEY, codec.encode(roster), expected_revision=entry.revision if entry is not None else 0
                )
            except AlreadyStandsError:
                continue
            return

    def _use_roster(self, value: bytes) -> None:
        try:
            roster = codec.state.decode(value)
        except ContractError as error:
            log.error("roster unreadable, keeping the last good one", error=str(error))
            return
        if isinstance(roster, Roster):
            self._dispatcher.use_roster(roster.models)

    def _gained(self, name: str, _epoch: int) -> None:
        number = int(name.rpartition("-")[2])

        def receive(delivery: Delivery) -> None:
            self._dispatcher.receive(shard, delivery)

        shard = IngressShard(self._platform.connection, number, receive)
        self._shards[name] = shard
        shard.start()

    def _lost(self, name: str) -> None:
        if (shard := self._shards.pop(name, None)) is not None:
            self._dispatcher.drop_shard(shard)
            closing = asyncio.create_task(shard.stop())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _on_cancel(self, delivery: Delivery) -> None:
        try:
            message = codec.journey.decode(delivery.payload)
        except ContractError:
            return
        if isinstance(message, CancelRequested):
            self._dispatcher.cancel(message.task_id, message.reason)
            self._schedules.cancel(message)


def build(platform: Platform) -> RouterApp:
    """Builds the service."""
    return RouterApp(platform)
