"""What a policy would have reached on tasks that another one decided: by logged chances, and doubly robust. Pure.

Self-normalised propensity scores weigh what was seen by how much likelier the policy would have chosen it (Swaminathan
and Joachims, 2015); doubly robust adds what a model expects of what was not chosen, and errs only where both do (Dudík
and others, arXiv 1103.4601). One rule: a task that nobody drew tells nothing of what was not chosen, so chances of 1
count for what was chosen alone.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from collegium_learning.routing.lessons import Doubles, Places

RESAMPLED: Final = 400
# Weights beyond this say more about luck than about the policy.
WEIGHT_MAX: Final = 50.0


class Logged(NamedTuple):
    """Tasks that were decided: the chosen column, its chance, the score seen, and what is expected of each column."""

    chosen: Places
    propensity: Doubles
    scores: Doubles
    expected: Doubles


class Estimate(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


def snips(logged: Logged, policy: Doubles, seed: int) -> Estimate:
    """Returns the mean score of a policy, given as the chance of each column (rows by columns)."""
    weights = _weights(logged, policy)
    value = _ratio(weights, logged.scores)
    drawn = np.random.default_rng(seed)
    samples: list[float] = []
    for _ in range(RESAMPLED):
        places = drawn.integers(0, len(weights), len(weights))
        samples.append(_ratio(weights[places], logged.scores[places]))
    return _estimate(value, samples)


def robust(logged: Logged, policy: Doubles, seed: int) -> Estimate:
    """Returns the mean score of a policy, doubly robust."""
    terms = _terms(logged, policy)
    return _estimate(float(terms.mean()), _means(terms, seed))


def gained(logged: Logged, policy: Doubles, before: Doubles, seed: int) -> Estimate:
    """Returns how much more a policy would have reached than another, doubly robust on the same tasks."""
    terms = _terms(logged, policy) - _terms(logged, before)
    return _estimate(float(terms.mean()), _means(terms, seed))


def _weights(logged: Logged, policy: Doubles) -> Doubles:
    chance = policy[np.arange(len(logged.chosen)), logged.chosen]
    return np.minimum(chance / np.maximum(logged.propensity, 1e-9), WEIGHT_MAX)


def _terms(logged: Logged, policy: Doubles) -> Doubles:
    rows = np.arange(len(logged.chosen))
    expected = (policy * logged.expected).sum(axis=1)
    return expected + _weights(logged, policy) * (logged.scores - logged.expected[rows, logged.chosen])


def _ratio(weights: Doubles, scores: Doubles) -> float:
    total = float(weights.sum())
    return float((weights * scores).sum()) / total if total > 0.0 else 0.0


def _means(terms: Doubles, seed: int) -> list[float]:
    drawn = np.random.default_rng(seed)
    return [float(drawn.choice(terms, len(terms)).mean()) for _ in range(RESAMPLED)]


def _estimate(value: float, samples: list[float]) -> Estimate:
    low, high = np.percentile(samples, [2.5, 97.5])
    return Estimate(value, float(low), float(high))
