"""Who is taken in next: places for documents of each size, and whose they are. Pure.

Time goes by in embedding, which cannot be hurried, so nobody may hold all places. One rule: while half of them or fewer
are free, they are for tenants who have none, and among those for the one whose turn was longest ago.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

Size = Literal["light", "heavy", "large"]

# Tenants whose last turn is remembered; who is forgotten goes first.
REMEMBERED_MAX = 1_000


class Lane(NamedTuple):
    """Places for documents of a size; in each are at most so many, which begin within so many bytes."""

    size: Size
    places: int
    documents_max: int
    bytes_max: int


class Turns:
    """The places of one lane in one process."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._free = places
        self._busy: Counter[str] = Counter()
        self._served: dict[str, None] = {}

    @property
    def has_place(self) -> bool:
        """Whether a place is free."""
        return self._free > 0

    @property
    def shut_out(self) -> list[str]:
        """Tenants who get no further place now."""
        return list(self._busy) if 2 * self._free <= self._places else []

    @property
    def served(self) -> list[str]:
        """Tenants who had a turn, the one whose turn was longest ago first."""
        return list(self._served)

    def begin(self, tenants: Iterable[str]) -> None:
        """Gives a place to documents of these tenants."""
        self._free -= 1
        for tenant in set(tenants):
            self._busy[tenant] += 1
            self._served.pop(tenant, None)
            self._served[tenant] = None
        while len(self._served) > REMEMBERED_MAX:
            del self._served[next(iter(self._served))]

    def end(self, tenants: Iterable[str]) -> None:
        """Takes the place back."""
        self._free += 1
        self._busy.subtract(set(tenants))
        self._busy = +self._busy
