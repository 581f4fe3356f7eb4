"""What is done to a ranked list before it is shown: threshold, diversity, token budget. Pure.

One rule: each step keeps the order that it was given where it has no reason to change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

Vector = np.ndarray[tuple[int], np.dtype[np.float32]]


class Scored(Protocol):
    """Something with a score from 0 to 1."""

    @property
    def score(self) -> float:
        """How good it is."""
        ...


S = TypeVar("S", bound=Scored)


def over_threshold(found: Sequence[S], threshold: float) -> list[S]:
    """Leaves out what is scored below the threshold."""
    return [one for one in found if one.score >= threshold]


def spread(
    found: Sequence[S], vectors: Sequence[Vector | None], *, diversity: float, limit: int
) -> list[tuple[S, float]]:
    """Picks by maximal marginal relevance: (1 − diversity) · score − diversity · likeness to what was picked.

    Returns each pick with the value that it was picked for. A thing without a vector is like nothing.
    """
    if diversity <= 0:
        return [(one, one.score) for one in found[:limit]]
    scores = np.array([one.score for one in found], np.float64)
    dimensions = next((len(vector) for vector in vectors if vector is not None), 1)
    matrix = np.zeros((len(found), dimensions), np.float64)
    for row, vector in enumerate(vectors):
        if vector is not None:
            matrix[row] = vector / (float(np.linalg.norm(vector)) or 1.0)
    likeness = np.zeros(len(found))
    left = np.ones(len(found), bool)
    picked: list[tuple[S, float]] = []
    while left.any() and len(picked) < limit:
        values = np.where(left, (1 - diversity) * scores - diversity * likeness, -np.inf)
        best = int(values.argmax())
        picked.append((found[best], float(values[best])))
        left[best] = False
        likeness = np.maximum(likeness, matrix @ matrix[best])
    return picked


def within_budget(tokens: Sequence[int], budget_tokens: int | None) -> list[int]:
    """Returns the places of what fits, best first: one too large is passed over, and smaller ones after it may fit."""
    if budget_tokens is None:
        return list(range(len(tokens)))
    kept: list[int] = []
    left = budget_tokens
    for place, count in enumerate(tokens):
        if count <= left:
            kept.append(place)
            left -= count
    return kept
