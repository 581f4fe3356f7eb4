"""Thresholds with a promise: the least strict one whose loss is proven below a bound (learn-then-test). Pure.

Candidates are tested in the order from the strictest, each at the full level, and the first that fails ends it (fixed
sequence testing: Angelopoulos et al., arXiv 2110.01052), so that the promise holds for what is chosen and not for one
threshold alone. One rule: without proof the strictest behaviour stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
# How improbable a loss above the bound must be where a cheaper model takes a dearer one's questions. Stricter than what
# is promised (one time in twenty), because what is measured of the promise later is a rate of as many rows, which errs
# as much again: 2.58 standard errors of one are 1.82 of the difference of two, 3.4 in a hundred.
GAIN_LEVEL = 0.005
# Gains that are tried: shares of the questions of before. As many, because what lies between the last that is proven
# and the first that is not is given away: of a hundred, half a point of the calls.
GAIN_STEPS = 400
Method = Literal["hoeffding_bentkus", "binomial", "score"]


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

    Losses are in [0, 1]; for ``score`` in [-1, 1], as differences are.
    """
    chosen = Threshold(None, loss_max, level)
    for value, losses in candidates:
        if p_value(losses, loss_max, method) > level:
            break
        chosen = Threshold(value, loss_max, level, math.fsum(losses) / len(losses), len(losses))
    return chosen


def proven_gain(
    gains: NDArray[np.float64], lost: NDArray[np.float64], loss_max: float, level: float = GAIN_LEVEL
) -> float | None:
    """Returns the highest gain up to which the cheaper of two may answer with a loss proven below ``loss_max``.

    ``gains`` are those of asking the dearer one, estimated without their rows' own outcomes; ``lost``, in [-1, 1], is
    what the dearer one's answer was worth more. All questions count: the loss is that of the share that is given away.
    Each step is the test of ``p_value`` by ``score``.
    """
    rows = len(gains)
    if not rows:
        return None
    order = np.argsort(gains, kind="stable")
    steps = np.unique(np.quantile(gains, np.arange(1, GAIN_STEPS + 1) / GAIN_STEPS, method="lower"))
    last = np.searchsorted(gains[order], steps, side="right") - 1
    mean, squares, won = (
        np.cumsum(part)[last] / rows for part in (lost[order], lost[order] ** 2, np.maximum(-lost[order], 0.0))
    )
    spread = np.maximum(np.maximum(squares, loss_max + 2.0 * won) - loss_max**2, 0.0)
    holds = mean + NormalDist().inv_cdf(1.0 - level) * np.sqrt(spread / rows) <= loss_max
    holds &= rows * loss_max >= -math.log(level)
    count = int(np.argmin(holds)) if not holds.all() else len(steps)
    return float(steps[count - 1]) if count else None


def p_value(losses: Sequence[float], loss_max: float, method: Method = "hoeffding_bentkus") -> float:
    """Returns how probable a mean loss this low would be if the true one were above ``loss_max``; 1 without rows."""
    rows = len(losses)
    if not rows or loss_max >= 1.0:
        return 1.0 if not rows else 0.0
    mean = math.fsum(losses) / rows
    if method == "score":
        return _score(losses, mean, loss_max)
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


def _score(losses: Sequence[float], mean: float, loss_max: float) -> float:
    """The normal tail with the spread that losses have where their true mean is the bound.

    The spread of the losses themselves shrinks with their mean, so that few rows would prove too much. Where the mean
    is the bound, squares are at most the bound and twice what is won; and of rows without any loss ``exp(-rows *
    loss_max)`` is the chance. By calculation kept at levels to 2 %, for 30 to 8,000 rows and bounds to a tenth.
    """
    rows = len(losses)
    won = math.fsum(max(-loss, 0.0) for loss in losses) / rows
    squares = max(math.fsum(loss**2 for loss in losses) / rows, loss_max + 2.0 * won)
    scale = math.sqrt(2.0 * max(squares - loss_max**2, 0.0) / rows)
    tail = 0.5 * math.erfc((loss_max - mean) / scale) if scale else float(mean > loss_max)
    return max(tail, math.exp(min(-rows * loss_max, 0.0)))
