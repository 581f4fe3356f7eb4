"""Doing rounds: one replica at a time looks whether one is due, and does its steps in order.

Killed at any point, whoever is alone next goes on with the first step that was not done. One rule: a step that fails is
noted with the kind of its error, and the steps after it are done all the same; the next round tries again.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import asyncpg
import structlog
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import ids
from collegium_contracts.evolution import CycleRow
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform
from collegium_store.alone import Job, Rounds
from collegium_telemetry import names

from collegium_evolution.cycles import cycle_store, planning
from collegium_evolution.scoreboards import window_store

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 2.0

# Does one step of a round, named by its id; returns lines for the report. It may be begun twice.
Step = Callable[[str], Awaitable[list[str]]]


class Cycles:
    """Rounds of learning; ``steps`` are what is done at each, by name; ``start`` and ``stop`` bracket its life."""

    def __init__(
        self,
        platform: Platform,
        pool: asyncpg.Pool,
        steps: Mapping[str, Step],
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        unknown = set(steps) - set(planning.STEPS)
        if unknown:
            raise ValueError(f"no step of a round: {', '.join(sorted(unknown))}")
        self._platform = platform
        self._pool = pool
        self._steps = steps
        self._ended = platform.metrics.counters(names.METRIC_CYCLES, "Rounds of learning by how they ended", ("state",))
        self._failed = platform.metrics.counter(names.METRIC_CYCLES_FAILED, "Rounds of learning with a failed step")
        self._rounds = Rounds(pool, Job.EVOLUTION_CYCLE, self.look, every_seconds=look_seconds)

    def start(self) -> None:
        """Begins to look whether a round is due."""
        self._rounds.start()

    async def stop(self) -> None:
        """Stops; a round that is running is gone on with by the next who starts."""
        await self._rounds.stop()

    async def demand(self, by: str) -> CycleRow:
        """Begins a round now, which whoever is alone at it does; raises RequestRefusedError where one is running."""
        queries = await window_store.settled(self._pool)
        cycle = self._begun("demand", by, queries)
        if not await cycle_store.begin(self._pool, cycle):
            raise RequestRefusedError("cycle_running", "a round of learning is running; see collegium evolution ls")
        return cycle

    async def look(self) -> CycleRow | None:
        """Does the round that is running or due, and returns it ended; none where there is neither.

        Called by one replica at a time.
        """
        cycle = await cycle_store.running(self._pool)
        if cycle is None:
            queries = await window_store.settled(self._pool)
            before = await cycle_store.settled_before(self._pool)
            if not planning.is_due(queries, before, self._platform.settings.evolution.interval_queries):
                return None
            cycle = self._begun("interval", "", queries)
            if not await cycle_store.begin(self._pool, cycle):
                return None
        return await self._run(cycle)

    def _begun(self, cause: planning.Cause, by: str, queries: int) -> CycleRow:
        now_ms = self._platform.now_ms()
        return planning.begun(ids.cycle_id(now_ms, os.urandom(10)), cause, by, queries, now_ms)

    async def _run(self, cycle: CycleRow) -> CycleRow:
        while (name := planning.next_step(cycle)) is not None:
            cycle = await self._step(cycle, name)
            failpoint("evolution.before-note")
            await cycle_store.put(self._pool, cycle)
        cycle = planning.ended(cycle, self._platform.now_ms())
        await cycle_store.put(self._pool, cycle)
        await window_store.prune(self._pool, self._platform.now_ms())
        self._ended[cycle.state].inc()
        if cycle.state == "failed":
            self._failed.inc()
        log.info("round of learning ended", cycle=cycle.id, state=cycle.state, cause=cycle.cause)
        return cycle

    async def _step(self, cycle: CycleRow, name: str) -> CycleRow:
        do = self._steps.get(name)
        if do is None:
            return planning.with_step(cycle, name, "none", [], self._platform.now_ms())
        try:
            lines = await do(cycle.id)
        except Exception as error:  # a step that fails must not keep the others from being done
            log.error("step of a round failed", cycle=cycle.id, step=name, exc_info=error)
            code = getattr(error, "code", "") or type(error).__name__
            return planning.with_step(cycle, name, "failed", [f"failed: {code}"], self._platform.now_ms())
        return planning.with_step(cycle, name, "done", lines, self._platform.now_ms())
