"""Wiring of the worker pool: one work loop a pool, the pooled client, cancellations, breakers, announcements."""

from __future__ import annotations

import asyncio

from collegium_bus import topology
from collegium_bus.work import WorkLoop
from collegium_contracts.consumers import work_consumer
from collegium_runtime.platform import Platform
from collegium_settings import Settings
from collegium_settings.pools import served_pools
from collegium_telemetry import names

from collegium_worker_pool.added.answers import ProbeAnswers
from collegium_worker_pool.added.book import AddedBook
from collegium_worker_pool.added.probing import Probing
from collegium_worker_pool.calling.calling import Caller
from collegium_worker_pool.calling.cancels import Cancels
from collegium_worker_pool.calling.gating import AnswerGates
from collegium_worker_pool.endpoints.breakers import Breakers
from collegium_worker_pool.endpoints.endpoint_health import EndpointWatch
from collegium_worker_pool.running.attempts import AttemptRunner
from collegium_worker_pool.running.capacity import Announcer
from collegium_worker_pool.running.sweeper import Sweeper
from collegium_worker_pool.students.heads import Heads
from collegium_worker_pool.students.prompts import Prompts
from collegium_worker_pool.upstream.endpoints import endpoints
from collegium_worker_pool.upstream.upstream import Upstream

# Attempts in hand at a time and pool: each waits for a model and holds a lease, a connection and its prompt.
SLOTS = 128
DRAIN_SECONDS = 10.0


class WorkerPoolApp:
    """The worker pool as a service."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._upstream = Upstream(lambda: platform.settings.roster.allow_private_addresses)
        self._cancels = Cancels(platform.connection)
        self._breakers = Breakers(platform.connection, platform.now_ms)
        self._gates = AnswerGates(platform)
        self.heads = Heads(platform)
        self.prompts = Prompts(platform)
        self._caller = Caller(
            platform,
            self._upstream,
            endpoints(platform.settings, platform.embedded_model),
            self._cancels,
            self._breakers,
            self._gates,
            self.heads,
            self.prompts,
        )
        self._watch = EndpointWatch(platform, self._upstream, endpoints(platform.settings, platform.embedded_model))
        self._added = AddedBook(platform, self._use_endpoints)
        self._probes = ProbeAnswers(platform, Probing(platform, self._upstream), served_pools(platform.settings))
        self._runner = AttemptRunner(platform, self._caller, self._cancels, self._breakers)
        self._loops = {
            pool: WorkLoop(
                platform.connection,
                work_consumer(pool),
                self._runner.handle,
                platform.dead_letters,
                slots=SLOTS,
                give_up=self._runner.give_up,
            )
            for pool in served_pools(platform.settings)
        }
        self._runner.loops = self._loops
        self._announcer = Announcer(platform, self._loops)
        platform.on_settings.append(self._use_settings)
        self._sweeper = Sweeper(platform, self._loops, self._runner.give_up)
        self._started = False

    async def _use_settings(self, _settings: Settings) -> None:
        self._use_endpoints()

    def _use_endpoints(self) -> None:
        # What the file says of a model goes before what was added.
        found = self._added.endpoints() | endpoints(self._platform.settings, self._platform.embedded_model)
        self._caller.use(found)
        self._watch.use(found)

    async def start(self) -> None:
        """Opens the client, reads cancellations and breakers, and takes work."""
        await topology.verify(self._platform.connection, "worker-pool", pools=self._loops)
        await self._upstream.open()
        await self._cancels.start()
        await self._breakers.start()
        await self._gates.start()
        await self.heads.start()
        await self.prompts.start()
        await self._added.start()
        self._probes.start()
        for loop in self._loops.values():
            loop.start()
        self._announcer.start()
        self._sweeper.start()
        self._watch.start()
        self._platform.metrics.watch_gauge(
            names.METRIC_QUEUE_DEPTH, lambda: sum(x.running for x in self._loops.values())
        )
        self._platform.metrics.watch_gauges(
            names.METRIC_MODEL_HEALTH,
            "model",
            self._caller.health,
            "1 where a model answers, a fifth less for each failure of the last minute, 0 while its breaker is open",
        )
        self._started = True

    async def stop(self) -> None:
        """Finishes what runs, hands back what does not finish in time."""
        self._started = False
        await self._watch.stop()
        await self._probes.stop()
        await self._announcer.stop()
        await asyncio.gather(*(loop.drain(timeout_seconds=DRAIN_SECONDS) for loop in self._loops.values()))
        await self._breakers.stop()
        await self._sweeper.stop()
        await self._cancels.stop()
        await self._gates.stop()
        await self.heads.stop()
        await self.prompts.stop()
        await self._added.stop()
        await self._upstream.close()

    def readiness(self) -> dict[str, bool]:
        """Whether work is being taken."""
        return {"taking_work": self._started}


def build(platform: Platform) -> WorkerPoolApp:
    """Builds the service."""
    return WorkerPoolApp(platform)
