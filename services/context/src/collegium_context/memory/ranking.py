"""Which memories are given back, and in what order. Pure.

Two rankings, by meaning (cosine) and by words (BM25), are fused by rank, because their scores have no common scale; the
fused score is lowered with age and with the distance of the path. One rule: what neither signal finds is not recalled,
however new or near it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

# The usual constant of reciprocal rank fusion.
RANK_CONSTANT = 60
# Below this cosine sentences have nothing to do with each other (MiniLM: unrelated ones are under .2).
MEANING_MIN = 0.25
# A memory loses half of what age may take away every month, and never more than this share.
HALF_LIFE_MS = 30 * 86_400_000
AGE_SHARE = 0.25
# Each step up from the reader's path.
STEP_FACTOR = 0.92
# Sentences above this cosine say nearly the same: they are linked, and both are kept, because they may differ in a name
# or a number.
SIMILAR_MIN = 0.95
_BYTES_PER_TOKEN = 3


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """Why a memory was recalled: cosine and BM25 score with their ranks from 1 (none: not found by it), age in days,
    steps from the reader's path, and the score that they make."""

    meaning: float | None = None
    meaning_rank: int | None = None
    words: float | None = None
    words_rank: int | None = None
    age_days: float = 0.0
    distance: int = 0
    score: float = 0.0


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A memory as the two signals found it."""

    id: str
    meaning: tuple[int, float] | None = None
    words: tuple[int, float] | None = None


def join(meaning: Iterable[tuple[str, float]], words: Iterable[tuple[str, float]]) -> list[Found]:
    """Joins two lists of ids with scores, each best first; meaning too weak to count is left out."""
    by_meaning = {one: (rank, score) for rank, (one, score) in enumerate(meaning, start=1) if score >= MEANING_MIN}
    by_words = {one: (rank, score) for rank, (one, score) in enumerate(words, start=1) if score > 0}
    return [Found(id=one, meaning=by_meaning.get(one), words=by_words.get(one)) for one in {**by_meaning, **by_words}]


def signals_of(found: Found, *, age_ms: int, distance: int) -> Signals:
    """Scores what was found, from above 0 to at most 1."""
    ranks = [rank for rank, _ in (one for one in (found.meaning, found.words) if one is not None)]
    fused = sum((RANK_CONSTANT + 1) / (RANK_CONSTANT + rank) for rank in ranks) / 2
    freshness = 0.5 ** (max(0, age_ms) / HALF_LIFE_MS)
    score = fused * (1 - AGE_SHARE * (1 - freshness)) * STEP_FACTOR**distance
    return Signals(
        meaning=found.meaning[1] if found.meaning else None,
        meaning_rank=found.meaning[0] if found.meaning else None,
        words=found.words[1] if found.words else None,
        words_rank=found.words[0] if found.words else None,
        age_days=round(max(0, age_ms) / 86_400_000, 3),
        distance=distance,
        score=round(score, 6),
    )


def tokens_of(text: str) -> int:
    """Returns about how many tokens a text has, rather too many: a token is three bytes or more."""
    return -(-len(text.encode()) // _BYTES_PER_TOKEN)


def within_budget(sizes: Sequence[int], *, limit: int, budget: int) -> list[int]:
    """Returns the places of at most ``limit`` sizes, in their order, whose sum is at most ``budget``.

    One that is too big for what is left gives way to smaller ones after it.
    """
    chosen: list[int] = []
    for place, size in enumerate(sizes):
        if len(chosen) == limit:
            break
        if size <= budget:
            chosen.append(place)
            budget -= size
    return chosen
