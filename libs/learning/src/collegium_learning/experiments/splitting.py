"""Whether units were split evenly: a test of the coin that may be looked at at any time. Pure.

A mixture of likelihood ratios over all shares that the candidate could have, each as likely, against one half (Lindon
and Malek 2020). Units that were split otherwise are a fault of the experiment: a draw that is not the same everywhere,
an arm whose tasks are lost before they are told of. One rule: of an uneven experiment nothing is proven.
"""

from __future__ import annotations

import math
from typing import Final

# Odds at which an experiment is said to be spoilt: one in a thousand sound ones is, at any time.
ODDS: Final = 1_000.0


def log_evidence(candidate: int, control: int) -> float:
    """Returns the natural logarithm of the evidence against an even split of so many units."""
    count = candidate + control
    beta = math.lgamma(candidate + 1) + math.lgamma(control + 1) - math.lgamma(count + 2)
    return beta + count * math.log(2)
