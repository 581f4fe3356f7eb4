"""Evidence that a challenger is not worse than a margin, or that it is: bets on a bounded mean. Pure.

A pair is worth D = 1 (won), 0 (as good) or −1 (lost). Whoever bets a share b of its money that D exceeds an edge has
the product of 1 + b (D − edge), which does not grow where the mean of D is at most the edge; the average over several
bets does not either (Waudby-Smith and Ramdas 2024). One rule: as all evidence here, it may be looked at at any time.
"""

from __future__ import annotations

import math
from typing import Final

from collegium_learning.ranks.pairs import Pairs

# Shares of the largest bet that can never lose everything; small ones for small differences.
BETS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 0.96)


def bets_above(edge: float) -> tuple[float, ...]:
    """Returns the bets that are averaged, for an edge between −1 and 1."""
    return tuple(share / (1 + edge) for share in BETS)


def log_evidence(pairs: Pairs, edge: float) -> float:
    """Returns the natural logarithm of the evidence that the mean of D exceeds ``edge`` (−1 < edge < 1)."""
    logs = [
        pairs.wins * math.log1p(bet * (1 - edge))
        + pairs.ties * math.log1p(-bet * edge)
        + pairs.losses * math.log1p(-bet * (1 + edge))
        for bet in bets_above(edge)
    ]
    top = max(logs)
    return top + math.log(math.fsum(math.exp(one - top) for one in logs) / len(logs))
