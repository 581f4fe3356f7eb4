"""Which shards of holds this replica owns: leases, the tenants' definitions, and the answers of the shards held.

One rule: a shard is answered for by whoever holds its lease, and its journal refuses everybody else.
"""

from __future__ import annotations

import asyncio

import structlog
from collegium_bus.kv import Bucket, Entry
from collegium_bus.leases import LeaseHolder
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.ids import SHARDS, shard_of
from collegium_contracts.state import TenantRecord
from collegium_runtime.platform import Platform
from collegium_runtime.storage import StorageBook
from collegium_telemetry import names
from collegium_telemetry.metrics import Metrics

from collegium_billing.holds.settledfeed import SettledFeed
from collegium_billing.holds.shard import HoldShard, Spent

START_SECONDS = 5.0

log = structlog.get_logger(__name__)


class HoldOwner:
    """Owns what is free of the shards."""

    def __init__(self, platform: Platform, spent: Spent) -> None:
        self._platform = platform
        self._spent = spent
        self._feed = SettledFeed(platform.connection)
        self._records: dict[str, TenantRecord] = {}
        self._shards: dict[int, HoldShard] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._storage = StorageBook(platform)
        self._watch = Bucket(platform.connection, s.KV_TENANTS).watch(self._learn)
        self._leases = LeaseHolder(
            Bucket(platform.connection, s.KV_HOLDERS),
            platform.instance,
            [_name(shard) for shard in SHARDS],
            on_gained=self._gained,
            on_lost=self._lost,
        )

    async def start(self) -> None:
        """Reads the tenants, then takes what is free."""
        await self._storage.start()
        await self._watch.start()
        await self._leases.start()
        # What is held from the start is answered for when the service says that it has started.
        await asyncio.gather(*(shard.taken(START_SECONDS) for shard in self._shards.values()))

    async def stop(self) -> None:
        """Gives the shards back."""
        await self._leases.stop()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._watch.stop()
        await self._storage.stop()
        await self._feed.stop()

    @property
    def is_ready(self) -> bool:
        """Whether every shard that is held here is answered for."""
        return all(shard.is_answering for shard in self._shards.values())

    def watch(self, metrics: Metrics) -> None:
        """Tells metrics of the shards held."""
        metrics.watch_gauge(names.METRIC_HOLDS_OPEN, self.open_holds)
        metrics.watch_gauge(names.METRIC_OVER_HOLD, self.over_hold)
        metrics.watch_gauge(names.METRIC_SHARDS_ANSWERED, self.answered)

    def answered(self) -> float:
        """How many shards are answered for here."""
        return sum(shard.is_answering for shard in self._shards.values())

    def open_holds(self) -> float:
        """How many holds stand in the shards held."""
        return sum(len(shard.book.holds(None)) for shard in self._shards.values())

    def over_hold(self) -> float:
        """How many captures were above their holds, in the shards held."""
        return sum(shard.book.over_hold for shard in self._shards.values())

    def _tenants_of(self, shard: int) -> list[TenantRecord]:
        return [record for record in self._records.values() if shard_of(record.id) == shard]

    def _learn(self, entry: Entry) -> None:
        try:
            record = codec.state.decode(entry.value)
        except ContractError as error:
            log.error("tenant unreadable, keeping the last good value", key=entry.key, error=str(error))
            return
        if isinstance(record, TenantRecord):
            self._records[record.id] = record
            if (shard := self._shards.get(shard_of(record.id))) is not None:
                shard.learn(record)

    def _gained(self, name: str, _epoch: int) -> None:
        number = int(name.rpartition("-")[2])
        shard = HoldShard(
            self._platform,
            number,
            self._feed,
            self._spent,
            storage=self._storage,
            tenants=self._tenants_of,
            holds=lambda: self._leases.holds(name),
        )
        self._shards[number] = shard
        shard.start()

    def _lost(self, name: str) -> None:
        shard = self._shards.pop(int(name.rpartition("-")[2]), None)
        if shard is not None:
            closing = asyncio.create_task(shard.stop())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def _name(shard: int) -> str:
    return f"holds-{shard}"
