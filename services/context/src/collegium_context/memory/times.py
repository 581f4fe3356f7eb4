"""When something is true, and when it was known: both times of a memory. Pure.

A memory is a line of versions. Each version holds for a time in the world (valid: from its start until before its end)
and was believed for a time (recorded). A correction closes the recorded time of the versions whose validity it touches
and records anew what of them it leaves. So "what was true at V, as known at K" is the one version of a line whose two
times hold V and K. One rule: of one line no two versions hold the same two times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

FOREVER: Final = 2**63 - 1


class Span(NamedTuple):
    """A time from ``start`` until before ``end`` (Unix ms)."""

    start: int
    end: int = FOREVER

    def holds(self, at: int) -> bool:
        """Whether a moment is within."""
        return self.start <= at < self.end

    def covers(self, other: Span) -> bool:
        """Whether all of another time is within."""
        return self.start <= other.start and other.end <= self.end

    def meets(self, other: Span) -> bool:
        """Whether the two have a moment in common."""
        return max(self.start, other.start) < min(self.end, other.end)

    def without(self, other: Span) -> list[Span]:
        """What is left when another time is taken out."""
        parts = (Span(self.start, min(self.end, other.start)), Span(max(self.start, other.end), self.end))
        return [part for part in parts if part.start < part.end]


class Superseded(NamedTuple):
    """What a correction does to a line: versions that are believed no longer, and what of each stays true."""

    closed: list[int]
    kept: list[tuple[int, Span]]


def supersede(standing: Sequence[Span], new: Span) -> Superseded:
    """Returns which of the valid times that stand (by their place) a new one supersedes, and what is left of them."""
    touched = [place for place, span in enumerate(standing) if span.meets(new)]
    return Superseded(touched, [(place, part) for place in touched for part in standing[place].without(new)])


def end_of_correction(standing: Iterable[Span], start: int) -> int:
    """Returns until when a correction from ``start`` holds where nobody says: as long as what it corrects.

    Where nothing holds at ``start``, until the next that does.
    """
    spans = list(standing)
    for span in spans:
        if span.holds(start):
            return span.end
    return min((span.start for span in spans if span.start > start), default=FOREVER)
