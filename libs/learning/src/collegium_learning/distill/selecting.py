"""Which samples are trained on: each once, none too like another's crowd or what is held out, spread over all. Pure.

Texts are compared by words and by direction of their vectors. One rule: the choice depends on the samples alone, never
on their order or on chance.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

# One in ten is held out, by its task's id, so that it is so for good.
HELD_OUT_PERMILLE: Final = 100
# Of samples this like each other (cosine) so many are enough.
CLUSTER_COSINE: Final = 0.93
CLUSTER_MAX: Final = 20
# A sample this like one that is held out would tell its answer.
CONTAMINATED_COSINE: Final = 0.985
# The first of a larger set that is spread out is found among so many.
COVERED_MAX: Final = 20_000
_SPACE = re.compile(r"\s+")


class Chosen(NamedTuple):
    """Places of samples to train on and of those held out, and how many were left out by reason."""

    trained: list[int]
    held_out: list[int]
    left_out: dict[str, int]


def is_held_out(task_id: str) -> bool:
    """Whether a task's sample is held out, the same for ever and everywhere."""
    digest = hashlib.sha256(task_id.encode()).digest()
    return int.from_bytes(digest[:4], "big") % 1000 < HELD_OUT_PERMILLE


def plain(text: str) -> str:
    """Returns a text as two that only differ in case and blanks are the same."""
    return _SPACE.sub(" ", text).strip().casefold()


def choose(texts: Sequence[str], ids: Sequence[str], vectors: np.ndarray, labels: Sequence[str], most: int) -> Chosen:
    """Chooses at most ``most`` samples to train on; ``vectors`` are float (samples, dimensions) of length one.

    Crowds are counted within a label, so that a frequent label does not push out its neighbours. Of several with the
    same text and label the one of the least id stays; where they disagree on the label, none does.
    """
    left_out: Counter[str] = Counter()
    order = sorted(range(len(ids)), key=lambda place: ids[place])
    said: dict[str, set[str]] = {}
    for place in order:
        said.setdefault(plain(texts[place]), set()).add(labels[place])
    seen: set[str] = set()
    held: list[int] = []
    rest: list[int] = []
    for place in order:
        text = plain(texts[place])
        if len(said[text]) > 1:
            left_out["contradicted"] += 1
        elif text in seen:
            left_out["duplicate"] += 1
        else:
            (held if is_held_out(ids[place]) else rest).append(place)
            seen.add(text)
    clean = _decontaminated(rest, held, vectors, left_out)
    apart = _thinned(clean, vectors, labels, left_out)
    spread = covered(apart, vectors, most)
    left_out["covered"] += len(apart) - len(spread)
    return Chosen(sorted(spread), held, {name: count for name, count in left_out.items() if count})


def _decontaminated(places: list[int], held: list[int], vectors: np.ndarray, left_out: Counter[str]) -> list[int]:
    if not held or not places:
        return places
    nearest = np.concatenate(
        [(vectors[places[at : at + 1_000]] @ vectors[held].T).max(axis=1) for at in range(0, len(places), 1_000)]
    )
    kept = [place for place, cosine in zip(places, nearest, strict=True) if cosine < CONTAMINATED_COSINE]
    left_out["like_held_out"] += len(places) - len(kept)
    return kept


def _thinned(places: list[int], vectors: np.ndarray, labels: Sequence[str], left_out: Counter[str]) -> list[int]:
    """Gathers samples of a label around the first of each crowd, and keeps so many of a crowd."""
    leaders: dict[str, list[int]] = {}
    crowds: Counter[int] = Counter()
    kept: list[int] = []
    for place in places:
        known = leaders.setdefault(labels[place], [])
        leader = place
        if known:
            cosines = vectors[known] @ vectors[place]
            nearest = int(np.argmax(cosines))
            leader = known[nearest] if cosines[nearest] >= CLUSTER_COSINE else place
        if leader == place:
            known.append(place)
        crowds[leader] += 1
        if crowds[leader] <= CLUSTER_MAX:
            kept.append(place)
    left_out["crowded"] += len(places) - len(kept)
    return kept


def covered(places: Sequence[int], vectors: np.ndarray, most: int) -> list[int]:
    """Returns at most ``most`` places that are spread over all: each next one is the farthest from those before."""
    if len(places) <= most:
        return list(places)
    among = np.array(places[:COVERED_MAX])
    directions = vectors[among]
    chosen = [int(np.argmin(directions @ directions.mean(axis=0)))]
    nearest = directions @ directions[chosen[0]]
    while len(chosen) < most:
        farthest = int(np.argmin(nearest))
        chosen.append(farthest)
        nearest = np.maximum(nearest, directions @ directions[farthest])
        nearest[chosen] = np.inf
    return [int(among[place]) for place in chosen]
