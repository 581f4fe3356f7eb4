"""What second answers to the same question tell of models: whether both said the same, and who was right where not.

A second answer is rarely judged itself, but beside the first one it need not be: where both said the same they are as
good, and where not, a word about the first decides as far as only one of two answers is right. What no word decides is
filled in by how it was decided elsewhere, and how unsure that is is kept beside it. One rule: what was filled in counts
for differences between models, never as a word about one of them. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from collegium_learning.routing.lessons import Beside, Doubles, Lessons, Places

# Before any word about differing answers: of four, the one of the higher rank is right in two, the other in one, and
# neither in one (a Dirichlet prior).
HIGHER_RIGHT, LOWER_RIGHT, NEITHER_RIGHT = 2.0, 1.0, 1.0
PRIOR_WORDS: Final = 4.0
# What a model's answers are worth before any word about them, as if so many words had said so.
PRIOR_SCORE: Final = 0.7


class Second(NamedTuple):
    """A question (its row) that ``served`` answered (a column) was asked of ``other`` too: did both say the same?"""

    row: int
    served: int
    other: int
    same: bool


class _Split(NamedTuple):
    """Of differing answers of two models: the shares in which only the first, and only the second, is right."""

    first: float
    second: float
    # Of those in which the other one is wrong.
    first_else: float
    second_else: float
    sd: float


# Points of the triangle of shares (only the first, only the second is right), none on its edges.
_STEPS: Final = 60
_GRID: Final = np.array(
    [((one + 0.5) / _STEPS, (two + 0.5) / _STEPS) for one in range(_STEPS) for two in range(_STEPS - one - 1)]
)


def completed(lessons: Lessons, seconds: Sequence[Second], merit: Sequence[float], reference: int) -> Lessons:
    """Returns lessons with second answers' outcomes filled in.

    ``lessons`` hold the words alone, one column of a row; ``merit`` is smaller for models of a higher rank, and
    ``reference`` the column that others are compared with.
    """
    told = ~np.isnan(lessons.scores)
    scores = lessons.scores.copy()
    splits = _splits(seconds, lessons.scores, merit)
    usual = _usual(lessons.scores)
    for one in seconds:
        word = lessons.scores[one.row, one.served]
        base = float(scores[one.row, one.served]) if not np.isnan(scores[one.row, one.served]) else usual[one.served]
        scores[one.row, one.served] = base
        if not told[one.row, one.other]:
            scores[one.row, one.other] = base - _gain(one, float(word), splits)
    sd = _beside(scores, told, seconds, splits, reference)
    return lessons._replace(scores=scores, told=told, beside=Beside(lessons.models[reference], tuple(sd)))


def _splits(seconds: Sequence[Second], words: Doubles, merit: Sequence[float]) -> dict[tuple[int, int], _Split]:
    """For each two models (the one of the higher rank first) how often who was right where they differed."""
    counts: dict[tuple[int, int], list[float]] = {}
    for one in seconds:
        pair = _pair(one, merit)
        count = counts.setdefault(pair, [0.0, 0.0, 0.0, 0.0])
        word = float(words[one.row, one.served])
        if one.same or np.isnan(word):
            continue
        place = 0 if one.served == pair[0] else 2
        count[place] += word
        count[place + 1] += 1.0 - word
    return {pair: _split(*count) for pair, count in counts.items()}


def _split(first_right: float, first_wrong: float, second_right: float, second_wrong: float) -> _Split:
    """The shares by words about one answer of two: a word about one bounds the other, as only one can be right."""
    first, second = _GRID[:, 0], _GRID[:, 1]
    logs = (
        (first_right + HIGHER_RIGHT - 1.0) * np.log(first)
        + (second_right + LOWER_RIGHT - 1.0) * np.log(second)
        + (NEITHER_RIGHT - 1.0) * np.log(1.0 - first - second)
        + first_wrong * np.log(1.0 - first)
        + second_wrong * np.log(1.0 - second)
    )
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()

    def mean(of: Doubles) -> float:
        return float((weights * of).sum())

    apart = first - second
    sd = float(np.sqrt(max(0.0, mean(apart**2) - mean(apart) ** 2)))
    return _Split(mean(first), mean(second), mean(first / (1.0 - second)), mean(second / (1.0 - first)), sd)


def _pair(one: Second, merit: Sequence[float]) -> tuple[int, int]:
    first, second = sorted((one.served, one.other), key=lambda column: (merit[column], column))
    return first, second


def _gain(one: Second, word: float, splits: dict[tuple[int, int], _Split]) -> float:
    """How much more who answered is worth than who was asked too."""
    if one.same:
        return 0.0
    pair = next(pair for pair in ((one.served, one.other), (one.other, one.served)) if pair in splits)
    split = splits[pair]
    is_first = pair[0] == one.served
    if np.isnan(word):
        return split.first - split.second if is_first else split.second - split.first
    return word - (1.0 - word) * (split.second_else if is_first else split.first_else)


def _usual(words: Doubles) -> Doubles:
    told = ~np.isnan(words)
    total = np.where(told, words, 0.0).sum(axis=0)
    return (total + PRIOR_WORDS * PRIOR_SCORE) / (told.sum(axis=0) + PRIOR_WORDS)


def _beside(
    scores: Doubles,
    told: np.ndarray,
    seconds: Sequence[Second],
    splits: dict[tuple[int, int], _Split],
    reference: int,
) -> list[float]:
    """Returns how unsure each model's difference to the reference is everywhere: by second answers, or by words."""
    count = scores.shape[1]
    words = told.sum(axis=0)
    usual = _usual(np.where(told, scores, np.nan))
    alone = np.maximum(usual * (1.0 - usual), 0.02) / (words + PRIOR_WORDS)
    found = np.sqrt(alone + alone[reference])
    rows: list[list[int]] = [[] for _ in range(count)]
    differing = np.zeros(count)
    for one in seconds:
        if reference not in (one.served, one.other):
            continue
        column = one.other if one.served == reference else one.served
        rows[column].append(one.row)
        differing[column] += not one.same
    for column in range(count):
        places: Places = np.array(rows[column], np.int64)
        if not len(places):
            continue
        gains = scores[places, reference] - scores[places, column]
        pair = next(pair for pair in ((reference, column), (column, reference)) if pair in splits)
        # One more pair that differs: no number of equal answers proves that the next is equal too.
        spread = (float(((gains - gains.mean()) ** 2).sum()) + 1.0) / len(places)
        unsure = (differing[column] + 1.0) / (len(places) + 1.0) * splits[pair].sd
        found[column] = min(found[column], float(np.sqrt(spread / len(places) + unsure**2)))
    found[reference] = 0.0
    return [float(value) for value in found]
