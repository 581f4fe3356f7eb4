"""How many points of a tenant hold a stem: what BM25 weighs a question's stems by.

Counted over a tenant's own points, so that no tenant's texts show in another's ranking, and over all parts of a shelf,
so that scores of different parts compare. What was removed or replaced is counted until its part is built anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec


class TenantFrequencies(msgspec.Struct):
    """A tenant's counts in one part: points with words, and those of them that hold a stem."""

    documents: int = 0
    stems: dict[int, int] = {}


class Frequencies:
    """The counts of one part, by tenant."""

    def __init__(self, tenants: dict[str, TenantFrequencies] | None = None) -> None:
        self.tenants: dict[str, TenantFrequencies] = tenants if tenants is not None else {}

    def add(self, tenant: str, documents: int, indices: Iterable[int]) -> None:
        """Counts further points; ``indices`` are the stems of all of them."""
        counted = self.tenants.get(tenant)
        if counted is None:
            counted = self.tenants[tenant] = TenantFrequencies()
        counted.documents += documents
        stems = counted.stems
        for index in indices:
            stems[index] = stems.get(index, 0) + 1


def rarities(parts: Sequence[Frequencies], tenant: str, indices: Sequence[int]) -> list[float]:
    """Returns each stem's inverse document frequency over the parts, as BM25 has it (never negative)."""
    held = [counted for part in parts if (counted := part.tenants.get(tenant)) is not None]
    documents = sum(counted.documents for counted in held)
    rare: list[float] = []
    for index in indices:
        with_stem = min(documents, sum(counted.stems.get(index, 0) for counted in held))
        rare.append(math.log(1 + (documents - with_stem + 0.5) / (with_stem + 0.5)))
    return rare
