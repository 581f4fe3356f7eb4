"""Many comparisons at once: of those that say yes, few may be wrong. Pure.

The e-BH procedure (Wang and Ramdas 2022): of m comparisons the k strongest stand where each has evidence of at least
m / (k · share); then at most this share of what stands is wrong on average, whatever depends on what. One rule: a
comparison's own threshold is asked for beside this, never instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def standing(log_evidence: Sequence[float], false_share: float) -> list[bool]:
    """Says of each comparison whether it stands among all of them, in their order."""
    count = len(log_evidence)
    strongest = sorted(range(count), key=lambda one: log_evidence[one], reverse=True)
    kept = 0
    for place, one in enumerate(strongest, 1):
        if log_evidence[one] >= math.log(count / (place * false_share)):
            kept = place
    found = set(strongest[:kept])
    return [one in found for one in range(count)]


def threshold(count: int, false_share: float) -> float:
    """Returns the evidence that the strongest of ``count`` comparisons needs."""
    return max(1, count) / false_share
