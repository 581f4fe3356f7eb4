"""Free text: answers that mean the same share a key. Pure; the embedding is handed in.

Two texts are together where their vectors are near and they hold the same numbers and the same negations, which
vectors do not see; of a group every two are together (complete linkage), so that a chain of small steps does not join
what is far apart. One rule: groups do not depend on the order of texts, nor on how often one is given.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence

from collegium_learning.answers.normalise import normalise

Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]

# The cosine from which two texts of the bundled embedder are taken for rewordings of one.
COSINE_MIN = 0.85
# Longer texts are compared by their beginning, which is all that an embedder reads; more texts than these not at all.
CHARS_MAX, TEXTS_MAX = 2_000, 64
# Of fewer words than these an answer is a name or a value.
WORDS_MIN = 4
_WORD = re.compile(r"[^\W\d_]{2,}")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATION = re.compile(r"\b(?:not|no|never|none|neither|nor|cannot|without|false|incorrect|\w+n't)\b")


def meant(key: str) -> str:
    """Returns the beginning of a text that is compared by what it means; empty for one that is compared as it stands.

    Vectors of single words tell little: opposites and names of a kind lie near each other.
    """
    return key[:CHARS_MAX] if len(_WORD.findall(key[:CHARS_MAX])) >= WORDS_MIN and key.isprintable() else ""


def clustered(texts: Mapping[int, str], embed: Embed, cosine_min: float = COSINE_MIN) -> dict[int, str]:
    """Returns a key for each text by attempt number; equal for those that mean the same, empty for empty ones.

    A group's key is that of its first text in the order of keys.
    """
    keys = {number: normalise(text) for number, text in texts.items()}
    distinct = sorted({key for key in keys.values() if key})
    if not 1 < len(distinct) <= TEXTS_MAX:
        return keys
    vectors = [_unit(vector) for vector in embed([key[:CHARS_MAX] for key in distinct])]
    near = {
        pair: _cosine(vectors[pair[0]], vectors[pair[1]])
        for pair in itertools.combinations(range(len(distinct)), 2)
        if _agree(distinct[pair[0]], distinct[pair[1]])
    }
    named = {
        distinct[place]: distinct[group[0]] for group in _groups(len(distinct), near, cosine_min) for place in group
    }
    return {number: named.get(key, "") for number, key in keys.items()}


def _groups(count: int, near: Mapping[tuple[int, int], float], least: float) -> list[list[int]]:
    groups = [[place] for place in range(count)]

    def link(pair: tuple[int, int]) -> float:
        first, second = groups[pair[0]], groups[pair[1]]
        return min(near.get((min(a, b), max(a, b)), -1.0) for a in first for b in second)

    while len(groups) > 1:
        pair = max(itertools.combinations(range(len(groups)), 2), key=link)
        if link(pair) < least:
            break
        groups[pair[0]] = sorted(groups[pair[0]] + groups.pop(pair[1]))
    return groups


def _agree(first: str, second: str) -> bool:
    return sorted(_NUMBER.findall(first)) == sorted(_NUMBER.findall(second)) and (
        len(_NEGATION.findall(first)) % 2 == len(_NEGATION.findall(second)) % 2
    )


def _unit(vector: Sequence[float]) -> list[float]:
    length = sum(value * value for value in vector) ** 0.5 or 1.0
    return [value / length for value in vector]


def _cosine(first: Sequence[float], second: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))
