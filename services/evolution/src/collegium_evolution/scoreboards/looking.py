"""Scores as of now: decayed means and what has changed, for one tenant or for all together.

One rule: nothing is stored for it, so whatever half-life is asked for is answered from the same sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from collegium_contracts.evolution import BoardRow, ScoreboardAsk, ScoreboardReply
from collegium_learning.ranks import drift
from collegium_learning.ranks.decay import Window, decayed, in_order

from collegium_evolution.scoreboards import window_store
from collegium_evolution.scoreboards.scoring import ScoreKey

ROWS_MAX: Final = 500
DAY_MS: Final = 86_400_000
# What lies so many half-lives back counts less than a thousandth.
HALF_LIVES: Final = 10
# Drift is looked for in these last days, whatever the half-life.
DRIFT_DAYS: Final = 14


async def look(pool: Any, asked: ScoreboardAsk, default_days: float, now_ms: int) -> ScoreboardReply:
    """Answers a question for scores."""
    days = asked.half_life_days or default_days
    since_ms = now_ms - int(min(max(days * HALF_LIVES, DRIFT_DAYS), window_store.KEPT_DAYS) * DAY_MS)
    found = await window_store.read(pool, since_ms, tenant=asked.tenant, model=asked.model, domain=asked.domain)
    rows = board(found, now_ms, days)
    return ScoreboardReply(at_ms=now_ms, half_life_days=days, rows=rows[:ROWS_MAX], is_cut=len(rows) > ROWS_MAX)


def board(found: Mapping[ScoreKey, Sequence[Window]], now_ms: int, days: float) -> list[BoardRow]:
    """Returns a row for each model, domain and rank, those with most calls first."""
    rows = [_row(key, windows, now_ms, days) for key, windows in found.items()]
    return sorted(rows, key=lambda row: (-row.calls, row.model, row.domain, row.rank))


def _row(key: ScoreKey, windows: Sequence[Window], now_ms: int, days: float) -> BoardRow:
    sums = decayed(windows, now_ms, max(1, int(days * DAY_MS)))
    what, changed, at_ms = drifted([one for one in in_order(windows) if one.at_ms > now_ms - DRIFT_DAYS * DAY_MS])
    return BoardRow(
        model=key.model,
        domain=key.domain,
        rank=key.rank,
        calls=round(sums.calls, 3),
        judged=round(sums.judged, 3),
        quality=sums.quality,
        success=sums.success,
        refusals=sums.refusals,
        duration_ms=sums.duration_ms,
        cost_usd_picos=sums.cost_usd_picos,
        drift=what,
        drift_before=changed.before if changed is not None else None,
        drift_after=changed.after if changed is not None else None,
        drift_at_ms=at_ms,
    )


def drifted(windows: Sequence[Window]) -> tuple[str, drift.Drift | None, int]:
    """Returns what changed (quality before success), how, and when (Unix ms); windows are in order of time."""
    judged = [one for one in windows if one.judged > 0]
    found = drift.find([drift.Part(one.judged, one.score_sum, one.square_sum) for one in judged])
    if found is not None:
        return "quality", found, judged[found.at].at_ms
    called = [one for one in windows if one.calls > 0]
    found = drift.find([drift.Part(one.calls, float(one.succeeded), float(one.succeeded)) for one in called])
    return ("success", found, called[found.at].at_ms) if found is not None else ("", None, 0)
