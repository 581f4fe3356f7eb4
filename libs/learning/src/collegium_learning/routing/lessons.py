"""Outcomes of before, in columns: what was seen of each question, and what came of each model that answered it. Pure.

A score, cost or time that nobody saw is NaN; where only one model answered, one column of a row is filled. One rule:
nothing here tells one tenant's rows from another's, so whoever gathers lessons gathers those of one tenant alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from collegium_learning.routing.features import Floats

Doubles = NDArray[np.float64]
Truths = NDArray[np.bool_]
Places = NDArray[np.int64]


class Beside(NamedTuple):
    """How unsure the difference of each model to ``reference`` is everywhere (a standard deviation), in their order."""

    reference: str
    sd: tuple[float, ...]


class Lessons(NamedTuple):
    """Questions by models. ``rows`` holds zeros where ``has_row`` is false: of such a question its domain is known.

    ``told`` (none: all) marks the scores that are words about an answer; the others were filled in by what second
    answers tell of differences, and ``beside`` says how unsure those are.
    """

    models: tuple[str, ...]
    domains: tuple[str, ...]
    rows: Floats
    has_row: Truths
    scores: Doubles
    costs_usd: Doubles
    seconds: Doubles
    told: Truths | None = None
    beside: Beside | None = None

    def at(self, places: Places) -> Lessons:
        """Returns some of them."""
        domains = tuple(self.domains[place] for place in places)
        return Lessons(
            self.models,
            domains,
            self.rows[places],
            self.has_row[places],
            self.scores[places],
            self.costs_usd[places],
            self.seconds[places],
            self.told[places] if self.told is not None else None,
            self.beside,
        )

    @property
    def size(self) -> int:
        """How many questions there are."""
        return len(self.domains)


def folds(count: int, seed: int, of: int = 5) -> list[tuple[Places, Places]]:
    """Returns (the rest, the fold) so many times, at random; fewer folds of few rows."""
    order = np.random.default_rng(seed).permutation(count)
    parts = [np.sort(part) for part in np.array_split(order, min(of, count)) if len(part)]
    return [(np.setdiff1d(order, part), part) for part in parts]


def domain_places(domains: Sequence[str]) -> tuple[list[str], Places]:
    """Returns the names of domains in order, and each question's place among them."""
    names = sorted(set(domains))
    place = {name: number for number, name in enumerate(names)}
    return names, np.array([place[name] for name in domains], np.int64)
