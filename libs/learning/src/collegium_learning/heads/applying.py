"""Answering by a head: which label, how probably right, and whether the text is of the head's kind. Pure.

One rule: an answer says how sure it is, and whoever asks decides whether that is enough.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from collegium_learning.heads.features import counted, weighed
from collegium_learning.heads.head import Head, HeadError, arrays_of


class Told(NamedTuple):
    """What a head says: a label (empty: none of its labels is meant), and the probability (0..1) that this is right.

    ``best`` is the strongest of its own labels, whatever the text is of.
    """

    label: str
    confidence: float
    best: str
    is_in_scope: bool


class Classifier:
    """A head, ready to answer; safe to be used by several threads at once."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self._arrays = arrays_of(head)

    def tell(self, text: str, vector: np.ndarray) -> Told:
        """Answers a text with its vector, float (dimensions,); raises HeadError where the vector is another one's."""
        logits = self.logits(text, vector)
        return told(self.head, logits, likeness_of(self._arrays.middles, vector))

    def logits(self, text: str, vector: np.ndarray) -> np.ndarray:
        """Returns the strength of each label, float32 (labels,)."""
        arrays, head = self._arrays, self.head
        if vector.shape != (head.dimensions,):
            raise HeadError(f"a vector of {vector.shape} numbers, where the head was fitted on {head.dimensions}")
        strength = arrays.biases + vector.astype(np.float32) @ arrays.dense
        words, letters = counted(text, len(arrays.word_rarity), len(arrays.letter_rarity))
        for counts, rarity, table in (
            (words, arrays.word_rarity, arrays.words),
            (letters, arrays.letter_rarity, arrays.letters),
        ):
            slots, weights = weighed(counts, rarity, head.view_scale)
            strength += weights @ table[slots].astype(np.float32)
        return strength


def likeness_of(middles: np.ndarray, vector: np.ndarray) -> float:
    """Returns the cosine of a vector to the nearest of some middles of length one; 0 where there are none."""
    if not len(middles):
        return 0.0
    length = float(np.linalg.norm(vector))
    return float((middles @ vector.astype(np.float32)).max()) / max(length, 1e-9)


def told(head: Head, logits: np.ndarray, likeness: float = 0.0) -> Told:
    """Returns what logits, float (labels,), mean of a text that is so like the nearest of the head's middles."""
    place = int(np.argmax(logits))
    strongest = float(logits[place])
    scaled = (logits - strongest) / head.temperature
    among = 1.0 / float(np.exp(scaled).sum())
    familiar = strongest + head.scope_weight * likeness
    in_scope = _sigmoid(head.scope_slope * familiar + head.scope_bias)
    best = head.labels[place]
    if familiar >= head.scope_logit:
        return Told(best, among * in_scope, best, is_in_scope=True)
    return Told(head.out_of_scope, 1.0 - in_scope, best, is_in_scope=False)


def _sigmoid(number: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-40.0, min(40.0, number))))
