"""Finding by words alone, in memory: for what the vector store cannot be asked for, or not yet. Pure.

Okapi BM25 (k1 1.2, b 0.75) over the texts given. One rule: a text that shares no word with the question is not found.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

K1 = 1.2
B = 0.75
_WORD = re.compile(r"\w+")
# Words that most English sentences share; sharing only these is sharing nothing.
_STOP_WORDS = """
a an and are as at be been but by can could did do does for from had has have he her his how i if in is it its me my no
not of on or our she should so than that the their them then there they this to us was we were what when where which who
whom why will with would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


def words_of(text: str) -> list[str]:
    """Returns the words that count, folded, in order."""
    return [word for word in _WORD.findall(text.casefold()) if word not in STOP_WORDS]


def rank_by_words(question: str, texts: Sequence[str]) -> list[tuple[int, float]]:
    """Returns the places of the texts that share words with the question and their scores, best first."""
    asked = set(words_of(question))
    counted = [Counter(words_of(text)) for text in texts]
    lengths = [sum(counts.values()) for counts in counted]
    average = sum(lengths) / len(lengths) if lengths else 0.0
    weights = {word: _rarity(sum(word in counts for counts in counted), len(counted)) for word in asked}
    scored: list[tuple[int, float]] = []
    for place, counts in enumerate(counted):
        norm = K1 * (1 - B + B * lengths[place] / average) if average else K1
        score = sum(
            weights[word] * counts[word] * (K1 + 1) / (counts[word] + norm) for word in sorted(asked) if counts[word]
        )
        if score > 0:
            scored.append((place, score))
    return sorted(scored, key=lambda one: (-one[1], one[0]))


def _rarity(found: int, of: int) -> float:
    return math.log(1 + (of - found + 0.5) / (found + 0.5))
