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
        table = shares.reshape(len(shares), -1).astype(np.float64)
        self._vectors, self._mean = vectors, table.mean(axis=0)
        self._places = {name: place for place, name in enumerate(sorted(set(domains)))}
        of = np.array([self._places[name] for name in domains])
        sums = np.zeros((len(self._places), table.shape[1]))
        np.add.at(sums, of, table)
        rows = np.bincount(of, minlength=len(self._places))[:, None] + DOMAIN_ROWS
        self._domains = (sums + DOMAIN_ROWS * self._mean) / rows
        self._rest = table - self._domains[of]

    def shares(self, domains: Sequence[str], vectors: Vectors) -> Floats:
        """Returns the shares to be expected of questions, a row for each, a column for each share."""
        places = [self._places.get(name, -1) for name in domains]
        expected = np.array([self._mean if place < 0 else self._domains[place] for place in places])
        return expected.reshape(len(places), -1) + self._near(vectors)

    def _near(self, vectors: Vectors) -> Floats:
        count = min(NEAREST, len(self._rest))
        near = np.zeros((len(vectors), self._rest.shape[1]))
        for start in range(0, len(vectors), _BLOCK):
            block = slice(start, start + _BLOCK)
            nearest = np.argpartition(-(vectors[block] @ self._vectors.T), count - 1, axis=1)[:, :count]
            near[block] = self._rest[nearest].sum(axis=1) / (count + NEAR_ROWS)
        return near


def held_out_shares(domains: Sequence[str], vectors: Vectors, shares: Floats, folds: Sequence[Sequence[int]]) -> Floats:
    """Returns the shares to be expected of each question by those of other folds.

    Whole folds are held out: a share that leaves out one question alone is the lower the better that one was answered,
    and whatever is fitted to it learns that.
    """
    table = shares.reshape(len(shares), -1).astype(np.float64)
    expected = np.tile(table.mean(axis=0), (len(table), 1))
    for fold in folds:
        held = set(fold)
        rest = [place for place in range(len(table)) if place not in held]
        if rest and held:
            others = Neighbours([domains[place] for place in rest], vectors[rest], table[rest])
            expected[list(fold)] = others.shares([domains[place] for place in fold], vectors[list(fold)])
    return expected
