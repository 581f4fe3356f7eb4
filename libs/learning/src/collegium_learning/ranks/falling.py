"""Evidence that a model has become worse lately, however good it was before. Pure.

Evidence since a promotion needs long to forget a good year. A Shiryaev–Roberts detector begins anew at every pair: it
adds up the evidence from each of them on, and where nothing has changed it takes at least ``k`` pairs on average until
it says ``k`` (Shin, Ramdas and Rinaldo 2024). One rule: it is fed in the order in which the work was done.
"""

from __future__ import annotations

from collections.abc import Iterable

from collegium_learning.ranks.bounds import bets_above


def detector(outcomes: Iterable[int], margin: float) -> float:
    """Returns how strongly the latest pairs say that a model has become worse by more than ``margin``.

    ``outcomes`` are 1 (won), 0 (as good) or −1 (lost), the oldest first.
    """
    bets = bets_above(margin)
    sums = [0.0] * len(bets)
    for won in outcomes:
        loss = -won - margin
        sums = [(1.0 + one) * (1.0 + bet * loss) for one, bet in zip(sums, bets, strict=True)]
    return sum(sums) / len(sums)
