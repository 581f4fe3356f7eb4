"""What dispatching may use: the roster, workers' slots, slices of models and pools, and open circuit breakers.

Two kinds of resource have a bound over all routers: a model with a concurrency limit, and a pool, whose bound is what
its workers announce plus a little, so that a free worker finds work at once and decisions are still late. One rule: a
resource without a slice of this router's own has no room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog
from collegium_contracts import codec
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import WorkerCapacity
from collegium_contracts.priceversions import PriceClock
from collegium_contracts.state import Breaker, ModelRecord, Roster

from collegium_router.limits.permits import Permits
from collegium_router.limits.quota import Quotas
from collegium_router.limits.shares import Need
from collegium_router.roster.bases import is_prompt, upstream_of
from collegium_router.roster.fleet_models import Models

log = structlog.get_logger(__name__)

# Attempts that may stand in WORK beyond the workers' slots.
HEADROOM: Final = 1.25
# What a pool is taken to hold until a worker has spoken.
DEFAULT_SLOTS: Final = 128
# A worker that was silent this long is gone.
SILENT_MS: Final = 6_000
# From here on low priority waits; it goes on at once where it has waited for LOW_WAITS_MS.
BUSY_RATIO: Final = 0.8
LOW_WAITS_MS: Final = 30_000


class Resources:
    """Everything that decides whether an attempt can go now; ``permits_of`` is this router's slice of a resource."""

    def __init__(
        self,
        permits: Permits,
        permits_of: Callable[[str], int],
        now_ms: Callable[[], int],
        dedicated: Iterable[str] = (),
    ) -> None:
        self.models = Models()
        self._prices = PriceClock()
        self._pools: tuple[str, ...] = ()
        self._dedicated = tuple(dedicated)
        self.open_until_ms: dict[str, int] = {}
        self.quotas = Quotas(permits, permits_of)
        self._permits = permits
        self._permits_of = permits_of
        self._now_ms = now_ms
        self._workers: dict[tuple[str, str], tuple[WorkerCapacity, int]] = {}

    def use_roster(self, value: bytes) -> bool:
        """Swaps the roster; false, and the last good one kept, where it cannot be read."""
        try:
            roster = codec.state.decode(value)
        except ContractError as error:
            log.error("roster unreadable, keeping the last good one", error=str(error))
            return False
        if not isinstance(roster, Roster):
            return False
        self._prices = PriceClock(roster.models)
        self.models = Models(self._prices.models(self._now_ms()))
        self._pools = tuple({model.pool for model in roster.models} | set(self._dedicated))
        bases = {model.name: upstream_of(model) for model in roster.models if is_prompt(model)}
        self._permits.bases = bases
        if self.quotas.book is not None:
            self.quotas.book.bases = bases
        self.quotas.use_roster(self.models)
        return True

    def turn_prices(self, now_ms: int) -> None:
        """Takes the prices of now; called before every decision, it costs a comparison."""
        if self._prices.turns(now_ms):
            self.models = Models(self._prices.models(now_ms))

    def use_breaker(self, value: bytes) -> None:
        """Learns the state of one model's breaker."""
        try:
            breaker = codec.state.decode(value)
        except ContractError as error:
            log.error("breaker unreadable, keeping the last good state", error=str(error))
            return
        if isinstance(breaker, Breaker):
            # While a probe runs workers say when to ask again: it may end long before its time.
            self.open_until_ms[breaker.model] = breaker.open_until_ms

    def hear(self, capacity: WorkerCapacity) -> bool:
        """Learns what a worker can take; true where its pool changed size."""
        key = (capacity.pool, capacity.worker)
        before = self._workers.get(key)
        self._workers[key] = (capacity, self._now_ms())
        return before is None or before[0].slots != capacity.slots

    def pool_capacity(self, pool: str) -> int:
        """How many attempts of a pool may be dispatched and not ended, over all routers."""
        self._forget_silent()
        slots = [capacity.slots for (name, _), (capacity, _) in self._workers.items() if name == pool]
        return int((sum(slots) if slots else DEFAULT_SLOTS) * HEADROOM)

    def busy_ratio(self, pool: str) -> float:
        """How full a pool is, from 0 to 1: its slots or its fullest worker's memory, whichever is fuller."""
        slots = max(1, self._permits_of(pool_resource(pool)))
        memory = max((one.memory_ratio for (name, _), (one, _) in self._workers.items() if name == pool), default=0.0)
        return max(min(1.0, self._permits.by_pool[pool] / slots), memory)

    def needs(self, wanted: Mapping[str, int]) -> dict[str, Need]:
        """Returns every bounded resource and what this router needs of it; ``wanted`` counts what waits for each."""
        found: dict[str, Need] = {}
        for pool in self._pools:
            name, used = pool_resource(pool), self._permits.by_pool[pool]
            found[name] = Need(self.pool_capacity(pool), used + wanted.get(name, 0), used)
        for model in self.models.values():
            if model.concurrency is not None and model.enabled and not is_prompt(model):
                name, used = model_resource(model.name), self._permits.by_model[model.name]
                found[name] = Need(model.concurrency, used + wanted.get(name, 0), used)
        if self.quotas.limited:
            found |= self.quotas.needs(lambda model: wanted.get(model_resource(model), 0), self._now_ms())
        return found

    def any_room(self) -> bool:
        """Whether any pool has a permit left: where none has, no entry need be looked at."""
        return any(self._permits.by_pool[pool] < self._permits_of(pool_resource(pool)) for pool in self._pools)

    def workers(self, pool: str) -> int:
        """How many workers of a pool were heard of late."""
        self._forget_silent()
        return sum(name == pool and capacity.slots > 0 for (name, _), (capacity, _) in self._workers.items())

    @property
    def pools(self) -> tuple[str, ...]:
        """All pools that attempts may go to."""
        return self._pools

    def has_room(self, model: ModelRecord, own_pool: str = "") -> bool:
        """Whether one more attempt of a model may be dispatched, to its pool or that of the tenant's own."""
        if not self.has_slot(model, own_pool):
            return False
        if model.concurrency is None:
            return True
        name = upstream_of(model)
        return self._permits.by_model[name] < self._permits_of(model_resource(name))

    def has_slot(self, model: ModelRecord, own_pool: str = "") -> bool:
        """Whether one more attempt fits into a model's pool, or that of the tenant's own, whatever the model bounds."""
        pool = own_pool or model.pool
        return self._permits.by_pool[pool] < self._permits_of(pool_resource(pool))

    def throttles_low(self, pool: str) -> bool:
        """Whether low priority waits, because the pool is nearly full."""
        return self.busy_ratio(pool) >= BUSY_RATIO

    def _forget_silent(self) -> None:
        oldest = self._now_ms() - SILENT_MS
        for key in [key for key, (_, heard_ms) in self._workers.items() if heard_ms < oldest]:
            del self._workers[key]


def pool_resource(pool: str) -> str:
    """Names a pool among the resources."""
    return f"pool {pool}"


def model_resource(model: str) -> str:
    """Names a model among the resources."""
    return f"model {model}"
