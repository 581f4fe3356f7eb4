"""How good a ranking is, against what is known to be relevant. Pure; relevance is yes or no."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence


def ndcg(ranked: Sequence[str], relevant: Collection[str], depth: int = 10) -> float:
    """Returns the normalised discounted gain of the first ``depth``, with the discount log2(rank + 1)."""
    gained = sum(1 / math.log2(place + 2) for place, one in enumerate(ranked[:depth]) if one in relevant)
    best = sum(1 / math.log2(place + 2) for place in range(min(depth, len(relevant))))
    return gained / best if best else 0.0


def recall(ranked: Sequence[str], relevant: Collection[str], depth: int = 100) -> float:
    """Returns which share of what is relevant stands among the first ``depth``."""
    return sum(1 for one in ranked[:depth] if one in relevant) / len(relevant) if relevant else 0.0
