"""The risk that an answer is the wrong one: a logistic regression in plain numbers, and bounds on rates. Pure.

One rule: a threshold is only as good as the data behind it, so it is set where the upper bound of the error rate, not
the rate, keeps the promise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

# How sure a bound is.
CONFIDENCE = 0.95
# Where the search for a threshold begins, as a share of all answers; which part of the doubt it may use up; and how
# many are tried instead where it fails at once.
BEGIN, WALKED, TRIED = 0.1, 0.8, 6
LEAST_SERVED = 10
_STEPS = 60


class Logistic(msgspec.Struct, frozen=True):
    """A fitted regression of being wrong: features are centred and scaled by what they were fitted on."""

    weights: list[float]
    intercept: float
    mean: list[float]
    scale: list[float]

    def risks(self, rows: np.ndarray) -> np.ndarray:
        """Returns the probability of being wrong for each row of features."""
        logits = (np.atleast_2d(rows) - np.array(self.mean)) / np.array(self.scale) @ np.array(self.weights)
        return 1 / (1 + np.exp(-np.clip(logits + self.intercept, -30, 30)))

    def risk(self, row: np.ndarray) -> float:
        """Returns the probability of being wrong for one row."""
        return float(self.risks(row)[0])


def fit(rows: np.ndarray, wrong: np.ndarray, weights: np.ndarray | None = None, *, ridge: float = 1.0) -> Logistic:
    """Fits by Newton's method with a ridge penalty, so that no feature that rises lowers the risk.

    Features are higher where less is alike; one that comes out the other way round is left out (weight 0).
    """
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    design = (rows - mean) / scale
    each = np.ones(len(rows)) if weights is None else weights
    used = list(range(rows.shape[1]))
    while True:
        beta = _newton(np.column_stack([design[:, used], np.ones(len(rows))]), wrong, each, ridge)
        falling = [column for column, weight in zip(used, beta[:-1], strict=True) if weight < 0]
        if not falling:
            break
        used = [column for column in used if column not in falling]
    full = np.zeros(rows.shape[1])
    full[used] = beta[:-1]
    return Logistic(full.tolist(), float(beta[-1]), mean.tolist(), scale.tolist())


def _newton(design: np.ndarray, wrong: np.ndarray, each: np.ndarray, ridge: float) -> np.ndarray:
    penalty = np.diag([ridge] * (design.shape[1] - 1) + [1e-6])
    beta = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        guessed = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
        slope = design.T @ (each * (guessed - wrong)) + penalty @ beta
        curve = (design * (each * guessed * (1 - guessed) + 1e-9)[:, None]).T @ design + penalty
        step = np.linalg.solve(curve, slope)
        beta -= step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-6:
            break
    return beta


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """How many answers of at most this risk there were when it was measured, and how many of them were wrong."""

    risk: float
    served: int
    wrong: float


def marks_of(risks: np.ndarray, wrong: np.ndarray, weights: np.ndarray | None = None, most: int = 400) -> list[Mark]:
    """Returns how many are served and wrong up to each risk, at most ``most`` marks, lowest risk first."""
    order = np.argsort(risks, kind="stable")
    each = np.ones(len(risks)) if weights is None else weights
    served, bad = np.cumsum(each[order]), np.cumsum((each * wrong)[order])
    at = np.unique(np.linspace(0, len(order) - 1, most).astype(int)) if len(order) else []
    return [Mark(float(risks[order[i]]), int(served[i]), round(float(bad[i]), 3)) for i in at]


def threshold(marks: Sequence[Mark], wrong_max: float) -> float:
    """Returns the highest risk up to which the rate of wrong answers is at most ``wrong_max`` for sure; 0 if none is.

    Sure means the upper Clopper–Pearson bound, for all that is tried together: whoever picked the best of many marks
    would promise more than each of them holds. From the mark that serves a tenth of all on, each is tried until one
    fails (a fixed sequence, which costs no sureness); where the first fails, a few that serve less, each with its
    share.
    """
    if not marks:
        return 0.0
    # Fewer answers could not pass with two or three of them wrong, however good the rest is.
    least = min(LEAST_SERVED / wrong_max, marks[-1].served / 2) if wrong_max > 0 else 0
    first = next(place for place, mark in enumerate(marks) if mark.served >= max(least, marks[-1].served * BEGIN))
    found = clean_threshold(marks[first:], wrong_max, 1 - (1 - CONFIDENCE) * WALKED)
    if found:
        return found
    fewer = marks[: first + 1 : max(1, (first + 1) // TRIED)]
    each = 1 - (1 - CONFIDENCE) * (1 - WALKED) / len(fewer)
    return max((mark.risk for mark in fewer if upper_bound(mark.wrong, mark.served, each) <= wrong_max), default=0.0)


def clean_threshold(marks: Sequence[Mark], wrong_max: float, confidence: float = CONFIDENCE) -> float:
    """Returns the risk of the last mark before the first, lowest risk first, whose bound is over ``wrong_max``."""
    found = 0.0
    for mark in marks:
        if upper_bound(mark.wrong, mark.served, confidence) > wrong_max:
            break
        found = mark.risk
    return found


def upper_bound(wrong: float, trials: float, confidence: float = CONFIDENCE) -> float:
    """Returns the rate that is exceeded with a chance of at most ``1 − confidence`` (Clopper–Pearson, one-sided)."""
    if trials <= 0 or wrong >= trials:
        return 1.0
    return _quantile(confidence, wrong + 1, trials - wrong)


def interval(wrong: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Returns the two-sided Clopper–Pearson interval of a rate; (0, 1) without trials."""
    if trials <= 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if wrong == 0 else _quantile(tail, wrong, trials - wrong + 1)
    high = 1.0 if wrong == trials else _quantile(1 - tail, wrong + 1, trials - wrong)
    return low, high


def _quantile(probability: float, a: float, b: float) -> float:
    """Returns the quantile of the beta distribution, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _beta(middle, a, b) < probability else (low, middle)
    return (low + high) / 2


def _beta(x: float, a: float, b: float) -> float:
    """Returns the regularised incomplete beta function, by its continued fraction (Lentz)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    fraction = c = 1.0
    d = 0.0
    for step in range(400):
        half = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        else:
            term = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        d = 1 / _away_from_zero(1 + term * d)
        c = _away_from_zero(1 + term / c)
        fraction *= c * d
        if abs(c * d - 1) < 1e-10:
            break
    return front * (fraction - 1)


def _away_from_zero(value: float) -> float:
    return value if abs(value) > 1e-30 else 1e-30
