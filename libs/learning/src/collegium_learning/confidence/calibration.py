"""From what is known about an answer to how probably it is right. Pure, and serialisable: a calibration is data.

Not here: how calibrations are fitted. One rule: without a calibration the answer is a stated prior, never a certainty.
"""

from __future__ import annotations

import itertools
import math

import msgspec

# The logarithm of odds is bounded: nothing is known better than 999 of 1,000.
_LOGIT_MAX = 6.9


class Features(msgspec.Struct, frozen=True):
    """What is known about the answer that won.

    Counts are those of its tally; shares are in [0, 1]; what is None was not to be had. ``logprob`` is the mean
    log-probability of the answer's tokens (at most 0), ``judge`` a judge's score, ``gates`` the share of quality gates
    that it passed, ``history`` how often this model was right in this domain (shrunk), ``nearby`` the same among the
    questions most like this one.
    """

    domain: str = ""
    agreeing: int = 1
    votes: int = 1
    asked: int = 1
    probability: float | None = None
    logprob: float | None = None
    judge: float | None = None
    gates: float | None = None
    history: float | None = None
    nearby: float | None = None


class Curve(msgspec.Struct, frozen=True):
    """A logistic model over the terms of ``terms_of`` and, where there was enough to see it, an isotonic one over that.

    ``steps`` are (score, probability) in rising order of both; between them is a straight line.
    """

    bias: float = 0.0
    weights: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    steps: tuple[tuple[float, float], ...] = ()
    rows: int = 0


# Where nothing was learned: stated, not measured. Agreement counts, and more so the more members agree.
PRIOR = Curve(bias=0.0, weights={"agreement": 1.5, "support": 0.5, "probability": 0.25, "logprob": 0.5, "judge": 0.5})


class Calibration(msgspec.Struct, frozen=True):
    """Curves by domain and the one for all others."""

    everywhere: Curve = PRIOR
    domains: dict[str, Curve] = msgspec.field(default_factory=dict[str, Curve])


UNCALIBRATED = Calibration()


def confidence(features: Features, calibration: Calibration = UNCALIBRATED) -> float:
    """Returns how probably an answer is right, in [0.001, 0.999]."""
    curve = calibration.domains.get(features.domain, calibration.everywhere)
    return probability_of(curve, terms_of(features))


def terms_of(features: Features) -> dict[str, float]:
    """Returns the terms of a curve; what is not known is left out and says nothing."""
    terms = {
        "agreement": 2.0 * features.agreeing / max(features.asked, 1) - 1.0,
        "support": math.log(max(features.agreeing, 1)),
        "silent": 1.0 - features.votes / max(features.asked, 1),
    }
    for name in ("probability", "judge", "gates", "history", "nearby"):
        value = getattr(features, name)
        if value is not None:
            terms[name] = logit(value)
    if features.logprob is not None:
        terms["logprob"] = logit(math.exp(min(features.logprob, 0.0)))
    return terms


def probability_of(curve: Curve, terms: dict[str, float]) -> float:
    """Returns the probability that a curve gives for terms."""
    score = curve.bias + math.fsum(weight * terms.get(name, 0.0) for name, weight in sorted(curve.weights.items()))
    probability = 1.0 / (1.0 + math.exp(-min(max(score, -_LOGIT_MAX), _LOGIT_MAX)))
    return _along(curve.steps, probability) if curve.steps else probability


def logit(value: float) -> float:
    """Returns the logarithm of odds, bounded."""
    if value <= 0.0:
        return -_LOGIT_MAX
    if value >= 1.0:
        return _LOGIT_MAX
    return min(max(math.log(value / (1.0 - value)), -_LOGIT_MAX), _LOGIT_MAX)


def _along(steps: tuple[tuple[float, float], ...], score: float) -> float:
    if score <= steps[0][0]:
        return steps[0][1]
    for (left, low), (right, high) in itertools.pairwise(steps):
        if score <= right:
            return low + (high - low) * (score - left) / (right - left) if right > left else high
    return steps[-1][1]
