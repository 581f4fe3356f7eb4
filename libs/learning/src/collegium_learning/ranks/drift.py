"""Whether what a model does has changed: ADWIN's test over sums of time. Pure.

For every place where a series can be cut in two, the means before and after it are compared; they differ where they lie
further apart than chance explains at a stated risk (Bifet and Gavaldà 2007, the bound of their section 4). The series
are sums of equal stretches of time instead of single values, so that a year of calls is looked at in a millisecond; the
risk is shared between the cuts. One rule: a drift is told with both means and their counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# The risk of an alarm over nothing, at each look.
RISK = 0.002
# Fewer on one side of a cut say nothing.
SIDE_MIN = 30


class Part(NamedTuple):
    """``values`` of them between 0 and 1, which add up to ``total`` and their squares to ``squares``."""

    values: int
    total: float
    squares: float


class Drift(NamedTuple):
    """Where a series changed: the number of its first part after it, and the means before and after."""

    at: int
    before: float
    after: float
    before_count: int
    after_count: int


def find(parts: Sequence[Part], risk: float = RISK) -> Drift | None:
    """Returns the cut with the clearest difference, none where nothing is clear; parts are in order of time."""
    count = sum(part.values for part in parts)
    if count < 2 * SIDE_MIN:
        return None
    mean = sum(part.total for part in parts) / count
    variance = max(0.0, sum(part.squares for part in parts) / count - mean * mean)
    log = math.log(2 * max(1, len(parts) - 1) / risk)
    clearest: tuple[float, Drift] | None = None
    first, first_total = 0, 0.0
    everything = sum(part.total for part in parts)
    for place, part in enumerate(parts[:-1], 1):
        first += part.values
        first_total += part.total
        last = count - first
        if first < SIDE_MIN or last < SIDE_MIN:
            continue
        before, after = first_total / first, (everything - first_total) / last
        harmonic = 1 / (1 / first + 1 / last)
        bound = math.sqrt(2 / harmonic * variance * log) + 2 / (3 * harmonic) * log
        beyond = abs(before - after) - bound
        if beyond > 0 and (clearest is None or beyond > clearest[0]):
            clearest = beyond, Drift(place, before, after, first, last)
    return clearest[1] if clearest is not None else None
