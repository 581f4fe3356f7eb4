"""Of which discovered domain a question is: the nearest centroid's, within its reach. Pure; numpy alone.

One rule: a map whose arrays do not fit each other, or hold what is no number, is refused as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from collegium_contracts.domains import LAYOUT, DomainMap

from collegium_learning.routing.features import TRAITS, Floats

NONE: Final = -1
CLUSTERS_MAX: Final = 200
_BLOCK: Final = 2_000


class MapError(ValueError):
    """A map that cannot be applied."""


class Mapper:
    """A map, ready to be applied; raises MapError where it is of a later layout or does not fit together."""

    def __init__(self, found: DomainMap) -> None:
        count, wide, near = len(found.clusters), found.dimensions, found.near_dimensions
        if found.layout != LAYOUT or not count == len(found.domains) == len(found.reaches) or count > CLUSTERS_MAX:
            raise MapError(f"map {found.version} of layout {found.layout} with {count} clusters")
        if count and not (0 < near <= wide):
            raise MapError(f"map {found.version} of {wide} numbers seen as {near}")
        self.map = found
        self._mean = _array(found.mean, (wide,) if count else (0,))
        self._projection = _array(found.projection, (wide, near) if count else (0, 0))
        self._centroids = unit(_array(found.centroids, (count, near) if count else (0, 0)))
        self._reaches = np.array(found.reaches, np.float32)
        if not np.isfinite(self._reaches).all():
            raise MapError(f"map {found.version}: reaches that are no numbers")

    def of(self, embedder: str, row: Floats) -> str:
        """Returns the domain of a question by its row (embedding, then traits); empty where it is of none."""
        found = self.map
        wide = len(row) - len(TRAITS)
        if embedder != found.embedder or not found.clusters or wide != found.dimensions:
            return ""
        # A single one without BLAS, whose threads wait for each other longer than the sum takes.
        seen = row[:wide] / np.float32(np.linalg.norm(row[:wide]) or 1.0) - self._mean
        near = np.einsum("i,ij->j", seen, self._projection)
        likeness = np.einsum("ij,j->i", self._centroids, near) / np.float32(np.linalg.norm(near) or 1.0)
        best = int(likeness.argmax())
        return found.domains[best] if likeness[best] >= self._reaches[best] else ""

    def places(self, directions: Floats) -> np.ndarray:
        """Returns the place of each question's cluster, NONE where it is of none; directions are of length one."""
        if not self.map.clusters:
            return np.full(len(directions), NONE)
        found: list[np.ndarray] = []
        for start in range(0, len(directions), _BLOCK):
            likeness = seen_as(directions[start : start + _BLOCK], self._mean, self._projection) @ self._centroids.T
            best = likeness.argmax(axis=1)
            reached = likeness[np.arange(len(best)), best] >= self._reaches[best]
            found.append(np.where(reached, best, NONE))
        return np.concatenate(found) if found else np.zeros(0, int)

    def clusters_of(self, directions: Floats) -> list[str]:
        """Returns the own id of each question's cluster, empty where it is of none."""
        return _names(self.map.clusters, self.places(directions))

    def domains_of(self, directions: Floats) -> list[str]:
        """Returns the domain of each question, empty where it is of none."""
        return _names(self.map.domains, self.places(directions))


def unit(rows: np.ndarray) -> Floats:
    """Returns rows of length one."""
    return (rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)).astype(np.float32)


def seen_as(directions: Floats, mean: Floats, projection: Floats) -> Floats:
    """Returns directions as clusters are found in: less their mean, projected, of length one."""
    return unit((directions - mean) @ projection)


def _names(names: Sequence[str], places: np.ndarray) -> list[str]:
    return ["" if place == NONE else names[int(place)] for place in places]


def _array(data: bytes, shape: tuple[int, ...]) -> Floats:
    try:
        found = np.frombuffer(data, "<f4").astype(np.float32).reshape(shape)
    except ValueError as error:
        raise MapError(f"{len(data)} bytes are not numbers of shape {shape}") from error
    if not np.isfinite(found).all():
        raise MapError("numbers of a map are finite")
    return found
