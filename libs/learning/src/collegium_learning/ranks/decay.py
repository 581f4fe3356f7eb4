"""Sums in which the past counts less: every half-life it counts half as much. Pure.

One rule: decay is applied when sums are read, so what is stored stays exact and may be added in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec


class Window(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened in one stretch of time that ended at ``at_ms`` (Unix ms).

    ``calls`` of which ``succeeded`` were answered and ``refused`` were declined by the model; ``judged`` words, whose
    scores (0 to 1) add up to ``score_sum`` and their squares to ``square_sum``.
    """

    at_ms: int
    calls: int = 0
    succeeded: int = 0
    refused: int = 0
    duration_ms_total: int = 0
    cost_usd_picos: int = 0
    judged: int = 0
    score_sum: float = 0.0
    square_sum: float = 0.0


class Decayed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Weighted sums; the means are none where nothing was counted."""

    calls: float = 0.0
    judged: float = 0.0
    quality: float | None = None
    success: float | None = None
    refusals: float | None = None
    duration_ms: float | None = None
    cost_usd_picos: float | None = None


def decayed(windows: Iterable[Window], now_ms: int, half_life_ms: int) -> Decayed:
    """Returns weighted sums and means as of now; what lies in the future counts as now."""
    calls = judged = score = succeeded = refused = duration = cost = 0.0
    for one in windows:
        weight = 0.5 ** (max(0, now_ms - one.at_ms) / half_life_ms)
        calls += weight * one.calls
        judged += weight * one.judged
        score += weight * one.score_sum
        succeeded += weight * one.succeeded
        refused += weight * one.refused
        duration += weight * one.duration_ms_total
        cost += weight * one.cost_usd_picos
    return Decayed(
        calls=calls,
        judged=judged,
        quality=_mean(score, judged),
        success=_mean(succeeded, calls),
        refusals=_mean(refused, calls),
        duration_ms=_mean(duration, calls),
        cost_usd_picos=_mean(cost, calls),
    )


def _mean(total: float, weight: float) -> float | None:
    return total / weight if weight > 0 else None


def in_order(windows: Sequence[Window]) -> list[Window]:
    """Returns windows, the oldest first."""
    return sorted(windows, key=lambda one: one.at_ms)
