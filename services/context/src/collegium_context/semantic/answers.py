"""Whether two answers are the same: what exploring and every miss is judged by. Pure.

Equal texts are; so are texts that say the same numbers, deny as often and whose vectors are close. Models word an
answer differently each time, so this errs both ways; where it says `another`, the cache only becomes more careful.
One rule: answers with tools' calls or several choices are the same only letter by letter.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from collegium_context.semantic.words import read

SAME_COSINE: Final = 0.86
# What the embedder does not see is compared by its words.
SEEN_CHARACTERS: Final = 1_000


def normalised(text: str) -> str:
    """Returns a text without what no reader would miss."""
    return " ".join(text.casefold().split()).rstrip(".! ")


def are_same(a: str, b: str, vector_a: np.ndarray, vector_b: np.ndarray) -> bool:
    """Whether two answers say the same; the vectors are those of the texts' beginnings."""
    if normalised(a) == normalised(b):
        return True
    if float(vector_a @ vector_b) < SAME_COSINE:
        return False
    first, second = read(a[: 8 * SEEN_CHARACTERS]), read(b[: 8 * SEEN_CHARACTERS])
    if set(first.numbers) != set(second.numbers) or (first.negations == 0) != (second.negations == 0):
        return False
    longer = max(len(first.stems | second.stems), 1)
    is_seen = max(len(a), len(b)) <= SEEN_CHARACTERS
    return is_seen or len(first.stems & second.stems) / longer >= SAME_COSINE / 2
