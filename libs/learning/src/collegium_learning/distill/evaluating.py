"""Keeping evaluation items out of what is trained on. Pure.

A text is like an item where both are the same but for case and blanks, where they share a run of RUN words, or where
their vectors nearly coincide. One rule: what is in doubt is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from collegium_learning.distill.selecting import plain

# As evaluations of language models count contamination.
RUN: Final = 13
COSINE: Final = 0.95
_WORD: Final = re.compile(r"\w+")


def contaminated(
    texts: Sequence[str], items: Sequence[str], vectors: np.ndarray, item_vectors: np.ndarray
) -> list[bool]:
    """Says of each text whether it is like an evaluation item; vectors are of length one, a row each."""
    if not items:
        return [False] * len(texts)
    same = {plain(item) for item in items}
    runs = {run for item in items for run in _runs(item)}
    near = (vectors @ item_vectors.T).max(axis=1) >= COSINE
    return [
        plain(text) in same or bool(near[place]) or any(run in runs for run in _runs(text))
        for place, text in enumerate(texts)
    ]


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    for at in range(len(words) - RUN + 1):
        yield tuple(words[at : at + RUN])
