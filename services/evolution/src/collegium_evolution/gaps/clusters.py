"""What is known of discovered domains, and of crowds within the domains that tenants name. Pure.

Windows count by the domain that a task was given; here questions are counted by what they are, also those that were
asked before their domain was discovered. Domains are found in what is asked and not in what came of it, so that a
crowd is not chosen for its bad answers. One rule: what is counted here is not counted by windows too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from collegium_contracts.domains import is_topic

from collegium_evolution.gaps.finding import Known, Signal


class Question(NamedTuple):
    """A question that was looked at: the domain its task was given, what it cost, its score (none: not judged), and how
    sure its verdict was (none: not told)."""

    domain: str
    cost_picos: int
    score: float | None
    confidence: float | None = None


class _Sums:
    """What is counted of one place."""

    def __init__(self) -> None:
        self.settled = self.cost_picos = self.judged = self.told = 0
        self.score = self.sure = 0.0

    def add(self, question: Question) -> None:
        self.settled += 1
        self.cost_picos += question.cost_picos
        if question.score is not None:
            self.judged += 1
            self.score += question.score
        # What became of an answer says more than how sure its verdict was.
        known = question.confidence if question.score is None else question.score
        if known is not None:
            self.told += 1
            self.sure += known

    def signals(self) -> tuple[tuple[Signal, int, float], ...]:
        return ("feedback", self.judged, self.score), ("confidence", self.told, self.sure)


def known_of(tenant: str, questions: Sequence[Question], topics: Sequence[str]) -> list[Known]:
    """Returns what is known of each discovered domain of a tenant, and of each part of a named one.

    ``topics`` says of which discovered domain each question is, empty: of none. Where too few were judged, verdicts'
    confidence speaks for those that were not.
    """
    sums: dict[tuple[str, str], _Sums] = {}
    for question, topic in zip(questions, topics, strict=True):
        named = "" if is_topic(question.domain) else question.domain
        place = (named, topic) if named else (topic or question.domain, "")
        if not any(place) or (named and not topic):
            continue
        sums.setdefault(place, _Sums()).add(question)
    return [
        Known(tenant, domain, counted.settled, counted.cost_picos, counted.signals(), cluster)
        for (domain, cluster), counted in sorted(sums.items())
    ]


def by_windows(known: Iterable[Known], tenants: Iterable[str]) -> list[Known]:
    """Returns what windows know, without the discovered domains of tenants whose questions were counted."""
    counted = set(tenants)
    return [one for one in known if not (one.tenant in counted and is_topic(one.domain))]
