"""Recorded panels as consensus keeps them: rows with answers and grades become outcomes.

One rule: nothing but ``outcomes_of`` looks at a grade, and what it makes of a row is asked for its grades last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from collegium_learning.answers import AnswerType, key_of
from collegium_learning.answers.extraction import kind_of
from collegium_learning.confidence.learning import expected_calibration_error
from collegium_learning.panels import Vote
from collegium_learning.panels.history import Outcome

from collegium_cli.eval.reading import RESAMPLED, EvaluationError, rows_of

Row = dict[str, Any]

# An embedder reads little more, and a question says what it is about at its beginning.
QUESTION_CHARS = 1_000


class Kinds(NamedTuple):
    """The type of answer by domain, as the graded answers of before show it, and that of all others."""

    domains: dict[str, AnswerType]
    everywhere: AnswerType

    def of(self, domain: str) -> AnswerType:
        """Returns the type of a domain's answers."""
        return self.domains.get(domain, self.everywhere)


def read_rows(path: Path, fields: Sequence[str]) -> list[Row]:
    """Reads rows that have all of some fields; raises :class:`EvaluationError` otherwise, and where there are none."""
    rows = list(rows_of(path))
    if not rows:
        raise EvaluationError(f"{path} holds no rows")
    for number, row in enumerate(rows, 1):
        missing = [field for field in fields if field not in row]
        if missing:
            raise EvaluationError(f"{path}, row {number}: no field {', '.join(missing)}")
    return rows


def domain_of(row: Row) -> str:
    """Returns a row's domain; the empty one where it has none."""
    return str(row.get("domain") or "")


def question_of(row: Row) -> str:
    """Returns the text that is embedded for a row."""
    return str(row.get("input") or "")[:QUESTION_CHARS]


def kinds_of(graded: Sequence[tuple[str, Any, bool]]) -> Kinds:
    """Returns the types of answers, from (domain, answer, whether it is right)."""
    right: defaultdict[str, list[str]] = defaultdict(list)
    for domain, answer, good in graded:
        if good and answer is not None:
            right[domain].append(text_of(answer))
    everything = [text for texts in right.values() for text in texts]
    return Kinds({domain: kind_of(texts) for domain, texts in right.items()}, kind_of(everything))


def vote_of(answer: Any, kind: AnswerType, member: str) -> Vote:
    """Returns what an answer votes for; JSON's null is a value where values of JSON are asked for, else no answer."""
    if answer is None:
        return Vote("null" if kind == "json" else "", member)
    return Vote(key_of(text_of(answer), kind), member)


def text_of(answer: Any) -> str:
    """Returns an answer as text."""
    return answer if isinstance(answer, str) else msgspec.json.encode(answer).decode()


def mean_of(values: Sequence[float], seed: int) -> dict[str, float]:
    """Returns a mean with its bootstrap interval (95 %)."""
    if not values:
        return {"value": 0.0, "low": 0.0, "high": 0.0}
    sample = np.asarray(values, float)
    drawn = np.random.default_rng(seed)
    means = [float(drawn.choice(sample, len(sample)).mean()) for _ in range(RESAMPLED)]
    low, high = np.percentile(means, [2.5, 97.5])
    return {"value": round(float(sample.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def calibration_error(confidences: Sequence[float], right: Sequence[bool], seed: int) -> dict[str, float]:
    """Returns the expected calibration error with its bootstrap interval (95 %), which lies above it for few rows."""
    if not confidences:
        return {"value": 0.0, "low": 0.0, "high": 0.0}
    stated, was = np.asarray(confidences, float), np.asarray(right, bool)
    drawn = np.random.default_rng(seed)
    errors: list[float] = []
    for _ in range(RESAMPLED):
        places = drawn.integers(0, len(stated), len(stated))
        errors.append(expected_calibration_error(stated[places].tolist(), was[places].tolist()))
    low, high = np.percentile(errors, [2.5, 97.5])
    value = expected_calibration_error(confidences, right)
    return {"value": round(value, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def right_of(outcome: Outcome, places: Sequence[int]) -> bool:
    """Whether one of some votes was graded right."""
    return any(outcome.right[place] for place in places)
