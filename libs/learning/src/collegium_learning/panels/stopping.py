"""When enough members were asked. Pure.

Three rules, and the one that needs no record is the plainest: two that agree. One rule: a panel that is settled stays
settled, whatever the members say who were not asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from collegium_learning.panels.deciding import Known, aggregate
from collegium_learning.panels.stacking import Stacked
from collegium_learning.panels.votes import NOTHING_KNOWN, Reliability, Tally, Vote

StoppingRule = Literal["first_two", "beta", "decided"]
# Beta stopping: the probability that the leading answer also leads among all who could be asked.
BETA_PROBABILITY = 0.95
# What may be left open, as a share of belief: other answers that were given, and this much of what nobody gave, of
# which those who wait bring little to light.
LEFT_MAX, LEFT_UNSAID = 0.35, 0.7
# What the others of a disagreement may be believed where it settles all the same.
OTHERS_MAX = 0.15
# What a member is asked for where no price is known.
_COST_UNKNOWN = 1.0


def asking_order(rights: Mapping[str, float], costs: Mapping[str, float] | None = None) -> list[str]:
    """Returns members in the order in which to ask them: what most likely is right per cost first.

    ``rights`` are shares of right answers; ``costs`` what a call costs, in any unit. Where a price is missing, prices
    are left out altogether. Equals go by name.
    """
    known = costs if costs and all(costs.get(name, 0.0) > 0.0 for name in rights) else {}
    return sorted(rights, key=lambda name: (-rights[name] / known.get(name, _COST_UNKNOWN), name))


def is_settled(
    votes: Mapping[int, Vote],
    waiting: Sequence[str],
    reliability: Known = NOTHING_KNOWN,
    rule: StoppingRule = "first_two",
) -> bool:
    """Whether the members that were not asked yet (``waiting``, by name) may be left unasked.

    ``first_two``: two agree and lead, and where it is known how often members are right, little of the belief is in
    other answers (LEFT_MAX). By a learned tally, whose probabilities hold for disagreements too, so is settled whose
    others are hardly believed (OTHERS_MAX).
    ``beta``: the leading answer's share against the second's is above a half with probability 0.95 under a uniform
    prior (Adaptive-Consistency, arXiv 2305.11860). ``decided``: even if all who wait agreed on another answer, the
    leader would win. What is decided is settled under every rule; so is a panel for which nobody waits, and one whose
    deciding member has voted.
    """
    if not waiting:
        return True
    tally = aggregate(votes, reliability)
    if tally is None or not tally.votes:
        return False
    if reliability.best is not None:
        return any(vote.member == reliability.best and vote.key for vote in votes.values())
    first, *others = [camp for camp in tally.camps if camp.key]
    if isinstance(reliability, Reliability):
        second = max((camp.weight for camp in others), default=0.0)
        if first.weight > second + math.fsum(map(reliability.weight, waiting)):
            return True
    runner_up = max((len(camp.numbers) for camp in others), default=0)
    if rule == "first_two":
        return _agree(tally, reliability, runner_up)
    return rule == "beta" and leads(tally.agreeing, runner_up) >= BETA_PROBABILITY


def _agree(tally: Tally, reliability: Known, runner_up: int) -> bool:
    leads_plainly = tally.agreeing > max(runner_up, 1)
    if not leads_plainly and (tally.votes < 2 or not isinstance(reliability, Stacked)):
        return False
    if isinstance(reliability, Reliability) and not reliability.right:
        # Of members of whom nothing is known a tally says no more than how many agree.
        return True
    others = math.fsum(camp.probability for camp in tally.camps[1:])
    unsaid = max(1.0 - tally.probability - others, 0.0)
    return others + LEFT_UNSAID * unsaid < LEFT_MAX and (leads_plainly or others < OTHERS_MAX)


def leads(first: int, second: int) -> float:
    """Returns P(share > 1/2) of a share that is Beta(first + 1, second + 1): a tail of the fair coin's binomial."""
    tosses = first + second + 1
    return sum(math.comb(tosses, heads) for heads in range(first + 1)) / 2**tosses
