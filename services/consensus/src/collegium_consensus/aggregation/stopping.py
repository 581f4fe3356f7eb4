"""When enough members were asked. Pure.

Three rules, and the one that needs no record is the plainest: two that agree. One rule: a panel that is settled stays
settled, whatever the members say who were not asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from collegium_consensus.aggregation.votes import NOTHING_KNOWN, Reliability, Vote, aggregate

StoppingRule = Literal["first_two", "beta", "decided"]
# Beta stopping: the probability that the leading answer also leads among all who could be asked.
BETA_PROBABILITY = 0.95


def is_settled(
    votes: Mapping[int, Vote],
    waiting: Sequence[str],
    reliability: Reliability = NOTHING_KNOWN,
    rule: StoppingRule = "first_two",
) -> bool:
    """Whether the members that were not asked yet (``waiting``, by name) may be left unasked.

    ``first_two``: two members agree and nobody else leads. ``beta``: the leading answer's share against the second
    is above a half with probability 0.95 under a uniform prior (Adaptive-Consistency, arXiv 2305.11860).
    ``decided``: even if all who wait agreed on the second answer, or on a new one, the leader would win. What is
    decided is settled under every rule, and so is a panel for which nobody waits.
    """
    tally = aggregate(votes, reliability)
    if not waiting:
        return True
    if tally is None or not tally.votes:
        return False
    camps = [camp for camp in tally.camps if camp.key]
    second = max((camp.weight for camp in camps[1:]), default=0.0)
    if camps[0].weight > second + math.fsum(map(reliability.weight, waiting)) and reliability.best not in waiting:
        return True
    runner_up = max((len(camp.numbers) for camp in camps[1:]), default=0)
    if rule == "first_two":
        return tally.agreeing > 1 and tally.agreeing > runner_up
    if rule == "beta":
        return leads(tally.agreeing, runner_up) >= BETA_PROBABILITY
    return False


def leads(first: int, second: int) -> float:
    """Returns P(share > 1/2) of a share that is Beta(first + 1, second + 1): a tail of the fair coin's binomial."""
    tosses = first + second + 1
    return sum(math.comb(tosses, heads) for heads in range(first + 1)) / 2**tosses
