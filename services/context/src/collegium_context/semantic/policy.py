"""Whether an entry answers a question: served, explored (asked anew and compared), or simply asked. Pure.

The learned risk of a candidate is raised by what its own entry got wrong before, and by what went wrong lately in its
scope; it is served only below the limit that keeps the promised rate with an upper bound. One rule: evidence makes a
cache more careful at once, and bolder only as far as it was calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from collegium_context.semantic.features import Compared, Neighbour, among
from collegium_context.semantic.risk import Logistic, Mark, clean_threshold, threshold

Decision = Literal["serve", "explore", "call"]

# How many comparisons of its own an entry, or a scope, needs to weigh as much as what was learned of all.
ENTRY_STRENGTH = 3.0
# How many errors a scope must make before what was calibrated is doubted: as if so many were expected.
SCOPE_STRENGTH = 6.0
SCOPE_OWN_STRENGTH = 30.0
# What was seen a while ago counts less.
SCOPE_DECAY = 0.998
# Candidates of a crowd up to so many times the limit say something about those below it. Of lone ones only those below
# do: that two questions that differ in a word have two answers says nothing about a rewording.
NEAR = 2.0
# With fewer neighbours than this there is no crowd to go by.
CROWD = 8
# An entry whose nearest rival is farther from the question by so much stands alone.
UNCONTESTED = 0.2
# The share of candidates that are explored although they would be served.
EXPLORED = 0.02


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned of the two risks, with which embedder, and on what; and how it fared on data not fitted on.

    The marks of ``among`` and ``lone`` count answers of a stream, in a crowd and without one, and those wrong; those of
    ``alone`` count different questions (adversarial ones), and those that would have been answered: a bound on them
    holds however often questions repeat, and says nothing of how often they do.
    """

    embedder: str
    fitted_on: str
    alone: Logistic
    alone_marks: list[Mark]
    among: Logistic
    among_marks: list[Mark]
    lone_marks: list[Mark] = []


class Limits(msgspec.Struct, frozen=True):
    """The highest risks at which answers are served."""

    alone: float
    """Of one question beside another, with nothing known of how often what is asked."""
    among: float
    """Of an entry in a crowd."""
    lone: float = 0.0
    """Of an entry that no other agrees with, while another answer is nearly as near."""
    sure: float = 0.0
    """Below it, the words of an entry are enough where neither a crowd nor what was measured knows."""

    @classmethod
    def of(cls, calibration: Calibration, wrong_max: float) -> Limits:
        """Returns the limits that keep a rate of wrong answers."""
        if wrong_max <= 0:
            return cls(0.0, 0.0)
        alone = clean_threshold(calibration.alone_marks, wrong_max)
        if not alone:
            # Too few traps to be sure of so small a rate: well below all of them, then.
            alone = max((mark.risk for mark in calibration.alone_marks if mark.wrong == 0), default=0.0) / 2
        sure = min(alone, wrong_max / 2)
        lone = min(alone, max(sure, threshold(calibration.lone_marks, wrong_max)))
        return cls(alone, threshold(calibration.among_marks, wrong_max), lone, sure)


class Evidence(msgspec.Struct, frozen=True):
    """What was seen of an entry, or a scope: comparisons, how many of them were wrong, how many wrong were expected."""

    compared: float = 0.0
    wrong: float = 0.0
    expected: float = 0.0

    def seen(self, risk: float, *, is_wrong: bool, decay: float = 1.0) -> Evidence:
        """Adds one comparison of a candidate of this risk."""
        return Evidence(self.compared * decay + 1, self.wrong * decay + is_wrong, self.expected * decay + risk)

    def own(self, risk: float, strength: float) -> float:
        """Returns the risk with this evidence of its own: at least ``risk``, more where it was wrong unexpectedly."""
        excess = max(0.0, self.wrong - self.expected)
        return max(risk, (strength * risk + excess) / (strength + self.compared))

    def factor(self, strength: float) -> float:
        """Returns how many times more often than expected it is wrong; at least 1."""
        return max(1.0, (strength + self.wrong) / (strength + self.expected))


class Candidate(msgspec.Struct, frozen=True):
    """An entry that may answer: the risk as learned (``risk``), as it stands with the evidence, and its limit."""

    risk: float
    adjusted: float
    limit: float
    is_crowd: bool = False

    @property
    def fits(self) -> bool:
        """Whether it may be served."""
        return self.adjusted <= self.limit

    @property
    def is_near(self) -> bool:
        """Whether how it turns out says something about those that are served."""
        return self.risk <= self.limit * (NEAR if self.is_crowd else 1.0)


def weigh(
    calibration: Calibration,
    limits: Limits,
    compared: Compared,
    neighbours: Sequence[Neighbour],
    entry: Evidence,
    scope: Evidence,
) -> Candidate | None:
    """Returns a candidate as it stands; none where a veto speaks against it.

    ``neighbours`` are all entries near, nearest first, the candidate's own answer being the first's (none where a
    question is compared with one other, and nothing else stands). A crowd that agrees is gone by; where there is none,
    or it does not know, the words of the entry alone may do: by a limit that is stricter where a rival is near.
    """
    if compared.vetoes:
        return None
    risk = calibration.alone.risk(compared.row)
    is_contested = _is_contested(neighbours)
    alone = Candidate(risk, _adjusted(risk, entry, scope), limits.lone if is_contested else limits.alone)
    if not is_crowd(neighbours):
        return alone
    risk = calibration.among.risk(among(compared.row, neighbours))
    crowd = Candidate(risk, _adjusted(risk, entry, scope), limits.among, is_crowd=True)
    words_do = alone.adjusted <= (limits.sure if is_contested else limits.alone)
    return alone if words_do and not crowd.fits else crowd


def _adjusted(risk: float, entry: Evidence, scope: Evidence) -> float:
    doubted = max(entry.own(risk, ENTRY_STRENGTH), scope.own(risk, SCOPE_OWN_STRENGTH))
    return min(1.0, doubted * scope.factor(SCOPE_STRENGTH))


def _is_contested(neighbours: Sequence[Neighbour]) -> bool:
    first = neighbours[0] if neighbours else None
    return first is not None and any(
        one.group != first.group and first.cosine - one.cosine < UNCONTESTED for one in neighbours
    )


def is_crowd(neighbours: Sequence[Neighbour]) -> bool:
    """Whether there are neighbours to go by: enough of them, and another with the answer of the nearest."""
    return len(neighbours) >= CROWD and any(one.group == neighbours[0].group for one in neighbours[1:])


def decide(candidate: Candidate | None, chance: float, explored: float = EXPLORED) -> Decision:
    """Decides by a number from 0 to 1 that was drawn for the question."""
    if candidate is None or not candidate.fits:
        return "call"
    return "explore" if chance < explored else "serve"
