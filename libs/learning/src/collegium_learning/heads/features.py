"""Texts as numbers: words and groups of letters, hashed into slots of a fixed count. Pure.

One rule: the same text gives the same slots in every process and version, so hashes are CRC-32, never Python's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Final
from zlib import crc32

import numpy as np

# What follows tells little about a label, and an answer's time is bounded.
CHARS_MAX: Final = 4_000
LETTERS: Final = (2, 3, 4)
_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """Returns the words of a text, in lower case."""
    return _WORD.findall(text[:CHARS_MAX].lower())


def _groups(words: list[str]) -> Iterator[str]:
    """Yields groups of letters within words; a space marks where a word begins and ends."""
    for word in words:
        padded = f" {word} "
        for length in LETTERS:
            for begin in range(max(1, len(padded) - length + 1)):
                yield padded[begin : begin + length]


def counted(text: str, word_slots: int, letter_slots: int) -> tuple[Counter[int], Counter[int]]:
    """Returns how often each slot is met: of single words and pairs of them, and of groups of letters."""
    words = words_of(text)
    terms = Counter(crc32(word.encode()) % word_slots for word in words)
    terms.update(crc32(f"{a} {b}".encode()) % word_slots for a, b in pairwise(words))
    return terms, Counter(crc32(group.encode()) % letter_slots for group in _groups(words))


def weighed(counts: Counter[int], rarity: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns slots in order and their weights: (1 + log count) × rarity, of length ``scale`` together.

    ``rarity`` is float32 (slots,).
    """
    slots = np.fromiter(sorted(counts), np.int64, len(counts))
    often = np.fromiter((counts[int(slot)] for slot in slots), np.float32, len(counts))
    weights = (1.0 + np.log(often)) * rarity[slots] if len(slots) else often
    length = float(np.linalg.norm(weights))
    return slots, weights * np.float32(scale / length) if length > 0 else weights
