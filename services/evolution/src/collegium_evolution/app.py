"""Wiring of evolution: the pool, the fold of events, the scoreboard, ranks, gaps, rounds, and who asks for them."""

from __future__ import annotations

from functools import partial

import asyncpg
from collegium_bus.events import EventLoop
from collegium_bus.kv import Bucket
from collegium_bus.shell import Answering
from collegium_contracts import codec, consumers
from collegium_contracts import subjects as s
from collegium_contracts.messages import JourneyMessage
from collegium_learning.ranks.decisions import Rules
from collegium_runtime.audit import Audit
from collegium_runtime.erasing import Erasing
from collegium_runtime.platform import Platform
from collegium_store import is_unstorable, open_pool
from collegium_telemetry import names

from collegium_evolution import telling
from collegium_evolution.answers import Answers
from collegium_evolution.calibration.rounds import Calibration
from collegium_evolution.cycles.running import Cycles
from collegium_evolution.domains.answers import DomainAnswers
from collegium_evolution.domains.rounds import DomainRounds
from collegium_evolution.experiments.answers import Experiments
from collegium_evolution.fold import Fold
from collegium_evolution.gaps.rounds import GapRounds
from collegium_evolution.policies.rounds import PolicyRounds
from collegium_evolution.ranks.changing import Changing
from collegium_evolution.ranks.rounds import RankRounds
from collegium_evolution.scoreboards.publishing import ScoreboardPublisher
from collegium_evolution.scoreboards.store import Store
from collegium_evolution.scoreboards.watching import DriftWatch
from collegium_evolution.students.learning import Learning
from collegium_evolution.telling import Telling


class EvolutionApp:
    """Evolution as a service."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._pool: asyncpg.Pool | None = None
        self._loop: EventLoop[JourneyMessage] | None = None
        self._board: ScoreboardPublisher | None = None
        self._erasing: Erasing | None = None
        self._learning: Learning | None = None
        self._answering: Answering | None = None
        self._cycles: Cycles | None = None
        self._telling: Telling | None = None
        self._audit = Audit.of(platform)
        self._experiments: Experiments | None = None
        self._gaps = 0
        self._calibration: Calibration | None = None

    async def start(self) -> None:
        """Publishes the scoreboard as it stands, folds events, and does rounds of learning."""
        platform = self._platform
        consumer = consumers.consumer("scoreboard")
        self._pool = pool = await open_pool(platform.database_url, application_name="collegium-evolution")
        store = Store(pool, consumer.durable)
        self._board = ScoreboardPublisher(store, platform, consumer)
        fold = Fold(store, platform.dead_letters, platform.tracing, self._board.changed)
        self._loop = EventLoop(platform.connection, consumer, codec.journey, fold.handle, platform.dead_letters)
        self._calibration = calibration = Calibration(platform, pool)
        self._telling = Telling(platform, pool)
        changing = Changing(platform, pool, self._audit, self._telling.tell)
        models = Bucket(platform.connection, s.KV_MODELS)
        ranks = RankRounds(platform, pool, models, changing, self._rules)
        domains = DomainRounds(platform, pool)
        gaps = GapRounds(platform, pool, self._telling.tell, self._count_gaps, domains.clusters_since)
        drift = DriftWatch(platform, pool, self._telling.tell)
        policies = PolicyRounds(platform, pool, domains.mapper)

        async def watch(cycle: str) -> list[str]:
            return [*await ranks.shadow(cycle), *await drift.run(cycle)]

        async def look(cycle: str) -> list[str]:
            return [*await domains.run(cycle), *await gaps.run(cycle)]

        self._experiments = experiments = Experiments(platform, pool, self._audit, self._telling.tell)
        erase = partial(_erase, pool, store, policies, calibration, domains, experiments)
        self._learning = learning = Learning(platform, pool, erase)
        self._erasing = Erasing(platform, {"evolution": learning.erase})
        steps = {
            "gaps": look, "students": learning.rounds.run, "shadow": watch, "promotion": ranks.run,
            "policy": policies.run,
        }  # fmt: skip
        self._cycles = Cycles(platform, pool, steps)
        answers = Answers(
            platform, pool, changing, self._cycles, policies, learning.answers, DomainAnswers(domains), experiments
        )
        self._answering = Answering(platform.connection, answers.handlers(), is_unstorable)
        await self._erasing.start()
        self._learning.start()
        self._board.start()
        self._calibration.start()
        self._loop.start()
        await self._answering.start()
        self._cycles.start()
        experiments.watching.start()
        self._telling.start()
        platform.metrics.watch_gauge(names.METRIC_QUEUE_DEPTH, lambda: self._loop.lag if self._loop is not None else 0)
        platform.metrics.watch_gauge(names.METRIC_GAPS, lambda: self._gaps, "Domains whose answers are not good enough")

    async def stop(self) -> None:
        """Takes no more questions and events; what was not committed comes again to the next who asks."""
        if self._answering is not None:
            await self._answering.stop()
        if self._cycles is not None:
            await self._cycles.stop()
        if self._experiments is not None:
            await self._experiments.watching.stop()
        if self._loop is not None:
            await self._loop.stop()
            self._loop = None
        if self._erasing is not None:
            await self._erasing.stop()
        if self._learning is not None:
            await self._learning.stop()
        if self._telling is not None:
            await self._telling.stop()
        if self._calibration is not None:
            await self._calibration.stop()
        if self._board is not None:
            await self._board.stop()
        await self._audit.stop()
        if self._pool is not None:
            await self._pool.close()

    def readiness(self) -> dict[str, bool]:
        """Whether events are being folded."""
        return {"folding": self._loop is not None}

    def _rules(self) -> Rules:
        ranks = self._platform.settings.evolution.ranks
        return Rules(odds=ranks.odds, margin=ranks.margin, price_ratio=ranks.price_ratio, false_share=ranks.false_share)

    def _count_gaps(self, count: int) -> None:
        self._gaps = count


async def _erase(
    pool: asyncpg.Pool,
    store: Store,
    policies: PolicyRounds,
    calibration: Calibration,
    domains: DomainRounds,
    experiments: Experiments,
    tenant: str,
) -> int:
    removed = await store.erase(tenant) + await telling.erase(pool, tenant) + await experiments.erase(tenant)
    removed += await domains.erase(tenant)
    return removed + await policies.erase(tenant) + await calibration.erase(tenant)


def build(platform: Platform) -> EvolutionApp:
    """Builds the service."""
    return EvolutionApp(platform)
