"""Plans of several attempts: how many they make at most, how many at first, and whose. Pure.

A cascade climbs the ranks: it asks the weakest one twice, because two answers that agree say more than one can, and
every higher one once. A panel asks up to so many members as it was asked for. Who answers within a rank is the router's
business, and when enough were asked is consensus'. One rule: what a plan may cost at most follows from here alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from collegium_contracts.parts import Rank

RANKS_UP: Final[tuple[Rank, ...]] = ("student", "ta", "teacher")
# Attempts that are made at once: fewer than two never agree, and a third is often saved.
AT_FIRST: Final = 2
# Plans whose attempts end by themselves and that consensus settles.
SEVERAL: Final = frozenset(("panel", "cascade"))


def cascade_ranks(present: Iterable[Rank]) -> tuple[Rank, ...]:
    """Returns the rank of each attempt that a cascade may make, from the ranks that have a model; empty for none."""
    found = set(present)
    climbed: tuple[Rank, ...] = tuple(rank for rank in RANKS_UP if rank in found)
    return climbed[:1] * AT_FIRST + climbed[1:]


def at_first(of: int) -> int:
    """Returns how many of a plan's attempts are made before any has ended."""
    return min(AT_FIRST, of)
