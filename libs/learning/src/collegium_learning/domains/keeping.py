"""Ids that stay: what was found anew is given the id of what it was before, where that is the same crowd. Pure.

Both are compared by the questions at hand: how many of them each old cluster and each new one claim together, of all
that either claims. The pairs are an assignment that has most in common in all. One rule: an id is given once, and one
that was given up is given to nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

# Two clusters are the same where they share so much of what either claims.
COMMON_MIN: Final = 0.2


def kept(places: Sequence[int] | np.ndarray, count: int, before: Sequence[str]) -> list[str]:
    """Returns the former id of each of ``count`` new clusters, empty for those that are new.

    ``places`` says of each question which new cluster it is of (-1: none), ``before`` of which former one (empty:
    none).
    """
    olds = sorted({name for name in before if name})
    if not olds or not count:
        return [""] * count
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - which a start need not wait for

    column = {name: at for at, name in enumerate(olds)}
    both = np.zeros((count, len(olds)))
    for (place, name), seen in Counter(zip((int(place) for place in places), before, strict=True)).items():
        if place >= 0 and name:
            both[place, column[name]] = seen
    new_sizes = np.bincount([int(place) for place in places if place >= 0], minlength=count)
    old_sizes = np.array([sum(1 for one in before if one == name) for name in olds])
    common = both / np.maximum(new_sizes[:, None] + old_sizes[None, :] - both, 1)
    found = [""] * count
    for row, at in zip(*linear_sum_assignment(-common), strict=True):
        if common[row, at] >= COMMON_MIN:
            found[int(row)] = olds[int(at)]
    return found
