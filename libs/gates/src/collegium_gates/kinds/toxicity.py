"""Offence and abuse, by the model of alt-profanity-check (a linear one, trained on 200,000 labelled comments; English).

A text is judged sentence by sentence, because one among many weighs little. The model's weights are applied here
directly: the same probabilities as the library's ``predict_prob``, in a hundredth of its time. One rule: it judges
words, so a quotation and a curse are the same to it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from collegium_contracts.gates import GateRule

from collegium_gates.errors import RuleUnusableError
from collegium_gates.finding import Findings, Found, Reading, found, told

DEFAULT_THRESHOLD: Final = 0.85
_SENTENCE: Final = re.compile(r"[^.!?\n]+[.!?\n]*")
_WORD: Final = re.compile(r"(?u)\b\w\w+\b")
_LONGEST_CHARACTERS: Final = 600


class _Model(NamedTuple):
    places: dict[str, int]
    weights: Any
    idf: Any
    intercepts: Any
    slopes: Any
    offsets: Any


@cache
def model() -> _Model:
    """Returns the model's weights; raises RuleUnusableError where the library is missing or another one."""
    try:
        from profanity_check import profanity_check  # noqa: PLC0415 - it loads scikit-learn, for seconds
    except Exception as error:
        raise RuleUnusableError(f"alt-profanity-check cannot be loaded: {type(error).__name__}") from error
    try:
        parts: Any = profanity_check.model.calibrated_classifiers_
        return _Model(
            profanity_check.vectorizer.vocabulary_,
            np.vstack([part.estimator.coef_[0] for part in parts]),
            profanity_check.vectorizer.idf_,
            np.array([part.estimator.intercept_[0] for part in parts]),
            np.array([part.calibrators[0].a_ for part in parts]),
            np.array([part.calibrators[0].b_ for part in parts]),
        )
    except (AttributeError, IndexError) as error:
        raise RuleUnusableError("alt-profanity-check's model is of another form than is known here") from error


def probability(text: str) -> float:
    """Returns how likely a text is to be offensive."""
    known = model()
    counts: dict[int, int] = {}
    for word in _WORD.findall(text.lower()):
        if (place := known.places.get(word)) is not None:
            counts[place] = counts.get(place, 0) + 1
    places = np.fromiter(counts, dtype=np.intp, count=len(counts))
    values = np.fromiter(counts.values(), dtype=np.float64, count=len(counts)) * known.idf[places]
    length = float(np.sqrt(values @ values))
    decisions = known.weights[:, places] @ (values / length if length else values) + known.intercepts
    return float(np.mean(1 / (1 + np.exp(known.slopes * decisions + known.offsets))))


def evaluate(rule: GateRule, read: list[Reading]) -> Findings:
    """Finds sentences that are likelier offensive than the threshold."""
    threshold = rule.threshold or DEFAULT_THRESHOLD
    places: list[Found] = []
    judged: dict[str, bool] = {}
    for reading in read:
        for view in reading.views(normalise=rule.normalise):
            for match in _SENTENCE.finditer(view.text):
                for start in range(match.start(), match.end(), _LONGEST_CHARACTERS):
                    end = min(match.end(), start + _LONGEST_CHARACTERS)
                    sentence = view.text[start:end]
                    if sentence not in judged:
                        judged[sentence] = probability(sentence) >= threshold
                    if judged[sentence]:
                        places.append(found(reading, view, start, end, "offence"))
    return told(places, "toxic")
