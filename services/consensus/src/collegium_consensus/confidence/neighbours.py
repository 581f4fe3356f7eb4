"""How often answers to questions alike were right: a mean over the nearest, shrunk. Pure; vectors come in.

One rule: what is far away says nothing, and few neighbours say little.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEAREST = 40
# How many answers the share of all questions weighs against what the neighbours say.
PRIOR_ROWS = 10.0


class Neighbours:
    """Questions of the past as rows of unit length, with a share of right answers for each."""

    def __init__(self, vectors: NDArray[np.float32], shares: NDArray[np.float64]) -> None:
        if len(vectors) != len(shares):
            raise ValueError(f"{len(vectors)} questions have {len(shares)} shares")
        self._vectors, self._shares = vectors, shares
        self._mean = float(shares.mean()) if len(shares) else 0.5

    def shares(self, vectors: NDArray[np.float32], own: NDArray[np.intp] | None = None) -> NDArray[np.float64]:
        """Returns the shrunk share near each row of ``vectors``; ``own`` are rows here to be left out, one for each."""
        if not len(self._shares):
            return np.full(len(vectors), self._mean)
        alike = vectors @ self._vectors.T
        if own is not None:
            alike[np.arange(len(vectors)), own] = -np.inf
        count = min(NEAREST, len(self._shares) - (own is not None))
        if count < 1:
            return np.full(len(vectors), self._mean)
        nearest = np.argpartition(-alike, count - 1, axis=1)[:, :count]
        return (self._shares[nearest].sum(axis=1) + PRIOR_ROWS * self._mean) / (count + PRIOR_ROWS)
