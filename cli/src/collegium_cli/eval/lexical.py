"""BM25 over a whole corpus, as the embedded store has it: the same stems and rarity, without its process."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from collegium_context.vectors import words

LANGUAGE = "english"


class Lexical:
    """An inverted index of texts by place."""

    def __init__(self, texts: Sequence[str], average_words: int) -> None:
        self._average_words = average_words
        self._texts = len(texts)
        places: dict[int, list[int]] = {}
        weights: dict[int, list[float]] = {}
        for place, text in enumerate(texts):
            sparse = words.of_document(text, LANGUAGE, average_words)
            for stem, weight in zip(sparse.indices, sparse.values, strict=True):
                places.setdefault(stem, []).append(place)
                weights.setdefault(stem, []).append(weight)
        self._postings = {
            stem: (np.array(found, np.int64), np.array(weights[stem]) * self._rarity(len(found)))
            for stem, found in places.items()
        }

    def _rarity(self, holders: int) -> float:
        return math.log(1 + (self._texts - holders + 0.5) / (holders + 0.5))

    def scores(self, question: str) -> np.ndarray:
        """Returns the score of every text; 0 where they have no stem in common."""
        scores = np.zeros(self._texts)
        for stem in words.of_question(question, LANGUAGE, self._average_words).indices:
            if (posting := self._postings.get(stem)) is not None:
                scores[posting[0]] += posting[1]
        return scores
