"""Looking after what runs: guardrails, ends that come by themselves, and what the bucket lacks.

Every replica looks, and changes are made under one lock, so that an experiment is taken back once. One rule: a look
decides nothing that anybody could not see by looking too.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any, Final

import asyncpg
import structlog
from collegium_bus.errors import BusError, RequestRefusedError
from collegium_contracts.experiment_requests import ExperimentAct, ExperimentRow, Look
from collegium_learning.experiments import looking
from collegium_learning.experiments.sharing import look_shared
from collegium_runtime.platform import Platform
from collegium_telemetry import names

from collegium_evolution.experiments import experiment_store, exposure_store
from collegium_evolution.experiments.changing import BY_ITSELF, Changing

log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 2.0
# An experiment is looked at again after so many times what the look took: many units may not keep a core busy.
LOOK_SHARE: Final = 20.0
ROUNDS_BETWEEN_MENDING: Final = 5
ROUNDS_BETWEEN_PRUNING: Final = 300


class Watching:
    """Watches experiments; ``start`` and ``stop`` bracket its life."""

    def __init__(self, platform: Platform, pool: Any, changing: Changing) -> None:
        self._platform = platform
        self._pool = pool
        self._changing = changing
        self._seen: dict[str, int] = {}
        self._again: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._running = 0
        about = "Experiments that were taken back by a guardrail"
        self._taken_back = platform.metrics.counter(names.METRIC_EXPERIMENTS_ROLLED_BACK, about)
        platform.metrics.watch_gauge(names.METRIC_EXPERIMENTS, lambda: self._running, "Experiments that run")

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._run(), name="experiments")

    async def stop(self) -> None:
        """Stops; the next who starts goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self, row: ExperimentRow) -> Look:
        """Returns what is known of an experiment now."""
        return await look(self._pool, row, self._platform.now_ms())

    async def round(self) -> None:
        """Looks once at everything of which something new was told."""
        loop = asyncio.get_running_loop()
        rows = await experiment_store.running(self._pool)
        self._running = len(rows)
        self._seen = {row.running.id: self._seen.get(row.running.id, 0) for row in rows}
        self._again = {name: at for name, at in self._again.items() if name in self._seen}
        for row in rows:
            name = row.running.id
            began = loop.time()
            if began < self._again.get(name, 0.0):
                continue
            try:
                newest = await exposure_store.newest(self._pool, name)
                if newest == self._seen[name]:
                    continue
                await self._act_on(row, await self.look(row))
                self._seen[name] = newest
            except Exception as error:  # what fails for one experiment must not keep the others from their guardrails
                log.error("experiment not looked at, trying again", experiment=name, exc_info=error)
            self._again[name] = began + (loop.time() - began) * LOOK_SHARE

    async def _act_on(self, row: ExperimentRow, found: Look) -> None:
        name = row.running.id
        breached = [one for one in found.effects if one.breached]
        if breached:
            reason = "; ".join(
                f"{one.metric} is worse than the guardrail of {one.guardrail:g} by {one.odds:.3g} to 1"
                f" ({one.value:+.4g}, {one.low:+.4g} to {one.high:+.4g}, {one.units} units)"
                for one in breached
            )
            if await self._changing.take_back(name, reason) is not None:
                self._taken_back.inc()
                log.warning("experiment taken back", experiment=name, reason=reason)
        elif row.auto_stop and found.verdict != "open":
            quality = found.effects[0]
            reason = (
                f"the candidate is {found.verdict}: {quality.value:+.4g} ({quality.low:+.4g} to {quality.high:+.4g})"
            )
            winner = "control" if found.verdict == "worse" else "candidate"
            asked = ExperimentAct(id=name, act="conclude", by=BY_ITSELF, winner=winner, reason=reason)
            # Another replica, or somebody, was first.
            with contextlib.suppress(RequestRefusedError):
                await self._changing.act(asked)

    async def _run(self) -> None:
        rounds = 0
        while True:
            try:
                if rounds % ROUNDS_BETWEEN_MENDING == 0:
                    await self._changing.publishing.mend()
                if rounds % ROUNDS_BETWEEN_PRUNING == 0:
                    await exposure_store.prune(self._pool, self._platform.now_ms())
                await self.round()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, BusError) as error:
                log.warning("experiments not looked at, trying again", error=type(error).__name__)
            except Exception as error:  # a defect in one look must not end the looks
                log.error("experiments not looked at", exc_info=error)
            rounds += 1
            await asyncio.sleep(ROUND_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - jitter


async def look(pool: Any, row: ExperimentRow, now_ms: int) -> Look:
    """Returns what is known of an experiment: read, then weighed in a thread of its own."""
    told = await exposure_store.told(pool, row.running.id)
    terms = looking.Terms(row.level, row.margin, row.guardrails)
    # What is everybody's is ended by nobody's words alone.
    looks = looking.look if row.running.tenant else look_shared
    found = await asyncio.to_thread(looks, told.units, told.words, terms)
    return Look(
        at_ms=now_ms,
        verdict=found.verdict,
        arms=told.arms,
        effects=found.effects,
        mismatch_odds=found.mismatch_odds,
        is_mismatched=found.is_mismatched,
        interleaved=looking.interleaved(*told.pairs) if told.pairs[0] else None,
        is_full=max(len(told.units), len(told.words)) >= exposure_store.UNITS_MAX,
    )
