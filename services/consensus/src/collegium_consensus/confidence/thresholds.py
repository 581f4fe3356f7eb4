"""Thresholds with a promise: the least strict one whose loss is proven below a bound (learn-then-test). Pure.

Candidates are tested in the order from the strictest, each at the full level, and the first that fails ends it (fixed
sequence testing: Angelopoulos et al., arXiv 2110.01052), so that the promise holds for what is chosen and not for one
threshold alone. One rule: without proof the strictest behaviour stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

LEVEL = 0.05
Method = Literal["hoeffding_bentkus", "binomial", "normal"]


class Threshold(msgspec.Struct, frozen=True):
    """A chosen threshold: nothing is let through without one. ``loss`` and ``rows`` are what it was proven on."""

    value: float | None
    loss_max: float
    level: float
    loss: float = 0.0
    rows: int = 0


def learn_then_test(
    candidates: Iterable[tuple[float, Sequence[float]]],
    loss_max: float,
    level: float = LEVEL,
    method: Method = "hoeffding_bentkus",
) -> Threshold:
    """Returns the last of ``candidates`` (threshold, losses of single rows), strictest first, that holds in sequence.

    Losses are in [0, 1]; for ``normal`` in [-1, 1], as differences are, and rows enough for their mean to be normal.
    """
    chosen = Threshold(None, loss_max, level)
    for value, losses in candidates:
        if p_value(losses, loss_max, method) > level:
            break
        chosen = Threshold(value, loss_max, level, math.fsum(losses) / len(losses), len(losses))
    return chosen


def p_value(losses: Sequence[float], loss_max: float, method: Method = "hoeffding_bentkus") -> float:
    """Returns how probable a mean loss this low would be if the true one were above ``loss_max``; 1 without rows."""
    rows = len(losses)
    if not rows or loss_max >= 1.0:
        return 1.0 if not rows else 0.0
    mean = math.fsum(losses) / rows
    if method == "normal":
        return _normal(losses, mean, loss_max)
    if method == "binomial":
        return binomial_tail(round(mean * rows), rows, loss_max)
    if mean >= loss_max:
        return 1.0
    hoeffding = math.exp(-rows * _divergence(mean, loss_max))
    bentkus = math.e * binomial_tail(math.ceil(mean * rows - 1e-9), rows, loss_max)
    return min(hoeffding, bentkus, 1.0)


def binomial_tail(events: int, trials: int, share: float) -> float:
    """Returns P(X <= events) for X ~ Bin(trials, share)."""
    if events >= trials or share <= 0.0:
        return 1.0
    if share >= 1.0 or events < 0:
        return 0.0
    log_odds, log_rest = math.log(share) - math.log1p(-share), trials * math.log1p(-share)
    log_count, total = 0.0, 0.0
    for event in range(events + 1):
        if event:
            log_count += math.log(trials - event + 1) - math.log(event)
        total += math.exp(log_rest + log_count + event * log_odds)
    return min(total, 1.0)


def _divergence(low: float, high: float) -> float:
    first = low * math.log(low / high) if low > 0.0 else 0.0
    return first + (1.0 - low) * math.log((1.0 - low) / (1.0 - high))


def _normal(losses: Sequence[float], mean: float, loss_max: float) -> float:
    rows = len(losses)
    # One more row with the whole loss: identical losses prove nothing about what was not seen.
    spread = (math.fsum((loss - mean) ** 2 for loss in losses) + 1.0) / rows
    return 0.5 * math.erfc((loss_max - mean) / math.sqrt(2.0 * spread / rows))
