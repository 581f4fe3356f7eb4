"""``eval cascade``: recorded samples of a weak and a strong model, through what the platform asks and believes.

The weak one is asked until two of its samples agree; the strong one where that would gain too much to be left out.
Rows that hold outcomes without answers (those of ``eval router``) are decided by the question alone. One rule: no grade
of a row that is measured reaches what is decided about it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from collegium_learning.confidence import Calibration, Features, confidence
from collegium_learning.confidence.escalation import Escalation, Gains, fit_escalation, fit_gains
from collegium_learning.confidence.learning import Known, fit_calibration
from collegium_learning.confidence.neighbours import Neighbours, held_out_shares
from collegium_learning.panels import Learned, Stacked, Vote, aggregate
from collegium_learning.panels.history import Outcome
from collegium_learning.panels.learning import asked_in_order, folds_of, learn, rehearsed
from collegium_learning.routing.features import row_of, traits
from collegium_learning.routing.fitting import fit
from collegium_learning.routing.lessons import Lessons
from collegium_learning.routing.predicting import Predictor

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
    vote_of,
)
from collegium_cli.eval.reading import EvaluationError, rate, tell, write

T = TypeVar("T")

# Of each question the router's policy keeps a neighbour; recordings are smaller.
BANK_MAX = 6_000
# The logarithm of a usual question's length: what is held to a prior is about zero.
_LONG = 5.5
# What estimates of the gain weigh before anything is known: none, by calibrated confidence, by questions alike, by the
# question's length, as the router's policy expects it.
PRIOR = (0.0, 0.25, 0.25, 0.0, 0.5)


class Question(NamedTuple):
    """One row: its weak samples with their grades, whether the strong answer was right, and what is seen of it.

    ``row`` is what a router sees of it. ``is_blind`` says that there are outcomes alone, so that the question decides
    before anybody is asked.
    """

    weak: Outcome
    strong_right: bool
    vector: np.ndarray
    row: np.ndarray
    chars: int
    is_blind: bool


class Seen(NamedTuple):
    """What was decided by weak samples: how many were asked, what they say, and then whether they were right."""

    asked: int
    features: Features
    right: bool


class Beliefs(NamedTuple):
    """How far the weak and the strong answer are believed, and what the strong one gains."""

    weak: Calibration
    strong: Calibration
    gains: Gains

    def gains_of(self, asked: Sequence[Question], seen: Sequence[Seen], expected: np.ndarray) -> np.ndarray:
        """Returns the gain of asking the strong model for each question."""
        return self.gains.of(self.estimates_of(asked, seen, expected))

    def estimates_of(self, asked: Sequence[Question], seen: Sequence[Seen], expected: np.ndarray) -> np.ndarray:
        """Returns estimates of it, in the order of PRIOR; ``expected`` are questions' weak and strong shares by those
        alike, and the gain that the router's policy expects.
        """
        calibrated = [
            confidence(about_strong(one.features, share), self.strong) - confidence(one.features, self.weak)
            for one, share in zip(seen, expected[:, 1], strict=True)
        ]
        long = np.log1p([one.chars for one in asked]) - _LONG
        return np.column_stack([calibrated, expected[:, 1] - expected[:, 0], long, expected[:, 2]])


class Lesson(NamedTuple):
    """What was learned of a cascade."""

    learned: Learned
    beliefs: Beliefs
    near: Neighbours
    router: Predictor
    escalation: Escalation

    def expected_of(self, asked: Sequence[Question]) -> np.ndarray:
        """Returns what is expected of questions before anybody is asked, as ``estimates_of`` takes it."""
        domains = [one.weak.domain for one in asked]
        shares = self.near.shares(domains, np.array([one.vector for one in asked], np.float32))
        routed = self.router.expect_many(domains, np.array([one.row for one in asked], np.float32))
        return np.column_stack([shares, routed[:, 1] - routed[:, 0]])


def main(options: argparse.Namespace) -> int:
    """Measures, and prints one object."""
    train, data = read_rows(options.train, ("id",)), read_rows(options.data, ("id",))
    embedded = Embedded()
    embedded.add([question_of(row) for row in (*train, *data)])
    kinds = kinds_of(_graded(train, options.weak))
    known = [question(row, options.weak, options.strong, kinds, embedded) for row in train]
    asked = [question(row, options.weak, options.strong, kinds, embedded) for row in data]
    if options.splits:
        write(split_many([*known, *asked], options.loss_max, options.splits, options.seed))
        return 0
    lesson = learned_from(known, options.loss_max, options.seed)
    tell(f"learned from {len(known)} rows: {lesson.escalation}")
    write(measured(asked, lesson, options.seed))
    return 0


def question(row: Row, weak: str, strong: str, kinds: Kinds, embedded: Embedded) -> Question:
    """Reads a row; without a strong outcome the strong answer is wrong, without weak ones there is one wrong sample."""
    domain, text = domain_of(row), question_of(row)
    if "samples" in row:
        answers = row["samples"].get(weak) or [None]
        grades = [bool(grade) for grade in row.get("correct_samples", {}).get(weak) or []]
        grades = [*grades[: len(answers)], *([False] * (len(answers) - len(grades)))]
        votes = tuple(vote_of(answer, kinds.of(domain), weak) for answer in answers)
        strong_right = bool((row.get("correct_samples", {}).get(strong) or [False])[0])
    elif "outcomes" in row:
        votes, grades = (Vote("?", weak),), [_score(row, weak) > 0.5]
        strong_right = _score(row, strong) > 0.5
    else:
        raise EvaluationError(f"row {row.get('id')} holds neither samples nor outcomes")
    seen = row_of(embedded[text], traits(text))
    return Question(
        Outcome(domain, votes, tuple(grades)), strong_right, embedded[text], seen, len(text), "samples" not in row
    )


def learned_from(known: Sequence[Question], loss_max: float, seed: int) -> Lesson:
    """Learns when the weak answer is enough, from what is said about rows that were not learned from."""
    outcomes = [one.weak for one in known]
    rehearsal = rehearsed(outcomes, seed)
    domains, vectors = [one.domain for one in outcomes], np.array([one.vector for one in known], np.float32)
    first = np.array([[one.weak.right[0], one.strong_right] for one in known], float)
    near = Neighbours(domains, vectors, first)
    routed, gain = routed_by(domains, np.array([one.row for one in known], np.float32), first, seed)
    shares = held_out_shares(domains, vectors, first, folds_of(len(known), seed))
    expected = np.column_stack([shares, gain])
    seen = [see(one, of, share) for one, of, share in zip(known, rehearsal, expected[:, 0], strict=True)]
    weak_right, strong_right = np.array([one.right for one in seen], float), first[:, 1]
    gains = np.zeros(len(known))
    # A gain is estimated without its own row, or the threshold would be proven on what it was fitted to.
    for fold in folds_of(len(known), seed):
        rest = sorted(set(range(len(known))) - set(fold))
        of_rest = beliefs(_at(known, rest), _at(seen, rest), expected[rest], strong_right[rest])
        gains[fold] = of_rest.gains_of(_at(known, fold), _at(seen, fold), expected[fold])
    believed = beliefs(known, seen, expected, strong_right)
    escalation = fit_escalation(gains, weak_right, strong_right, loss_max)
    return Lesson(learn(outcomes, seed, rehearsal), believed, near, routed, escalation)


def routed_by(domains: Sequence[str], rows: np.ndarray, right: np.ndarray, seed: int) -> tuple[Predictor, np.ndarray]:
    """Fits the router's policy to both models' outcomes; and the gain that it expected of rows it was not fitted to."""
    unknown, seen = np.full(right.shape, np.nan), np.ones(len(right), bool)
    lessons = Lessons(("weak", "strong"), tuple(domains), rows, seen, right, unknown, unknown)
    fitted = fit(lessons, seed=seed, bank_max=BANK_MAX)
    held = np.nan_to_num(fitted.held_out["full"])
    return Predictor(fitted.policy), held[:, 1] - held[:, 0]


def beliefs(known: Sequence[Question], seen: Sequence[Seen], expected: np.ndarray, strong_right: np.ndarray) -> Beliefs:
    """Learns how far to believe the weak and the strong answer, and what the strong one gains."""
    weak = fit_calibration([Known(one.features, one.right) for one in seen])
    stronger = [about_strong(one.features, share) for one, share in zip(seen, expected[:, 1], strict=True)]
    strong = fit_calibration([Known(of, bool(was)) for of, was in zip(stronger, strong_right, strict=True)])
    unfitted = Beliefs(weak, strong, Gains())
    lost = strong_right - np.array([one.right for one in seen], float)
    return Beliefs(weak, strong, fit_gains(unfitted.estimates_of(known, seen, expected), lost, PRIOR))


def measured(asked: Sequence[Question], lesson: Lesson, seed: int) -> dict[str, Any]:
    """Returns the figures of one cascade."""
    seen, escalated, stated = decided(asked, lesson)
    right = [
        one.strong_right if strong else weak.right for one, weak, strong in zip(asked, seen, escalated, strict=True)
    ]
    lost = [float(one.strong_right) - float(good) for one, good in zip(asked, right, strict=True)]
    samples = [
        0.0 if strong and one.is_blind else float(weak.asked)
        for one, weak, strong in zip(asked, seen, escalated, strict=True)
    ]
    rows = len(asked)
    return {
        "accuracy": rate(sum(right), rows),
        "strong_share": rate(sum(escalated), rows),
        "weak_samples_mean": mean_of(samples, seed),
        "ece": calibration_error(stated, right, seed),
        "accuracy_strong": rate(sum(one.strong_right for one in asked), rows),
        "accuracy_weak": rate(sum(one.right for one in seen), rows),
        "loss": mean_of(lost, seed),
        "rows": rows,
    }


def decided(asked: Sequence[Question], lesson: Lesson) -> tuple[list[Seen], list[bool], list[float]]:
    """Returns what weak samples say, who asks the strong one, and how probably the answer given is right."""
    expected = lesson.expected_of(asked)
    seen = [
        see(one, lesson.learned.of(one.weak.domain), share) for one, share in zip(asked, expected[:, 0], strict=True)
    ]
    escalated = [lesson.escalation.asks(float(gain)) for gain in lesson.beliefs.gains_of(asked, seen, expected)]
    stated = [
        confidence(about_strong(one.features, share), lesson.beliefs.strong)
        if strong
        else confidence(one.features, lesson.beliefs.weak)
        for one, share, strong in zip(seen, expected[:, 1], escalated, strict=True)
    ]
    return seen, escalated, stated


def see(one: Question, stacked: Stacked, nearby: float) -> Seen:
    """Asks the weak model for samples until they are settled."""
    outcome = one.weak
    asked, tally = asked_in_order(outcome, stacked)
    if tally is None:
        raise EvaluationError("a row has no weak sample")
    whole = aggregate(dict(enumerate(outcome.votes[:asked])), stacked)
    # The domain is part of what is near; a curve for each would learn the noise of that.
    features = Features(
        agreeing=tally.agreeing,
        votes=tally.votes,
        asked=asked,
        probability=tally.probability if len(outcome.votes) > 1 or whole is None else None,
        nearby=min(max(nearby, 0.0), 1.0),
    )
    return Seen(asked, features, any(outcome.right[place] for place in tally.camps[0].numbers))


def about_strong(features: Features, nearby: float) -> Features:
    """Returns what weak samples and the question say about the strong answer."""
    return Features(
        agreeing=features.agreeing,
        votes=features.votes,
        asked=features.asked,
        history=features.probability,
        nearby=min(max(nearby, 0.0), 1.0),
    )


def split_many(questions: Sequence[Question], loss_max: float, splits: int, seed: int) -> dict[str, Any]:
    """Halves questions at random, learns on one half and measures on the other, so many times."""
    drawn = np.random.default_rng(seed)
    losses: list[float] = []
    shares: list[float] = []
    for number in range(splits):
        order = drawn.permutation(len(questions))
        half = len(order) // 2
        lesson = learned_from([questions[place] for place in order[:half]], loss_max, seed)
        asked = [questions[place] for place in order[half:]]
        seen, escalated, _ = decided(asked, lesson)
        lost = [
            0.0 if strong else float(one.strong_right) - float(weak.right)
            for one, weak, strong in zip(asked, seen, escalated, strict=True)
        ]
        losses.append(float(np.mean(lost)))
        shares.append(float(np.mean(escalated)))
        tell(f"split {number + 1} of {splits}: loss {losses[-1]:.4f}, strong share {shares[-1]:.3f}")
    return {
        "kept": rate(sum(loss <= loss_max for loss in losses), splits),
        "loss": mean_of(losses, seed),
        "loss_worst": max(losses),
        "strong_share": mean_of(shares, seed),
        "splits": splits,
        "rows": len(questions),
    }


def _at(rows: Sequence[T], places: Sequence[int]) -> list[T]:
    return [rows[place] for place in places]


def _score(row: Row, model: str) -> float:
    outcome = row["outcomes"].get(model) or {}
    return float(outcome.get("score") or 0.0)


def _graded(rows: Sequence[Row], weak: str) -> list[tuple[str, Any, bool]]:
    return [
        (domain_of(row), answer, bool(grade))
        for row in rows
        for answer, grade in zip(
            row.get("samples", {}).get(weak) or [], row.get("correct_samples", {}).get(weak) or [], strict=False
        )
    ]
