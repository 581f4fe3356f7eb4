"""The step of a round that finds gaps and tells operators of new ones. One rule: a gap is told of once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg
import msgspec
import structlog
from collegium_contracts.domains import is_topic
from collegium_contracts.evolution import GapRow
from collegium_runtime.platform import Platform

from collegium_evolution.gaps import gap_store
from collegium_evolution.gaps.clusters import by_windows
from collegium_evolution.gaps.finding import Known, Signal, gap_of, over_all, ranked
from collegium_evolution.scoreboards import window_store

log = structlog.get_logger(__name__)

LOOKED_BACK_DAYS: Final = 14
KEPT_MAX: Final = 500
Tell = Callable[[str, str, dict[str, Any]], Awaitable[None]]
ClustersSince = Callable[[int], Awaitable[dict[str, list[Known]]]]


class GapRounds:
    """Finds gaps; ``on_count`` takes how many domains of all tenants together are gaps.

    ``clusters_since`` returns what is known of discovered domains, by tenant.
    """

    def __init__(
        self,
        platform: Platform,
        pool: asyncpg.Pool,
        tell: Tell,
        on_count: Callable[[int], None],
        clusters_since: ClustersSince | None = None,
    ) -> None:
        self._clusters_since = clusters_since
        self._platform = platform
        self._pool = pool
        self._tell = tell
        self._on_count = on_count

    async def run(self, cycle: str) -> list[str]:
        """Returns a line for each gap of all tenants together, and of each discovered domain."""
        now_ms = self._platform.now_ms()
        known = await self._known(now_ms)
        target = self._platform.settings.evolution.gap_target
        found = ranked(gap_of(one, target, LOOKED_BACK_DAYS) for one in [*over_all(known), *known])[:KEPT_MAX]
        new = await gap_store.replace(
            self._pool, [msgspec.structs.replace(one, last_at_ms=now_ms) for one in found], now_ms, cycle
        )
        shared = [one for one in found if not one.tenant]
        self._on_count(len(shared))
        shown = [one for one in found if not one.tenant or one.cluster or is_topic(one.domain)]
        for one in shown:
            if one.id in new:
                log.warning("knowledge gap", gap=one.id, accuracy=one.accuracy, upper=one.upper, size=one.size)
                place = one.id if one.tenant else one.domain
                await self._tell(f"gap_{cycle}_{place}", "gap.found", msgspec.to_builtins(one))
        return [line_of(one, is_new=one.id in new) for one in shown]

    async def _known(self, now_ms: int) -> list[Known]:
        since_ms = now_ms - LOOKED_BACK_DAYS * 86_400_000
        settled, judged = await window_store.domains(self._pool, since_ms)
        words = {(row["tenant"], row["domain"]): (row["judged"], row["score_sum"]) for row in judged}
        found: list[Known] = []
        for row in settled:
            signals: list[tuple[Signal, int, float]] = []
            if (told := words.get((row["tenant"], row["domain"]))) is not None:
                signals.append(("feedback", *told))
            if row["confident"]:
                signals.append(("confidence", row["confident"], row["confidence_sum"]))
            known = Known(row["tenant"], row["domain"], row["settled"], int(row["cost_picos"]), tuple(signals))
            found.append(known)
        if self._clusters_since is None:
            return found
        clusters = await self._clusters_since(since_ms)
        return [*by_windows(found, clusters), *(one for of in clusters.values() for one in of)]


def line_of(gap: GapRow, *, is_new: bool) -> str:
    """Says what a gap is in one line."""
    new = "new: " if is_new else ""
    place = gap.id if gap.tenant else gap.domain or "(no domain)"
    return (
        f"{new}{place}: accuracy {gap.accuracy:.2f}, at most {gap.upper:.2f} of {gap.target:.2f}"
        f" wanted, by {gap.judged} of {gap.size} tasks ({gap.signal})"
    )
