"""The difference of two arms' means, by bets that may be looked at after every outcome. Pure.

Units are given an arm by a fair coin. An outcome Y of 0 to 1 then makes Z = 2 (Y − c), with its sign turned for the
control, whose mean is exactly the candidate's mean less the control's, whatever the guess c was before Y was seen; the
running mean as c makes Z small. Whoever bets a share of what can be bet safely that Z exceeds an edge has a product
that does not grow in expectation where the difference is at most the edge, nor does the average over several shares
(Waudby-Smith and Ramdas 2024): the chance that it ever reaches k is at most 1/k (Ville 1939). Edges that no bet refutes
at 2 / level are the interval. One rule: nothing that an outcome is weighed by may depend on it or on later ones.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np

from collegium_learning.ranks.bounds import BETS

# The guess weighs as much as this many outcomes of one half.
PRIOR_OUTCOMES: Final = 2.0
# How exactly an interval's ends are found.
STEPS: Final = 12
Column = np.ndarray[Any, np.dtype[np.float64]]


class Differences(NamedTuple):
    """Outcomes as bets see them, in order of arrival: Z, and how far from zero it could have been."""

    z: Column
    reach: Column

    @property
    def spoken(self) -> int:
        """How many units spoke."""
        return len(self.z)

    def turned(self) -> Differences:
        """Returns them as seen from the control."""
        return Differences(-self.z, self.reach)


class Interval(NamedTuple):
    """A difference: its estimate, and the bounds that hold at every look together."""

    value: float
    low: float
    high: float


def differences(outcomes: Column, is_candidate: np.ndarray[Any, np.dtype[np.bool_]]) -> Differences:
    """Returns outcomes (0 to 1 each) in order of arrival as bets see them."""
    before = np.concatenate(([0.0], np.cumsum(outcomes)[:-1])) if len(outcomes) else outcomes
    seen = np.arange(len(outcomes), dtype=np.float64)
    guess = (before + PRIOR_OUTCOMES / 2) / (seen + PRIOR_OUTCOMES)
    z = 2.0 * (outcomes - guess) * np.where(is_candidate, 1.0, -1.0)
    return Differences(z, 2.0 * np.maximum(guess, 1.0 - guess))


def log_evidence(found: Differences, edge: float) -> float:
    """Returns the natural logarithm of the evidence that the difference exceeds ``edge`` (−1 to 1)."""
    if not found.spoken:
        return 0.0
    gains = _gains(found, edge)
    logs = [float(np.log1p(np.maximum(share * gains, -0.999_999)).sum()) for share in BETS]
    top = max(logs)
    return top + math.log(math.fsum(math.exp(one - top) for one in logs) / len(logs))


def paths(found: Differences, edge: float) -> Column:
    """Returns that after every outcome."""
    gains = _gains(found, edge)
    logs = np.stack([np.cumsum(np.log1p(np.maximum(share * gains, -0.999_999))) for share in BETS])
    top = logs.max(axis=0)
    return top + np.log(np.exp(logs - top).mean(axis=0))


def _gains(found: Differences, edge: float) -> Column:
    """Returns what a bet of all that can be bet safely gains by each outcome."""
    room = found.reach + edge
    # Where the edge is as low as nothing can be, nothing can be lost by betting, and nothing is proven.
    safe = np.where(room > 1e-9, 1.0 / np.maximum(room, 1e-9), 0.0)
    return (found.z - edge) * safe


def interval(found: Differences, level: float) -> Interval:
    """Returns the difference with bounds of which, over all looks together, one is wrong with chance ``level``."""
    if not found.spoken:
        return Interval(0.0, -1.0, 1.0)
    value = float(np.clip(found.z.mean(), -1.0, 1.0))
    bar = math.log(2.0 / level)
    low = _refuted_below(found, value, bar)
    high = -_refuted_below(found.turned(), -value, bar)
    return Interval(value, min(low, value), max(high, value))


def _refuted_below(found: Differences, value: float, bar: float) -> float:
    """Returns the highest edge that is refuted: evidence falls as edges rise, so halving finds it."""
    low, high = -1.0, value
    for _ in range(STEPS):
        middle = (low + high) / 2
        if log_evidence(found, middle) >= bar:
            low = middle
        else:
            high = middle
    return low
