"""Words as BM25 sees them: sparse vectors of hashed stems, made where the text is, so that no text travels or is kept.

Documents carry the saturated term frequencies, questions a one for each stem; how rare a stem is (its inverse document
frequency) is the store's to say, because it changes with every point. One rule: a collection's language and average
length are used for its documents and its questions alike.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec
from qdrant_edge import Bm25, Bm25Config


class Sparse(msgspec.Struct, frozen=True, array_like=True):
    """A sparse vector: places and the values that stand there."""

    indices: list[int]
    values: list[float]


@lru_cache(maxsize=64)
def _model(language: str, average_words: int) -> Bm25:
    return Bm25(Bm25Config(language=language, avg_len=float(average_words)))


def of_document(text: str, language: str, average_words: int) -> Sparse:
    """Returns the term weights of a text that is to be found."""
    made = _model(language, average_words).embed_document(text)
    return Sparse(made.indices, made.values)


def of_question(text: str, language: str, average_words: int) -> Sparse:
    """Returns the stems of a question, each once."""
    made = _model(language, average_words).embed_query(text)
    return Sparse(made.indices, made.values)
