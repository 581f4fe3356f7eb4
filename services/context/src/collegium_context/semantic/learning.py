"""Learning a calibration: of a recorded stream, or of pairs of questions that do or do not mean the same. Pure.

One rule: what says how well a risk does was not fitted on the rows that say it: halves judge each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from collegium_context.semantic.features import Compared
from collegium_context.semantic.policy import Calibration, Limits
from collegium_context.semantic.replay import Asked, Outcome, Replay
from collegium_context.semantic.risk import Logistic, Mark, fit, marks_of

# The share of a recording that is looked at as if it were new: what is asked later holds things never asked before.
NEW_SHARE = 0.04
# A recording of fewer usable rows teaches less than it misleads.
LEAST_ROWS = 200
FOLDS = 10


def learn_stream(
    rows: Sequence[Asked], base: Calibration, wrong_max: float, seed: int, clock: Callable[[], float]
) -> Calibration:
    """Returns a calibration whose risk among neighbours was learned on a recorded stream; ``base`` gives the rest.

    The stream is replayed twice: once storing every row, and once serving as the first replay taught, because a cache
    that serves holds fewer entries of what is asked often.
    """
    everything = _replayed(rows, None, Limits(0.0, 0.0), seed, clock)
    first = _calibrated(base, everything)
    served = _replayed(rows, first, Limits.of(first, wrong_max), seed + 1, clock)
    return _calibrated(first, served)


def learn_pairs(
    compared: Sequence[Compared], wrong: np.ndarray, unlike: Sequence[Compared], base: Calibration, seed: int
) -> Calibration:
    """Returns a calibration whose risk of a lone candidate was learned on pairs.

    ``unlike`` are pairs of questions from different rows: they teach what is far apart, and are no part of the marks,
    which count different questions of the recorded pairs alone.
    """
    open_ones = np.array([not one.vetoes for one in compared], dtype=bool)
    features = np.array([one.row for one in compared])
    far = np.array([one.row for one in unlike if not one.vetoes])
    different = int(wrong.sum())
    if min(int((wrong[open_ones] == 0).sum()), different) < FOLDS:
        return base
    risks = np.ones(len(compared))
    folds = np.random.default_rng(seed).permutation(len(compared)) % FOLDS
    for fold in range(FOLDS):
        inside = open_ones & (folds != fold)
        risks[folds == fold] = _fit_pairs(features[inside], wrong[inside], far).risks(features[folds == fold])
    trapped = np.sort(risks[open_ones & (wrong == 1)])
    marks = [Mark(float(risk) - 1e-9, different, index) for index, risk in enumerate(trapped)]
    alone = _fit_pairs(features[open_ones], wrong[open_ones], far)
    return msgspec.structs.replace(base, alone=alone, alone_marks=marks)


def _fit_pairs(features: np.ndarray, wrong: np.ndarray, far: np.ndarray) -> Logistic:
    if not len(far):
        return fit(features, wrong)
    rows = np.vstack([features, far])
    # All of them together weigh as much as the recorded pairs.
    weights = np.concatenate([np.ones(len(features)), np.full(len(far), min(1.0, len(features) / len(far)) / 2)])
    return fit(rows, np.concatenate([wrong, np.ones(len(far))]), weights)


def _replayed(
    rows: Sequence[Asked], calibration: Calibration | None, limits: Limits, seed: int, clock: Callable[[], float]
) -> list[Outcome]:
    cache = Replay(
        len(rows[0].vector) if rows else 1,
        calibration,
        limits,
        np.random.default_rng(seed),
        clock=clock,
        new_share=NEW_SHARE,
    )
    return [cache.ask(row) for row in rows]


def _calibrated(base: Calibration, outcomes: Sequence[Outcome]) -> Calibration:
    """Returns a calibration with what a replay teaches; the rest, and what it has too few rows for, is the base's."""
    lone = [(one.lone, float(one.wrong)) for one in outcomes if one.lone is not None]
    marks = base.lone_marks
    if len(lone) >= LEAST_ROWS:
        marks = marks_of(base.alone.risks(np.array([row for row, _ in lone])), np.array([wrong for _, wrong in lone]))
    crowd = [(one.features, float(one.wrong)) for one in outcomes if one.features is not None]
    if len(crowd) < LEAST_ROWS:
        return msgspec.structs.replace(base, lone_marks=marks)
    features, wrong = np.array([row for row, _ in crowd]), np.array([wrong for _, wrong in crowd])
    half = np.arange(len(features)) % 2 == 0
    risks = np.zeros(len(features))
    for fold in (half, ~half):
        risks[fold] = fit(features[~fold], wrong[~fold]).risks(features[fold])
    return msgspec.structs.replace(
        base, among=fit(features, wrong), among_marks=marks_of(risks, wrong), lone_marks=marks
    )
