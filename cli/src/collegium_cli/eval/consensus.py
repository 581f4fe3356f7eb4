"""``eval consensus``: recorded answers of a panel, through what the platform gives, asks and believes.

Learns from ``--train`` which answers to trust and how far, and measures on ``--data``. One rule: no grade of a row that
is measured reaches what is decided about it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from collegium_learning.confidence import Calibration, Features, confidence
from collegium_learning.confidence.learning import Known, fit_calibration
from collegium_learning.confidence.neighbours import Neighbours, held_out_shares
from collegium_learning.panels import Learned, Stacked, Tally, Vote, aggregate
from collegium_learning.panels.history import Outcome
from collegium_learning.panels.learning import asked_in_order, folds_of, learn, rehearsed

from collegium_cli.eval.embedding import Embedded
from collegium_cli.eval.panels import (
    Kinds,
    Row,
    calibration_error,
    domain_of,
    kinds_of,
    mean_of,
    question_of,
    read_rows,
    right_of,
    vote_of,
)
from collegium_cli.eval.reading import EvaluationError, rate, tell, write

FIELDS = ("answers", "correct")


class Lesson(NamedTuple):
    """What was learned: the tally, how far to believe it, and which questions are hard."""

    learned: Learned
    calibration: Calibration
    near: Neighbours


class Judged(NamedTuple):
    """What was decided about a row, and then how it was."""

    right: bool
    given_right: bool
    confidence: float
    asked: int
    right_adaptive: bool
    majority_right: bool
    best_right: bool
    unanimous: bool


def main(options: argparse.Namespace) -> int:
    """Measures, and prints one object."""
    members = [name.strip() for name in options.models.split(",") if name.strip()]
    train, data = read_rows(options.train, FIELDS), read_rows(options.data, FIELDS)
    _check(members, [*train, *data])
    embedded = Embedded()
    embedded.add([question_of(row) for row in (*train, *data)])
    write(measured(train, data, members, embedded, options.seed))
    return 0


def measured(
    train: Sequence[Row], data: Sequence[Row], members: Sequence[str], embedded: Embedded, seed: int
) -> dict[str, Any]:
    """Returns the figures of one panel."""
    kinds = kinds_of(_graded(train, members))
    known, asked = outcomes_of(train, members, kinds), outcomes_of(data, members, kinds)
    lesson = learned_from(known, vectors_of(train, embedded), seed)
    rights = [sum(outcome.right[place] for outcome in known) for place in range(len(members))]
    best = int(np.argmax(rights))
    tell(f"learned from {len(known)} rows; the best member there is {members[best]}")
    near = lesson.near.shares([outcome.domain for outcome in asked], vectors_of(data, embedded))[:, 0]
    judged = [judge(outcome, lesson, float(share), best) for outcome, share in zip(asked, near, strict=True)]
    return _figures(judged, members[best], kinds, seed)


def outcomes_of(rows: Sequence[Row], members: Sequence[str], kinds: Kinds) -> list[Outcome]:
    """Returns rows as outcomes; a member without an answer votes for nothing and is wrong."""
    made: list[Outcome] = []
    for row in rows:
        domain = domain_of(row)
        votes = [
            vote_of(row["answers"][name], kinds.of(domain), name) if name in row["answers"] else Vote("", name)
            for name in members
        ]
        made.append(Outcome(domain, tuple(votes), tuple(bool(row["correct"].get(name)) for name in members)))
    return made


def learned_from(known: Sequence[Outcome], vectors: np.ndarray, seed: int) -> Lesson:
    """Learns the tally, and calibrates it on what it says about rows that it did not learn from."""
    shares = np.array([sum(outcome.right) / len(outcome.right) for outcome in known], np.float64)
    near = Neighbours([outcome.domain for outcome in known], vectors, shares)
    nearby = held_out_shares([outcome.domain for outcome in known], vectors, shares, folds_of(len(known), seed))[:, 0]
    rehearsal = rehearsed(known, seed)
    pairs = [
        Known(
            features_of(outcome.domain, outcome.votes, tally, stacked, float(share)),
            right_of(outcome, tally.camps[0].numbers),
        )
        for outcome, stacked, share in zip(known, rehearsal, nearby, strict=True)
        if (tally := aggregate(dict(enumerate(outcome.votes)), stacked)) is not None
    ]
    return Lesson(learn(known, seed, rehearsal), fit_calibration(pairs), near)


def features_of(domain: str, votes: Sequence[Vote], tally: Tally, stacked: Stacked, nearby: float) -> Features:
    """Returns what is known about the answer that won."""
    names = [votes[place].member for place in tally.camps[0].numbers]
    return Features(
        domain=domain,
        agreeing=tally.agreeing,
        votes=tally.votes,
        asked=tally.asked,
        probability=tally.probability,
        history=max(stacked.right.get(name, stacked.unknown) for name in names),
        nearby=min(max(nearby, 0.0), 1.0),
    )


def judge(outcome: Outcome, lesson: Lesson, nearby: float, best: int) -> Judged:
    """Decides about a row, and then looks at its grades."""
    votes = dict(enumerate(outcome.votes))
    stacked = lesson.learned.of(outcome.domain)
    tally, plain = aggregate(votes, stacked), aggregate(votes)
    asked, early = asked_in_order(outcome, stacked)
    if tally is None or plain is None or early is None:
        raise EvaluationError("a row has no member to ask")
    stated = confidence(features_of(outcome.domain, outcome.votes, tally, stacked, nearby), lesson.calibration)
    numbers = tally.camps[0].numbers
    given = max(numbers, key=lambda place: (stacked.right.get(votes[place].member, stacked.unknown), -place))
    return Judged(
        right=right_of(outcome, numbers),
        given_right=outcome.right[given],
        confidence=stated,
        asked=asked,
        right_adaptive=right_of(outcome, early.camps[0].numbers),
        majority_right=right_of(outcome, plain.camps[0].numbers),
        best_right=outcome.right[best],
        unanimous=tally.agreeing == len(votes),
    )


def vectors_of(rows: Sequence[Row], embedded: Embedded) -> np.ndarray:
    """Returns the vectors of rows' questions."""
    return np.array([embedded[question_of(row)] for row in rows], np.float32)


def _figures(judged: Sequence[Judged], best: str, kinds: Kinds, seed: int) -> dict[str, Any]:
    rows = len(judged)
    right = [one.right for one in judged]
    unanimous = [one for one in judged if one.unanimous]
    return {
        "accuracy": rate(sum(right), rows),
        "best_member_model": best,
        "best_member": rate(sum(one.best_right for one in judged), rows),
        "majority": rate(sum(one.majority_right for one in judged), rows),
        "asked_mean": mean_of([float(one.asked) for one in judged], seed),
        "accuracy_adaptive": rate(sum(one.right_adaptive for one in judged), rows),
        "ece": calibration_error([one.confidence for one in judged], right, seed),
        "unanimous": {
            "share": rate(len(unanimous), rows),
            "accuracy": rate(sum(one.right for one in unanimous), len(unanimous)),
        },
        # The grade of the very answer that is handed out, not of one that is equal to it.
        "accuracy_given": rate(sum(one.given_right for one in judged), rows),
        "answer_types": kinds.domains,
        "rows": rows,
    }


def _graded(rows: Sequence[Row], members: Sequence[str]) -> list[tuple[str, Any, bool]]:
    return [
        (domain_of(row), row["answers"].get(name), bool(row["correct"].get(name))) for row in rows for name in members
    ]


def _check(members: Sequence[str], rows: Sequence[Row]) -> None:
    if not members:
        raise EvaluationError("--models names no model")
    if len(set(members)) < len(members):
        raise EvaluationError("--models names a model twice")
    answered = {name for row in rows for name in row["answers"]}
    for name in members:
        if name not in answered:
            raise EvaluationError(f"no row holds an answer of {name}")
