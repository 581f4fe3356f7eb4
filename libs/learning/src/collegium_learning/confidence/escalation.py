"""When a weak member's answer is not enough: where the strong one would be right so much more probably. Pure.

What is compared is the gain, the strong one's probability of being right less that of the answer at hand: a question
that neither can answer is not worth the strong one's price. The gain from which it is asked is chosen so that the
accuracy lost against always asking it is proven to be below a bound. One rule: what is not proven is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from collegium_learning.confidence.thresholds import GAIN_LEVEL, proven_gain

Floats = NDArray[np.float64]

# How many questions' worth the weights are held to those before anything is known: estimates of the same gain are much
# alike, so that what is left to choose between them by is mostly noise.
_RIDGE = 50.0


class Escalation(msgspec.Struct, frozen=True):
    """From which gain on the strong member is asked; always, where there is none. ``loss_max`` is what is promised."""

    above: float | None = None
    loss_max: float = 0.0
    level: float = GAIN_LEVEL
    rows: int = 0

    def asks(self, gain: float) -> bool:
        """Whether the strong member is asked."""
        return self.above is None or gain > self.above


def fit_escalation(
    gains: Floats, weak_right: Floats, strong_right: Floats, loss_max: float, level: float = GAIN_LEVEL
) -> Escalation:
    """Returns the escalation that asks least while its loss is proven below ``loss_max``.

    ``gains`` must have been estimated without the rows' own outcomes.
    """
    if not len(gains):
        return Escalation(None, loss_max, level)
    above = proven_gain(gains, strong_right - weak_right, loss_max, level)
    return Escalation(above, loss_max, level, len(gains))


class Gains(msgspec.Struct, frozen=True):
    """A linear model of the gain over some estimates of it."""

    weights: tuple[float, ...] = ()

    def of(self, estimates: Floats) -> Floats:
        """Returns the gain of each row of estimates."""
        return np.column_stack([np.ones(len(estimates)), estimates]) @ np.array(self.weights)


def fit_gains(estimates: Floats, lost: Floats, prior: Sequence[float]) -> Gains:
    """Returns the weights of estimates that come nearest to what was lost, held to ``prior``, the constant first."""
    terms = np.column_stack([np.ones(len(estimates)), estimates])
    start = np.asarray(prior, np.float64)
    bend = terms.T @ terms + _RIDGE * np.eye(terms.shape[1])
    found = start + np.linalg.solve(bend, terms.T @ (lost - terms @ start))
    return Gains(tuple(found.tolist()))
