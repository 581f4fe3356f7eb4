"""The one door of aggregation: votes in, a tally out, by whatever is known. Pure.

One rule: who holds a tally need not know whether it was counted, weighed or learned.
"""

from __future__ import annotations

from collections.abc import Mapping

from collegium_learning.panels.stacking import Stacked, stacked_tally
from collegium_learning.panels.votes import NOTHING_KNOWN, Reliability, Tally, Vote, weighted_tally

# What is known of the members in one domain: their reliability, or a tally that was learned.
Known = Reliability | Stacked


def aggregate(votes: Mapping[int, Vote], reliability: Known = NOTHING_KNOWN) -> Tally | None:
    """Counts votes by attempt number; none where nobody voted.

    Who says nothing is counted as asked, and wins only where nobody says anything. The result depends neither on the
    order of votes nor on members' names; between equal answers that of the lowest attempt wins.
    """
    if isinstance(reliability, Stacked):
        return stacked_tally(votes, reliability)
    return weighted_tally(votes, reliability)
