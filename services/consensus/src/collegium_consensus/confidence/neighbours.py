"""How often answers to questions alike were right: the domain's share, and what the nearest questions differ from it.

Both are shrunk: a domain towards all of them, the neighbours towards their domains. Pure; vectors come in. One rule:
what is far away says nothing, and few neighbours say little.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NEAREST = 15
# How many questions the share of all weighs against a domain's, and that of domains against the neighbours'.
DOMAIN_ROWS, NEAR_ROWS = 30.0, 30.0
# Questions that are compared with all others at a time: some tens of megabytes.
_BLOCK = 1_000

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]


class Neighbours:
    """Questions of the past: domains, vectors of unit length, and any number of shares for each (columns)."""

    def __init__(self, domains: Sequence[str], vectors: Vectors, shares: Floats) -> None:
        if not len(domains) == len(vectors) == len(shares) or not len(shares):
            raise ValueError(f"{len(domains)} domains and {len(vectors)} vectors for {len(shares)} shares")
        self._vectors, self._shares = vectors, shares.reshape(len(shares), -1).astype(np.float64)
        self._mean = self._shares.mean(axis=0)
        self._places = {name: place for place, name in enumerate(sorted(set(domains)))}
        self._of = np.array([self._places[name] for name in domains])
        self._counts = np.bincount(self._of, minlength=len(self._places)).astype(np.float64)
        self._sums = np.zeros((len(self._places), self._shares.shape[1]))
        np.add.at(self._sums, self._of, self._shares)
        self._rest = self._shares - self._domain_own()

    def shares(self, domains: Sequence[str], vectors: Vectors) -> Floats:
        """Returns the shares to be expected of questions, a row for each, a column for each share."""
        places = [self._places.get(name, -1) for name in domains]
        expected = np.array([self._mean if place < 0 else self._domain(place) for place in places])
        return expected.reshape(len(places), -1) + self._near(vectors, None)

    def own(self) -> Floats:
        """Returns the shares to be expected of the questions of the past, each without itself."""
        return self._domain_own() + self._near(self._vectors, np.arange(len(self._vectors)))

    def _domain(self, place: int) -> Floats:
        return (self._sums[place] + DOMAIN_ROWS * self._mean) / (self._counts[place] + DOMAIN_ROWS)

    def _domain_own(self) -> Floats:
        rows = (self._counts[self._of] - 1.0 + DOMAIN_ROWS)[:, None]
        return (self._sums[self._of] - self._shares + DOMAIN_ROWS * self._mean) / rows

    def _near(self, vectors: Vectors, own: NDArray[np.intp] | None) -> Floats:
        count = min(NEAREST, len(self._shares) - (own is not None))
        near = np.zeros((len(vectors), self._shares.shape[1]))
        if count < 1:
            return near
        for start in range(0, len(vectors), _BLOCK):
            block = slice(start, start + _BLOCK)
            alike = vectors[block] @ self._vectors.T
            if own is not None:
                alike[np.arange(len(alike)), own[block]] = -np.inf
            nearest = np.argpartition(-alike, count - 1, axis=1)[:, :count]
            near[block] = self._rest[nearest].sum(axis=1) / (count + NEAR_ROWS)
        return near
