"""The cache over a recorded stream, in memory: what it would have served, and what there is to learn from it. Pure.

It decides as the live cache does, with the same rooms; only the index is a matrix. The answer of a row that was served
is never looked at for a decision: it is revealed only for rows that were asked. One rule: the labels of a recording
stand for the equality of answers, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np

from collegium_context.semantic.features import NEIGHBOURS, Compared, Neighbour, among, compare
from collegium_context.semantic.policy import (
    SCOPE_DECAY,
    Calibration,
    Candidate,
    Evidence,
    Limits,
    decide,
    is_crowd,
    weigh,
)
from collegium_context.semantic.words import Read


class Asked(NamedTuple):
    """One row of a recorded stream; ``answer`` is equal for rows with the same right answer."""

    read: Read
    vector: np.ndarray
    answer: Hashable


class Outcome(NamedTuple):
    """What became of a row: whether it was served, whether that answer was (or would have been) wrong, and why.

    ``features`` are those of a crowd's candidate that no veto spoke against, ``lone`` those of one without a crowd.
    """

    served: bool
    wrong: bool
    features: np.ndarray | None
    lone: np.ndarray | None
    is_new: bool
    look_seconds: float


class Replay:
    """A cache of one scope that starts empty."""

    def __init__(
        self,
        dimensions: int,
        calibration: Calibration | None,
        limits: Limits,
        rng: np.random.Generator,
        *,
        clock: Callable[[], float],
        new_share: float = 0.0,
    ) -> None:
        self._matrix = np.zeros((1024, dimensions), dtype=np.float32)
        self._entries: list[Asked] = []
        self._evidence: dict[int, Evidence] = {}
        self._scope = Evidence()
        self._calibration = calibration
        self._limits = limits
        self._rng = rng
        self._clock = clock
        self._new_share = new_share

    def ask(self, asked: Asked) -> Outcome:
        """Answers one row from the cache, or stores it.

        With ``new_share``, some rows are looked at as if nobody had asked the like before: whatever is then found is
        wrong. That is learned from, and never served.
        """
        is_new = bool(self._new_share) and self._rng.random() < self._new_share
        began = self._clock()
        near = self._near(asked, without=asked.answer if is_new else None)
        found = self._candidate(asked, near) if near else None
        candidate = self._weigh(found, near) if found is not None else None
        chance = self._rng.random()
        decision = decide(candidate, chance)
        seconds = self._clock() - began
        wrong = found is not None and self._entries[found[1]].answer != asked.answer
        features, lone = self._features(found, near) if found is not None else (None, None)
        if decision == "serve" and not is_new:
            return Outcome(True, wrong, features, lone, is_new, seconds)
        if candidate is not None and found is not None and not is_new:
            self._learn(found[1], candidate, wrong)
        self._store(asked)
        return Outcome(False, wrong, features, lone, is_new, seconds)

    def _near(self, asked: Asked, without: Hashable | None) -> list[tuple[Neighbour, int]]:
        count = len(self._entries)
        if not count:
            return []
        cosines = self._matrix[:count] @ asked.vector
        wanted = min(count, NEIGHBOURS if without is None else 4 * NEIGHBOURS)
        at = np.argpartition(-cosines, wanted - 1)[:wanted]
        at = at[np.argsort(-cosines[at], kind="stable")]
        groups = (self._entries[int(i)].answer for i in at)
        near = [
            (Neighbour(float(cosines[i]), group), int(i))  # pyright: ignore[reportArgumentType] - any label groups
            for i, group in zip(at, groups, strict=True)
            if without is None or group != without
        ]
        return near[:NEIGHBOURS]

    def _candidate(self, asked: Asked, near: Sequence[tuple[Neighbour, int]]) -> tuple[Compared, int]:
        """Returns the nearest entry; where a veto is against it, one with the same answer that none is against."""
        group = near[0][0].group
        first: tuple[Compared, int] | None = None
        for neighbour, index in near:
            if neighbour.group != group:
                continue
            compared = compare([asked.read], [self._entries[index].read], [neighbour.cosine])
            if not compared.vetoes:
                return (compared if first is None else Compared(compared.vetoes, first[0].row)), index
            first = first or (compared, index)
        assert first is not None, "the nearest is of its own group"
        return first

    def _weigh(self, found: tuple[Compared, int], near: Sequence[tuple[Neighbour, int]]) -> Candidate | None:
        if self._calibration is None:
            return None
        neighbours = [one for one, _ in near]
        entry = self._evidence.get(found[1], Evidence())
        return weigh(self._calibration, self._limits, found[0], neighbours, entry, self._scope)

    def _features(
        self, found: tuple[Compared, int], near: Sequence[tuple[Neighbour, int]]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        if found[0].vetoes:
            return None, None
        neighbours = [one for one, _ in near]
        return (among(found[0].row, neighbours), None) if is_crowd(neighbours) else (None, found[0].row)

    def _learn(self, index: int, candidate: Candidate, wrong: bool) -> None:
        if candidate.is_near:
            entry = self._evidence.get(index, Evidence())
            self._evidence[index] = entry.seen(candidate.risk, is_wrong=wrong)
            self._scope = self._scope.seen(candidate.risk, is_wrong=wrong, decay=SCOPE_DECAY)

    def _store(self, asked: Asked) -> None:
        count = len(self._entries)
        if count == len(self._matrix):
            self._matrix = np.concatenate([self._matrix, np.zeros_like(self._matrix)])
        self._matrix[count] = asked.vector
        self._entries.append(asked)
