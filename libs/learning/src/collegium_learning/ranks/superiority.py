"""Evidence that a challenger is better: a mixture of likelihood ratios over discordant pairs. Pure.

Of two equal models each wins half of the pairs in which they differ. The evidence against that is how much likelier the
wins are under win rates above one half, averaged over a Beta distribution cut off at one half (Robbins 1970). Under any
win rate of one half or less it is a supermartingale that begins at 1, so the chance that it *ever* reaches k is at most
1/k (Ville 1939), whenever and however often one looks. One rule: the order of pairs does not matter, their counts do.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

# Where better students are expected: about two wins in three. Chosen so that a win rate of .70 is found soon.
PRIOR_WINS: Final = 10
PRIOR_LOSSES: Final = 5
_LOG_TWO: Final = math.log(2)


def log_evidence(wins: int, losses: int) -> float:
    """Returns the natural logarithm of the odds that the challenger is better, against that it is not."""
    wins_in_all, losses_in_all = PRIOR_WINS + wins, PRIOR_LOSSES + losses
    likelihood = _log_beta(wins_in_all, losses_in_all) - _log_beta(PRIOR_WINS, PRIOR_LOSSES)
    kept = log_above_half(wins_in_all, losses_in_all) - log_above_half(PRIOR_WINS, PRIOR_LOSSES)
    return likelihood + kept + (wins + losses) * _LOG_TWO


@lru_cache(maxsize=65_536)
def log_above_half(wins: int, losses: int) -> float:
    """Returns log P(X > 1/2) of a Beta(wins, losses) with whole parameters: a binomial tail, summed from its top.

    P(Beta(a, b) > 1/2) = P(Binomial(a + b − 1, 1/2) < a).
    """
    tosses = wins + losses - 1
    return _log_sum([_log_choose(tosses, heads) for heads in range(wins)]) - tosses * _LOG_TWO


def _log_beta(wins: int, losses: int) -> float:
    return math.lgamma(wins) + math.lgamma(losses) - math.lgamma(wins + losses)


def _log_choose(tosses: int, heads: int) -> float:
    return math.lgamma(tosses + 1) - math.lgamma(heads + 1) - math.lgamma(tosses - heads + 1)


def _log_sum(logs: list[float]) -> float:
    top = max(logs)
    return top + math.log(math.fsum(math.exp(one - top) for one in logs))
