"""Words that tell a domain apart: class-based TF-IDF over the texts of each. Pure.

A word's weight in a domain is how often it stands there, times log(1 + words a domain has on average / how often it
stands anywhere). One rule: a word that few questions of a domain have is nobody else's to see, and no term of it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

TERMS: Final = 4
# Questions that have to have a word before it is a term: a name or a number of one person is in fewer.
QUESTIONS_MIN: Final = 4
TEXT_CHARS_MAX: Final = 2_000
TERM_CHARS_MAX: Final = 30
_WORD: Final = re.compile(r"[^\W\d_]{3,}")


def terms(texts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Returns the terms of each domain, the most telling first; none of those whose questions share no words.

    A word counts once a question.
    """
    met = {name: Counter(word for text in of for word in _words(text)) for name, of in texts.items()}
    everywhere = sum(met.values(), Counter[str]())
    average = sum(everywhere.values()) / max(1, len(met))
    found: dict[str, list[str]] = {}
    for name, counts in met.items():
        size = max(1, sum(counts.values()))
        weighed = {
            word: count / size * math.log1p(average / everywhere[word])
            for word, count in counts.items()
            if count >= QUESTIONS_MIN
        }
        found[name] = sorted(weighed, key=lambda word: (-weighed[word], word))[:TERMS]
    return found


def _words(text: str) -> set[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # noqa: PLC0415 - which a start need not wait for

    return {
        word
        for word in _WORD.findall(text[:TEXT_CHARS_MAX].casefold())
        if word not in ENGLISH_STOP_WORDS and len(word) <= TERM_CHARS_MAX
    }
