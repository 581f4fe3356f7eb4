"""Finding domains: principal components of questions' directions, and HDBSCAN's clusters among those. Pure.

A cluster is its centroid and how far it reaches, so that what is applied needs neither the questions nor scikit-learn.
One rule: the same questions make the same domains, whatever was found before.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from collegium_learning.domains.mapping import CLUSTERS_MAX, seen_as, unit
from collegium_learning.routing.features import Floats

# Fewer questions show no crowd that would stand when more come.
ROWS_MIN: Final = 200
ROWS_MAX: Final = 8_000
# Measured: fewer components crowd distant topics together, all of them leave half of the questions out.
NEAR_DIMENSIONS: Final = 48
# A domain is at least so many questions, or that share of all.
QUESTIONS_MIN: Final = 8
SHARE_MIN: Final = 1 / 200
# Clusters whose centroids are this like each other on average (cosine) are one: a crowd without any parts has dense
# places by chance, which are others at the next fit.
ALIKE: Final = 0.7
# How like its centroid (cosine) half of a cluster's questions are at least.
TIGHT: Final = 0.6
# How like a centroid (cosine) a question is that is of its domain. Measured: at .4 nothing is of none, and at what 95 %
# of a cluster's own questions reach a third of all questions is.
REACH: Final = 0.5


class Found(NamedTuple):
    """Clusters of questions: the place of each question's (-1: none), and what a map is made of."""

    places: np.ndarray
    mean: Floats
    projection: Floats
    centroids: Floats
    reaches: list[float]


def find(directions: Floats) -> Found | None:
    """Returns the clusters among questions, whose directions are of length one; none where they show fewer than two.

    At most CLUSTERS_MAX of them, the largest.
    """
    rows = len(directions)
    if rows < ROWS_MIN:
        return None
    from sklearn.cluster import HDBSCAN  # noqa: PLC0415 - scikit-learn, which a start need not wait for

    mean = directions.mean(axis=0, dtype=np.float64).astype(np.float32)
    projection = _components(directions - mean, min(NEAR_DIMENSIONS, directions.shape[1], rows))
    near = seen_as(directions, mean, projection)
    least = max(QUESTIONS_MIN, round(rows * SHARE_MIN))
    clusters = HDBSCAN(
        min_cluster_size=least,
        min_samples=1,
        cluster_selection_method="leaf",
        copy=True,  # pyright: ignore[reportArgumentType] - its stub knows what it warns of
    )
    raw = _joined(near, clusters.fit(near.astype(np.float64)).labels_)
    sizes = np.bincount(raw[raw >= 0])
    centroids: list[Floats] = []
    for one in sorted(range(len(sizes)), key=lambda one: (-sizes[one], one))[:CLUSTERS_MAX]:
        own = near[raw == one]
        centre = unit(own.mean(axis=0))
        # A few that are alone together are near each other by chance, and all of them far from their middle.
        if float(np.median(own @ centre)) >= TIGHT:
            centroids.append(centre)
    if len(centroids) < 2:
        return None
    likeness = near @ np.stack(centroids).T
    best = likeness.argmax(axis=1)
    reached = likeness[np.arange(rows), best] >= REACH
    return Found(np.where(reached, best, -1), mean, projection, np.stack(centroids), [REACH] * len(centroids))


def _joined(near: Floats, raw: np.ndarray) -> np.ndarray:
    """Returns clusters with those joined that are the same crowd."""
    count = int(raw.max()) + 1
    if count < 2:
        return raw
    from sklearn.cluster import AgglomerativeClustering  # noqa: PLC0415 - as above

    centroids = unit(np.stack([near[raw == one].mean(axis=0) for one in range(count)]))
    joining = AgglomerativeClustering(
        n_clusters=None,  # pyright: ignore[reportArgumentType] - none where the distance decides
        metric="cosine",
        linkage="average",
        distance_threshold=1 - ALIKE,
    )
    return np.where(raw >= 0, joining.fit(centroids).labels_[raw], -1)


def _components(centred: Floats, count: int) -> Floats:
    """Returns the first principal directions (columns), each with the sign that makes its largest number positive."""
    spread = centred.astype(np.float64)
    _, vectors = np.linalg.eigh(spread.T @ spread)
    columns = vectors[:, ::-1][:, :count]
    largest = np.abs(columns).argmax(axis=0)
    return (columns * np.sign(columns[largest, np.arange(count)])).astype(np.float32)
