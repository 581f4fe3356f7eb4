"""How alike two questions are, as numbers that a risk can be learned on. Pure.

A question is compared with one entry (``alone``), or with an entry among its neighbours (``among``), whose answers are
known to be the same or not. Every feature is higher where less is alike. One rule: no feature names a word, a tenant
or a topic, so that what is learned on one traffic means the same on another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from collegium_context.semantic.veto import Veto, vetoes
from collegium_context.semantic.words import Read, is_slip

Row = np.ndarray[tuple[int], np.dtype[np.float64]]

ALONE: Final = (
    "distance", "distance_root", "distance_earlier", "unmatched_both", "unmatched_one", "has_unmatched", "slips",
    "grams", "stems", "asks_otherwise",
)  # fmt: skip
AMONG: Final = (
    *ALONE, "margin", "margin_small", "second", "disagreeing", "disagreeing_top", "agreeing_mean", "crowded",
)  # fmt: skip
# How many neighbours are looked at.
NEIGHBOURS: Final = 20
_TOP: Final = 5


class Neighbour(NamedTuple):
    """An entry near a question: its cosine, and which answer it has (entries with the same answer share the group)."""

    cosine: float
    group: int | str


class Compared(NamedTuple):
    """Two questions, turn by turn: what speaks against them outright, and the features of ``ALONE``."""

    vetoes: frozenset[Veto]
    row: Row


def compare(asked: Sequence[Read], kept: Sequence[Read], cosines: Sequence[float]) -> Compared:
    """Compares two conversations of the same shape, turn by turn; ``cosines`` are those of their turns, in order.

    What differs anywhere counts: a veto in any turn is one, and unmatched words add up.
    """
    against: set[Veto] = set()
    both = one = slips = 0
    grams = stems = 1.0
    other_asking = 0.0
    for index, (mine, its) in enumerate(zip(asked, kept, strict=True)):
        against |= vetoes(mine, its, in_order=index < len(asked) - 1)
        left, right, slipped = _unmatched(mine.stems, its.stems)
        slips += slipped
        if index < len(asked) - 1 and (left or right):
            # What was said before is what the last message is about: nobody can tell how much of it matters.
            against.add("context")
        both += min(left, right)
        one += abs(left - right)
        grams = min(grams, _overlap(mine.grams, its.grams))
        stems = min(stems, _overlap(mine.stems, its.stems))
        other_asking = max(other_asking, float(mine.questions != its.questions))
    distance = max(0.0, 1.0 - cosines[-1])
    row = np.array(
        [
            distance, distance**0.5, max(0.0, 1.0 - min(cosines)) - distance, min(both, 4), min(one, 4),
            float(both + one > 0), min(slips, 3), 1 - grams, 1 - stems, other_asking,
        ],
        dtype=np.float64,
    )  # fmt: skip
    return Compared(frozenset(against), row)


def among(alone: Row, neighbours: Sequence[Neighbour]) -> Row:
    """Adds to the features of a question and its nearest entry what the other neighbours (nearest first) say of it."""
    first = neighbours[0]
    same = [one.cosine for one in neighbours if one.group == first.group]
    others = [one.cosine for one in neighbours if one.group != first.group]
    farthest = neighbours[-1].cosine
    rival = max(others, default=farthest)
    margin = first.cosine - rival
    top = neighbours[:_TOP]
    return np.concatenate(
        [
            alone,
            [
                max(0.0, 0.4 - margin), max(0.0, 0.1 - margin), 1 - (same[1] if len(same) > 1 else farthest),
                1 - len(same) / len(neighbours), 1 - sum(one.group == first.group for one in top) / len(top),
                1 - sum(same) / len(same), sum(one.cosine for one in neighbours) / len(neighbours),
            ],
        ]
    )  # fmt: skip


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a or b else 1.0


def _unmatched(a: frozenset[str], b: frozenset[str]) -> tuple[int, int, int]:
    """Counts the content words that one has and the other has not, and those that are the same word mistyped.

    A word that begins the other's counts as it.
    """
    left, right = a - b, b - a
    if not left or not right:
        return len(left), len(right), 0
    slips = 0
    for mine in left:
        for its in right:
            if is_slip(mine, its):
                slips += 1
            elif not (min(len(mine), len(its)) >= 4 and (mine.startswith(its) or its.startswith(mine))):
                continue
            left, right = left - {mine}, right - {its}
            break
    return len(left), len(right), slips
