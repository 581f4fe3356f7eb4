"""Votes and their tally: which answer a panel gives, by how many, and how probably. Pure.

A vote is what an answer says, in a form that equal answers share, by one member. Each member weighs what its
reliability is worth against K − 1 other answers, log((K − 1) p / (1 − p)): never log(p / (1 − p)), which turns a
member that is right in four of ten, far above chance where answers are many, into one that is voted against. One rule:
a tally depends neither on the order in which votes came nor on what members are called.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

# Nobody is trusted or distrusted beyond this, however spotless the record: the next question may be of another kind.
P_MIN, P_MAX = 0.02, 0.98
# What a member of which nothing is known is taken for: right more often than not.
P_UNKNOWN = 0.6
# Among how many answers a wrong member is taken to choose, where nothing was learned about it.
ANSWERS_UNKNOWN = 10.0
# Weights that differ by less are equal: sums of the same numbers in another order are.
_EQUAL = 1e-9


class Vote(msgspec.Struct, frozen=True):
    """What one member says.

    ``key`` is equal for equal answers and empty for none (a refusal, an empty text); ``member`` names the model, or
    whatever else has a record of being right. Several votes may be one member's: samples.
    """

    key: str
    member: str = ""


class Reliability(msgspec.Struct, frozen=True):
    """How often members are right in one domain: shares in [0, 1], shrunk already where little was seen.

    ``answers`` is K: among how many answers a wrong member chooses, at least 2 (of a choice: the options).
    ``best`` names the member that decides alone where it voted, because no count of votes is estimated to be better.
    """

    right: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    unknown: float = P_UNKNOWN
    answers: float = ANSWERS_UNKNOWN
    best: str | None = None

    def weight(self, member: str) -> float:
        """Returns what a vote of this member weighs, in nats; never below zero."""
        return weight_of(self.right.get(member, self.unknown), self.answers)


# Where nothing is known all members weigh the same, and the most votes win.
NOTHING_KNOWN = Reliability()


class Camp(msgspec.Struct, frozen=True):
    """The votes for one answer: attempt numbers in order, their weight in nats, and how probably they are right."""

    key: str
    numbers: tuple[int, ...]
    weight: float
    probability: float


class Tally(msgspec.Struct, frozen=True):
    """The result of a count. ``winner`` is an attempt number: the lowest of the camp that wins.

    ``agreeing`` are the winner's camp, ``votes`` those that say something, ``asked`` all that were counted; ``camps``
    are in the order of their weight. ``probability`` is the winner's share of belief by weights alone, not calibrated:
    that is the confidence room's.
    """

    winner: int
    agreeing: int
    votes: int
    asked: int
    probability: float
    camps: tuple[Camp, ...]

    @property
    def is_majority(self) -> bool:
        """Whether at least two agreed."""
        return self.agreeing > 1


def weight_of(right: float, answers: float) -> float:
    """Returns log((K − 1) p / (1 − p)) for a clipped p; zero where that is negative, as of one who guesses."""
    p = min(max(right, P_MIN), P_MAX)
    return max(math.log((max(answers, 2.0) - 1.0) * p / (1.0 - p)), 0.0)


def weighted_tally(votes: Mapping[int, Vote], reliability: Reliability = NOTHING_KNOWN) -> Tally | None:
    """Counts votes by attempt number; none where nobody voted.

    The heaviest camp wins; between equals the larger, then that of the lowest attempt. Who says nothing is counted as
    asked and wins only where nobody says anything.
    """
    if not votes:
        return None
    camps = _camps(votes, reliability)
    speaking = [camp for camp in camps if camp.key] or camps
    first = _chosen(speaking, votes, reliability)
    ordered = (first, *(camp for camp in camps if camp is not first))
    return Tally(
        winner=first.numbers[0],
        agreeing=len(first.numbers) if first.key else 0,
        votes=sum(1 for vote in votes.values() if vote.key),
        asked=len(votes),
        probability=first.probability,
        camps=ordered,
    )


def _camps(votes: Mapping[int, Vote], reliability: Reliability) -> list[Camp]:
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for number in sorted(votes):
        numbers[votes[number].key].append(number)
    weights = {
        key: math.fsum(reliability.weight(votes[number].member) for number in of) if key else 0.0
        for key, of in numbers.items()
    }
    # Answers that nobody gave share what is left: each of them weighs nothing.
    top = max(weights.values())
    unsaid = max(reliability.answers - sum(1 for key in numbers if key), 1.0)
    total = math.fsum([unsaid * math.exp(-top), *(math.exp(weights[key] - top) for key in numbers if key)])
    camps = [
        Camp(key, tuple(of), weights[key], math.exp(weights[key] - top) / total if key else 0.0)
        for key, of in numbers.items()
    ]
    return sorted(camps, key=lambda camp: (-_rounded(camp.weight), -len(camp.numbers), camp.numbers[0]))


def _chosen(camps: Sequence[Camp], votes: Mapping[int, Vote], reliability: Reliability) -> Camp:
    if reliability.best is not None:
        for camp in camps:
            if any(votes[number].member == reliability.best for number in camp.numbers):
                return camp
    return camps[0]


def _rounded(weight: float) -> int:
    return round(weight / _EQUAL)
