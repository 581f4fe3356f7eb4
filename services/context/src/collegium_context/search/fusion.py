"""Two ranked lists become one. Pure.

Each side's score is divided by its best, and the two are added by weight; what a side did not find gets nothing from
it. One rule: every candidate remembers what each side said of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from collegium_contracts.knowledge import SearchSignal

# How little the first ranks differ; the value that everybody uses.
RANK_CONSTANT = 60


class Ranked(Protocol):
    """A hit of one side: its id and that side's own score."""

    @property
    def id(self) -> str:
        """Which point."""
        ...

    @property
    def score(self) -> float:
        """How good, by this side's measure; best first in a list."""
        ...


class Candidate(NamedTuple):
    """A point that at least one side found; ``score`` is from 0 to 1."""

    id: str
    score: float
    dense: SearchSignal | None
    words: SearchSignal | None
    ranks: tuple[int | None, ...] = ()
    """Its rank for each wording of a question, where there are several."""


def fused(dense: Sequence[Ranked], words: Sequence[Ranked], weight: float) -> list[Candidate]:
    """Fuses both lists, best first; ``weight`` (0 to 1) is the dense side's, and of equals the words' better is first.

    Where one side found nothing the other counts alone.
    """
    share = 1.0 if not words else weight if dense else 0.0
    by_dense, by_words = _signals(dense), _signals(words)
    best_dense, best_words = _best(dense), _best(words)
    made: list[Candidate] = []
    for point in dict.fromkeys((*by_words, *by_dense)):
        near, said = by_dense.get(point), by_words.get(point)
        score = 0.0
        if near is not None:
            score += share * max(0.0, near.score) / best_dense
        if said is not None:
            score += (1 - share) * max(0.0, said.score) / best_words
        made.append(Candidate(point, score, near, said))
    made.sort(key=lambda one: -one.score)
    return made


def by_rank(lists: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """Fuses what several wordings of a question found, the plain one first, into one list, best first.

    By reciprocal rank, because scores of two questions cannot be compared. The plain wording counts as much as all
    others together: what a model made of a question may be wrong. 1 is what is first for all of them. Signals are
    those of the first wording that found it.
    """
    if len(lists) == 1:
        return list(lists[0])
    weights = [0.5, *[0.5 / (len(lists) - 1)] * (len(lists) - 1)]
    ranks = [{one.id: rank for rank, one in enumerate(found, 1)} for found in lists]
    made: dict[str, Candidate] = {}
    for found in lists:
        for one in found:
            if one.id not in made:
                places = tuple(by_id.get(one.id) for by_id in ranks)
                score = sum(
                    weight * (RANK_CONSTANT + 1) / (RANK_CONSTANT + place)
                    for weight, place in zip(weights, places, strict=True)
                    if place is not None
                )
                made[one.id] = one._replace(score=score, ranks=places)
    return sorted(made.values(), key=lambda one: -one.score)


def _signals(ranked: Sequence[Ranked]) -> dict[str, SearchSignal]:
    return {hit.id: SearchSignal(rank, float(hit.score)) for rank, hit in enumerate(ranked, 1)}


def _best(ranked: Sequence[Ranked]) -> float:
    return float(ranked[0].score) if ranked and ranked[0].score > 0 else 1.0
