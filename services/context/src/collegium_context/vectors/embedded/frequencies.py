"""How many points of a tenant a part has, and how many of them hold a stem: what BM25 weighs a question's stems by.

Counted over a tenant's own points, so that no tenant's texts show in another's ranking, and over all parts of a shelf,
so that scores of different parts compare. One rule: what was removed or replaced is counted until its part is built
anew, as search engines do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np


class Counted(Protocol):
    """A tenant's counts in one part: points, those with words, and those that hold a stem."""

    points: int
    documents: int

    def with_stem(self, index: int) -> int:
        """How many points hold a stem."""
        ...


class Growing(msgspec.Struct):
    """Counts that points are added to."""

    points: int = 0
    documents: int = 0
    stems: Counter[int] = msgspec.field(default_factory=Counter[int])

    def with_stem(self, index: int) -> int:
        """How many points hold a stem."""
        return self.stems.get(index, 0)

    def frozen(self) -> Frozen:
        """Returns the same counts in a form that takes 8 bytes a stem."""
        indices = np.fromiter(sorted(self.stems), dtype="<u4", count=len(self.stems))
        counts = np.fromiter((self.stems[int(index)] for index in indices), dtype="<u4", count=len(indices))
        return Frozen(self.points, self.documents, indices.tobytes(), counts.tobytes())


class Frozen(msgspec.Struct):
    """Counts as a built part keeps them: stems in order (uint32), and how many points hold each (uint32)."""

    points: int
    documents: int
    indices: bytes
    counts: bytes

    def with_stem(self, index: int) -> int:
        """How many points hold a stem."""
        indices = np.frombuffer(self.indices, dtype="<u4")
        place = int(np.searchsorted(indices, index))
        if place == len(indices) or indices[place] != index:
            return 0
        return int(np.frombuffer(self.counts, dtype="<u4")[place])


class Frequencies:
    """The counts of one part, by tenant."""

    def __init__(self) -> None:
        self.tenants: dict[str, Growing | Frozen] = {}

    def add(self, tenant: str, points: int, documents: int, indices: Iterable[int]) -> None:
        """Counts further points of an open part; ``indices`` are the stems of all of them."""
        counted = self.tenants.get(tenant)
        if not isinstance(counted, Growing):
            counted = self.tenants[tenant] = Growing()
        counted.points += points
        counted.documents += documents
        counted.stems.update(indices)

    @property
    def points(self) -> int:
        """How many points were added."""
        return sum(counted.points for counted in self.tenants.values())

    def save(self, path: Path) -> None:
        """Writes the counts of a built part."""
        frozen = {
            tenant: counted.frozen() if isinstance(counted, Growing) else counted
            for tenant, counted in self.tenants.items()
        }
        path.write_bytes(msgspec.msgpack.encode(frozen))

    @staticmethod
    def load(path: Path) -> Frequencies:
        """Reads the counts of a built part."""
        loaded = Frequencies()
        loaded.tenants.update(msgspec.msgpack.decode(path.read_bytes(), type=dict[str, Frozen]))
        return loaded


def rarities(parts: Sequence[Frequencies], tenant: str, indices: Sequence[int]) -> list[float]:
    """Returns each stem's inverse document frequency over the parts, as BM25 has it (never negative)."""
    held = [counted for part in parts if (counted := part.tenants.get(tenant)) is not None]
    documents = sum(counted.documents for counted in held)
    rare: list[float] = []
    for index in indices:
        with_stem = min(documents, sum(counted.with_stem(index) for counted in held))
        rare.append(math.log(1 + (documents - with_stem + 0.5) / (with_stem + 0.5)))
    return rare
