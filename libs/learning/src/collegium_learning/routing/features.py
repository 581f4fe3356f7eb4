"""What is seen of a question: its embedding, and some two dozen cheap traits of its text. Pure.

Both together are one row of float32, traits last; packed for a message they are one byte a number and a scale. One
rule: the row's layout is versioned, and a row of another layout is no row at all.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LAYOUT: Final = 1
# A question says what it is about at its beginning; an embedder reads little more.
CHARS_MAX: Final = 4_000
EMBEDDED_CHARS: Final = 1_000
# Beside traits of about one, a vector of length one would hardly count (measured: 2 to 16, best from 4 on).
EMBEDDING_SCALE: Final = 8.0
_HEAD: Final = struct.Struct("<BHBf")

_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_OPTION: Final = re.compile(r"^\(?[A-Ea-e][.)]\s*(.*)$", re.MULTILINE)
_SENTENCE: Final = re.compile(r"[.!?](?:\s|$)")
_WORDS: Final[dict[str, re.Pattern[str]]] = {
    "negated": re.compile(r"\b(?:not|except|never|no)\b", re.IGNORECASE),
    "rates": re.compile(r"\b(?:each|every|per)\b", re.IGNORECASE),
    "parts": re.compile(r"\b(?:half|twice|times|third|quarter)\b", re.IGNORECASE),
    "statement": re.compile(r"statement", re.IGNORECASE),
    "code": re.compile(r"\b(?:def|return|import|void|int|class|function)\b"),
}
TRAITS: Final = (
    "chars", "words", "word_chars", "numbers", "number_size", "distinct_words", "signs", "brackets", "markup",
    "questions", "capitals", "commas", "lines", "option_chars", "option_spread", "sentences", "percent", "blank",
    "table", *_WORDS,
)  # fmt: skip


def traits(text: str) -> Floats:
    """Returns the traits of a text, of its first CHARS_MAX characters; a value for each of TRAITS, of about one."""
    text = text[:CHARS_MAX]
    words = text.split()
    numbers = _NUMBER.findall(text)
    options = [len(option) for option in _OPTION.findall(text)]
    count, chars = max(1, len(words)), max(1, len(text))
    found = [
        math.log1p(len(text)) / 2 - 2.5,
        math.log1p(len(words)) / 2 - 1.8,
        sum(map(len, words)) / count / 3 - 1.6,
        math.log1p(len(numbers)) - 1.0,
        math.log1p(sum(float(number[:6]) for number in numbers)) / 3 - 1.0,
        4 * len(set(words)) / count - 3.0,
        math.log1p(_count(text, "+-*/=<>^")) - 0.7,
        math.log1p(_count(text, "()[]{}")) - 0.7,
        math.log1p(_count(text, "\\$")),
        min(3, text.count("?")) - 0.8,
        10 * sum(map(str.isupper, text)) / chars - 0.4,
        math.log1p(text.count(",")) - 1.0,
        math.log1p(text.count("\n")) - 1.0,
        math.log1p(sum(options) / len(options)) / 2 if options else 0.0,
        math.log1p(_spread(options)) / 2,
        math.log1p(len(_SENTENCE.findall(text))) - 1.0,
        float("%" in text),
        float("__" in text),
        float("|" in text),
    ]
    return np.array([*found, *(float(bool(pattern.search(text))) for pattern in _WORDS.values())], np.float32)


def row_of(embedding: Floats, of_text: Floats) -> Floats:
    """Returns one row of an embedding (scaled to length one) and traits."""
    length = float(np.linalg.norm(embedding)) or 1.0
    return np.concatenate([embedding * np.float32(EMBEDDING_SCALE / length), of_text]).astype(np.float32)


def directions(rows: Floats) -> Floats:
    """Returns the embeddings of rows, each of length one."""
    return rows[..., : rows.shape[-1] - len(TRAITS)] / np.float32(EMBEDDING_SCALE)


def pack(row: Floats) -> bytes:
    """Returns a row as bytes: layout, length, traits, scale, then a signed byte a number."""
    scale = float(np.abs(row).max()) / 127 or 1.0
    steps = np.clip(np.rint(row / np.float32(scale)), -127, 127).astype(np.int8)
    return _HEAD.pack(LAYOUT, len(row), len(TRAITS), scale) + steps.tobytes()


def unpack(packed: bytes) -> Floats | None:
    """Returns the row that was packed; none where it is of another layout or no row."""
    if len(packed) < _HEAD.size:
        return None
    layout, count, of_text, scale = _HEAD.unpack_from(packed)
    if layout != LAYOUT or of_text != len(TRAITS) or len(packed) != _HEAD.size + count or not math.isfinite(scale):
        return None
    return np.frombuffer(packed, np.int8, offset=_HEAD.size).astype(np.float32) * np.float32(scale)


def _count(text: str, chars: str) -> int:
    return sum(map(text.count, chars))


def _spread(lengths: Sequence[int]) -> float:
    if not lengths:
        return 0.0
    mean = sum(lengths) / len(lengths)
    return math.sqrt(sum((length - mean) ** 2 for length in lengths) / len(lengths))
