"""Fitting a calibration to answers that are known to be right or wrong, and how well one is calibrated. Pure.

A domain has a curve of its own where it has rows enough, held to the curve of all domains together; others use that.
One rule: a curve is fitted on answers that whatever gave their features did not know.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from collegium_learning.choices import Floats, fit_choices
from collegium_learning.confidence.calibration import (
    PRIOR,
    Calibration,
    Curve,
    Features,
    probability_of,
    terms_of,
)

# With fewer answers than this a domain has no curve of its own.
ROWS_OWN_MIN = 100
# From this many on, what is left of a bend is straightened by an isotonic curve over bins of this many answers.
ROWS_ISOTONIC_MIN, ROWS_BIN = 1_000, 50
# How strongly a curve is held to its prior, in units of standardised terms: what is stated is nearly right already.
RIDGE = 100.0
_RIDGE_BIAS, _RIDGE_MIN = 0.1, 1.0
_CONSTANT, _RIDGE_CONSTANT = 1e-6, 1e6
BINS = 10
# Where the features hold a probability, no more than that is believed without data.
_IDENTITY = Curve(weights={"probability": 1.0})


class Known(NamedTuple):
    """Features of an answer, and whether it was right."""

    features: Features
    right: bool


def fit_calibration(known: Sequence[Known]) -> Calibration:
    """Returns the curves for what is known; without anything the stated prior."""
    if not known:
        return Calibration()
    informed = any(one.features.probability is not None for one in known)
    everywhere = _curve(known, _IDENTITY if informed else PRIOR)
    domains: defaultdict[str, list[Known]] = defaultdict(list)
    for one in known:
        domains[one.features.domain].append(one)
    own = {
        name: _curve(of, Curve(everywhere.bias, everywhere.weights))
        for name, of in sorted(domains.items())
        if len(of) >= ROWS_OWN_MIN and len(domains) > 1
    }
    return Calibration(everywhere, own)


def expected_calibration_error(confidences: Sequence[float], right: Sequence[bool], bins: int = BINS) -> float:
    """Returns the mean distance of confidence from accuracy over bins of equal width, weighed by their answers."""
    if not confidences:
        return 0.0
    stated, was = np.asarray(confidences, float), np.asarray(right, float)
    places = np.minimum((stated * bins).astype(int), bins - 1)
    apart = np.abs(np.bincount(places, stated - was, bins))
    return float(apart.sum() / len(stated))


def isotonic(scores: Floats, values: Floats, weights: Floats) -> tuple[tuple[float, float], ...]:
    """Returns the rising steps nearest to values over rising scores (pool adjacent violators)."""
    pools: list[tuple[float, float, float]] = []
    for score, value, weight in sorted(zip(scores.tolist(), values.tolist(), weights.tolist(), strict=True)):
        pool = (score, value, weight)
        while pools and pools[-1][1] >= pool[1]:
            before = pools.pop()
            both = before[2] + pool[2]
            pool = (
                (before[0] * before[2] + pool[0] * pool[2]) / both,
                (before[1] * before[2] + pool[1] * pool[2]) / both,
                both,
            )
        pools.append(pool)
    return tuple((score, value) for score, value, _ in pools)


def _curve(known: Sequence[Known], prior: Curve) -> Curve:
    rows = [terms_of(one.features) for one in known]
    names = sorted({name for row in rows for name in row} | set(prior.weights))
    right = np.array([one.right for one in known], float)
    terms = np.array([[1.0, *(row.get(name, 0.0) for name in names)] for row in rows])
    start = np.array([prior.bias, *(prior.weights.get(name, 0.0) for name in names)])
    spread = terms.std(axis=0)
    # A term that was the same in all rows says nothing about rows in which it is another.
    ridge = np.where(spread < _CONSTANT, _RIDGE_CONSTANT, np.maximum(RIDGE * spread**2, _RIDGE_MIN))
    ridge[0] = _RIDGE_BIAS
    # Two options for each answer: right, with its terms, and wrong, with none.
    options = np.zeros((2 * len(rows), terms.shape[1]))
    options[0::2] = terms
    chosen = np.empty(2 * len(rows))
    chosen[0::2], chosen[1::2] = right, 1.0 - right
    found = fit_choices(options, np.arange(0, 2 * len(rows), 2), chosen, np.ones(len(rows)), start, ridge)
    curve = Curve(float(found[0]), dict(zip(names, found[1:].tolist(), strict=True)), (), len(rows))
    return curve if len(rows) < ROWS_ISOTONIC_MIN else _straightened(curve, rows, right)


def _straightened(curve: Curve, rows: Sequence[dict[str, float]], right: Floats) -> Curve:
    scores = np.array([probability_of(curve, row) for row in rows])
    order = np.argsort(scores, kind="stable")
    groups = np.array_split(order, max(len(rows) // ROWS_BIN, 2))
    steps = isotonic(
        np.array([scores[group].mean() for group in groups]),
        # Half a right and half a wrong answer more: no bin is certain.
        np.array([(right[group].sum() + 0.5) / (len(group) + 1.0) for group in groups]),
        np.array([float(len(group)) for group in groups]),
    )
    return Curve(curve.bias, curve.weights, steps, curve.rows)
