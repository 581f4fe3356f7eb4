"""What happened: questions whose answers are known to be right or wrong, and how often members were right. Pure.

A member's share in a domain is shrunk towards its share everywhere, and that towards the share of all members, each as
strongly as the data say that domains, or members, are alike (empirical Bayes with a beta prior, its strength by the
method of moments). One rule: a share never rests on fewer answers than it claims.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from collegium_learning.panels.votes import P_MAX, P_MIN, P_UNKNOWN, Vote

# Between a share that is read off the data (few answers) and one that is taken for another's (many).
STRENGTH_MIN, STRENGTH_MAX = 2.0, 200.0
# Strength where too few groups are seen to tell how alike they are.
STRENGTH_UNKNOWN = 10.0
_GROUPS_MIN = 3


class Outcome(msgspec.Struct, frozen=True):
    """One question of the past: who said what, and whether it was right, in the same order."""

    domain: str
    votes: tuple[Vote, ...]
    right: tuple[bool, ...]


class Record(NamedTuple):
    """Answers given and right ones among them."""

    given: int
    right: int

    def shrunk(self, towards: float, strength: float, without: tuple[int, int] = (0, 0)) -> float:
        """Returns the posterior mean under a beta prior, clipped; ``without`` are (given, right) to be left out."""
        given, right = self.given - without[0], self.right - without[1]
        return min(max((right + strength * towards) / (given + strength), P_MIN), P_MAX)


class Shares(NamedTuple):
    """How often members were right: everywhere, and in each domain, with what each is shrunk towards."""

    everyone: float
    member_strength: float
    domain_strength: float
    members: Mapping[str, Record]
    domains: Mapping[tuple[str, str], Record]

    def of(self, member: str, domain: str, without: tuple[int, int] = (0, 0)) -> float:
        """Returns a member's share in a domain, else everywhere, else that of all members."""
        everywhere = self.members.get(member, _NONE).shrunk(self.everyone, self.member_strength, without)
        here = self.domains.get((member, domain))
        return everywhere if here is None else here.shrunk(everywhere, self.domain_strength, without)


_NONE = Record(0, 0)


def shares_of(outcomes: Iterable[Outcome]) -> Shares:
    """Counts what members were right about."""
    given: Counter[tuple[str, str]] = Counter()
    right: Counter[tuple[str, str]] = Counter()
    for outcome in outcomes:
        for vote, good in zip(outcome.votes, outcome.right, strict=True):
            given[vote.member, outcome.domain] += 1
            right[vote.member, outcome.domain] += good
    domains = {key: Record(given[key], right[key]) for key in sorted(given)}
    members: defaultdict[str, Record] = defaultdict(lambda: _NONE)
    for (member, _), record in domains.items():
        members[member] = Record(members[member].given + record.given, members[member].right + record.right)
    total, good = sum(given.values()), sum(right.values())
    everyone = (good + 2.0 * P_UNKNOWN) / (total + 2.0)
    return Shares(everyone, strength_of(list(members.values())), _within(members, domains), dict(members), domains)


def strength_of(records: Sequence[Record]) -> float:
    """Returns how many answers the groups' common share weighs against what was seen of one of them.

    The share's variance between groups beyond what chance makes: m(1 − m)/v − 1 (method of moments).
    """
    known = [record for record in records if record.given > 1]
    if len(known) < _GROUPS_MIN:
        return STRENGTH_UNKNOWN
    return _strength([(record.right / record.given, record.given) for record in known], None)


def _within(members: Mapping[str, Record], domains: Mapping[tuple[str, str], Record]) -> float:
    """Returns the strength of a member's share everywhere against its share in one domain."""
    apart = [
        (record.right / record.given - members[member].right / members[member].given, record.given)
        for (member, _), record in domains.items()
        if record.given > 1
    ]
    if len(apart) < len(members) + _GROUPS_MIN:
        return STRENGTH_UNKNOWN
    usual = sum(record.right for record in members.values()) / sum(record.given for record in members.values())
    return _strength(apart, usual)


def _strength(shares: Sequence[tuple[float, int]], usual: float | None) -> float:
    total = sum(given for _, given in shares)
    mean = sum(share * given for share, given in shares) / total
    level = mean if usual is None else usual
    spread = sum(given * (share - mean) ** 2 for share, given in shares) / total
    chance = level * (1.0 - level) * len(shares) / total
    between = spread - chance
    if between <= 0.0:
        return STRENGTH_MAX
    return min(max(level * (1.0 - level) / between - 1.0, STRENGTH_MIN), STRENGTH_MAX)
