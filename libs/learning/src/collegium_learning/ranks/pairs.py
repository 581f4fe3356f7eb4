"""What two models are compared by: pairs of answers to the same work. Pure.

One rule: pairs are added by adding counts, so that neither their order nor who counted them matters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

# Scores closer than this are the same: judges do not tell hundredths apart.
TIE_WITHIN: Final = 0.05


class Pairs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How often the challenger's answer was the better one, the worse one, or as good.

    ``score_sum`` adds up the challenger's scores (0 to 1 each) over all of them.
    """

    wins: int = 0
    losses: int = 0
    ties: int = 0
    score_sum: float = 0.0

    @property
    def count(self) -> int:
        """How many pieces of work both answered."""
        return self.wins + self.losses + self.ties

    @property
    def discordant(self) -> int:
        """In how many of them one was better."""
        return self.wins + self.losses

    @property
    def win_rate(self) -> float:
        """The share of discordant pairs that the challenger won; 0 where there are none."""
        return self.wins / self.discordant if self.discordant else 0.0

    @property
    def mean_score(self) -> float:
        """What the challenger's answers were worth on average, 0 to 1."""
        return self.score_sum / self.count if self.count else 0.0

    def plus(self, other: Pairs) -> Pairs:
        """Adds other pairs."""
        return Pairs(
            wins=self.wins + other.wins,
            losses=self.losses + other.losses,
            ties=self.ties + other.ties,
            score_sum=self.score_sum + other.score_sum,
        )

    def reversed(self) -> Pairs:
        """Returns them as the other model sees them; whose scores the sum is does not change."""
        return msgspec.structs.replace(self, wins=self.losses, losses=self.wins)


def pair(challenger: float, incumbent: float) -> Pairs:
    """Returns one pair of scores (0 to 1)."""
    apart = challenger - incumbent
    if abs(apart) <= TIE_WITHIN:
        return Pairs(ties=1, score_sum=challenger)
    return Pairs(wins=int(apart > 0), losses=int(apart < 0), score_sum=challenger)


def total(many: Iterable[Pairs]) -> Pairs:
    """Returns the sum of pairs."""
    found = Pairs()
    for one in many:
        found = found.plus(one)
    return found
