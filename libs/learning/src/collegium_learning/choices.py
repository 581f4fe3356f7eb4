"""Fitting choices: a softmax over the options of each question, by Newton's method. Pure.

Options are rows of terms; of each group of them one is chosen (or a share of several). A logistic regression is the
same with two options, one of which has no terms. One rule: without data the prior's weights come back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEPS_MAX = 50
_CLOSE = 1e-8


def fit_choices(
    terms: Floats, starts: NDArray[np.intp], chosen: Floats, weights: Floats, prior: Floats, ridge: Floats
) -> Floats:
    """Returns the weights of terms that maximise the penalised likelihood of what was chosen.

    ``terms`` has a row for every option, the options of a group together and beginning at ``starts``; ``chosen`` is a
    share for every option that sums to one in each group; ``weights`` are the groups'. The penalty is
    ``ridge / 2 * (weight - prior) ** 2`` for each term. The function is concave, so the maximum is one.
    """
    sizes = np.diff(np.append(starts, len(terms)))
    group = np.repeat(np.arange(len(starts)), sizes)
    found = prior.astype(np.float64).copy()
    value = _value(terms, starts, group, chosen, weights, found, prior, ridge)
    for _ in range(STEPS_MAX):
        shares = _shares(terms @ found, starts, group)
        slope = terms.T @ ((chosen - shares) * weights[group]) - ridge * (found - prior)
        means = np.add.reduceat(terms * shares[:, None], starts, axis=0)
        bend = (terms.T * (shares * weights[group])) @ terms - (means.T * weights) @ means + np.diag(ridge)
        step = np.linalg.solve(bend, slope)
        length, new = 1.0, value
        while length > _CLOSE:
            new = _value(terms, starts, group, chosen, weights, found + length * step, prior, ridge)
            if new >= value - _CLOSE:
                break
            length /= 2.0
        found = found + length * step
        if new - value < _CLOSE:
            break
        value = new
    return found


def _shares(scores: Floats, starts: NDArray[np.intp], group: NDArray[np.intp]) -> Floats:
    powers = np.exp(scores - np.maximum.reduceat(scores, starts)[group])
    return powers / np.add.reduceat(powers, starts)[group]


def _value(
    terms: Floats, starts: NDArray[np.intp], group: NDArray[np.intp], chosen: Floats, weights: Floats, found: Floats,
    prior: Floats, ridge: Floats,
) -> float:  # fmt: skip
    scores = terms @ found
    top = np.maximum.reduceat(scores, starts)
    logs = scores - (top + np.log(np.add.reduceat(np.exp(scores - top[group]), starts)))[group]
    return float((chosen * logs * weights[group]).sum() - (ridge * (found - prior) ** 2).sum() / 2.0)
