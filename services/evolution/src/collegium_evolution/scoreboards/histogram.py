"""Durations in few numbers: a histogram whose buckets grow by a constant factor. Pure.

Eight buckets a doubling, so that a quantile is off by at most 4.5 %. One rule: histograms are added by adding counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

BUCKETS_PER_DOUBLING: Final = 8
# About four and a half hours: no call lasts longer, and what says so is counted there.
LAST_BUCKET: Final = 24 * BUCKETS_PER_DOUBLING


def bucket_of(duration_ms: int) -> int:
    """Returns the bucket of a duration: 0 below one millisecond, at most LAST_BUCKET."""
    if duration_ms < 1:
        return 0
    return min(1 + math.floor(math.log2(duration_ms) * BUCKETS_PER_DOUBLING), LAST_BUCKET)


def middle_ms(bucket: int) -> float:
    """Returns the duration that stands for a bucket: the geometric middle of its bounds."""
    return 2 ** ((bucket - 0.5) / BUCKETS_PER_DOUBLING) if bucket > 0 else 0.0


def quantile_ms(counts: Mapping[int, int], share: float) -> float:
    """Returns the duration that ``share`` (0 to 1) of the calls did not exceed; 0 where there are none."""
    wanted = math.ceil(share * sum(counts.values()))
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= wanted and counts[bucket]:
            return middle_ms(bucket)
    return 0.0
