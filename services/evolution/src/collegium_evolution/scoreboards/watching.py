"""Telling of drift: models whose answers, or whose calls, became better or worse of late.

One rule: a drift is told of once, known by the model, the domain and the hour in which it began.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg
import msgspec
import structlog
from collegium_contracts.evolution import BoardRow, ScoreboardAsk
from collegium_runtime.platform import Platform
from collegium_telemetry import names

from collegium_evolution.scoreboards.looking import look

log = structlog.get_logger(__name__)

LINES_MAX: Final = 100
Tell = Callable[[str, str, dict[str, Any]], Awaitable[None]]


class DriftWatch:
    """Looks for drift at every round; the gauge says how many models and domains there are with one."""

    def __init__(self, platform: Platform, pool: asyncpg.Pool, tell: Tell) -> None:
        self._platform = platform
        self._pool = pool
        self._tell = tell
        self._told: set[str] = set()
        self._standing = 0
        platform.metrics.watch_gauge(
            names.METRIC_DRIFTS, lambda: self._standing, "Models and domains whose scores changed of late"
        )

    async def run(self, _cycle: str) -> list[str]:
        """Returns a line for each drift of the scores of all tenants together."""
        half_life = float(self._platform.settings.evolution.half_life_days)
        board = await look(self._pool, ScoreboardAsk(), half_life, self._platform.now_ms())
        drifting = [row for row in board.rows if row.drift]
        self._standing = len(drifting)
        told: set[str] = set()
        for row in drifting:
            name = f"drift_{row.model}_{row.domain}_{row.rank}_{row.drift}_{row.drift_at_ms}"
            told.add(name)
            if name not in self._told:
                log.warning("model drifts", model=row.model, domain=row.domain, of=row.drift, after=row.drift_after)
                await self._tell(name, "model.drifted", msgspec.to_builtins(row))
        self._told = told
        return [_line(row) for row in drifting[:LINES_MAX]]


def _line(row: BoardRow) -> str:
    before, after = row.drift_before or 0.0, row.drift_after or 0.0
    return f"drift: {row.model} in {row.domain or '(no domain)'}: {row.drift} {before:.2f} -> {after:.2f}"
