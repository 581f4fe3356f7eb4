"""Sums by hour and tenant: what calls, words and settled tasks add to them. Pure.

One rule: a word is taken out of the hour it was put into, so that a replaced word leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from collegium_contracts.messages import JourneyMessage, TaskCanceled, TaskCompleted, TaskFailed
from collegium_contracts.money import Usage

from collegium_evolution.scoreboards.judging import Outcome, OutcomeKey
from collegium_evolution.scoreboards.scoring import Call, ScoreKey, plain_domain

HOUR_NS: Final = 3_600 * 10**9
HOUR_MS: Final = 3_600_000
# One call that claims more would bend a whole hour: a day of milliseconds, a million dollars.
DURATION_MS_MAX: Final = 86_400_000
COST_PICOS_MAX: Final = 10**18


class WindowKey(NamedTuple):
    """One model of one tenant in one domain at one rank, in one hour since 1970."""

    tenant: str
    model: str
    domain: str
    rank: str
    hour: int


class WindowSum(NamedTuple):
    """What is added to a window; words may be taken out."""

    calls: int = 0
    succeeded: int = 0
    refused: int = 0
    duration_ms_total: int = 0
    cost_picos: int = 0
    judged: int = 0
    score_sum: float = 0.0
    square_sum: float = 0.0

    def plus(self, other: WindowSum) -> WindowSum:
        """Adds another sum."""
        return WindowSum(
            self.calls + other.calls,
            self.succeeded + other.succeeded,
            self.refused + other.refused,
            self.duration_ms_total + other.duration_ms_total,
            self.cost_picos + other.cost_picos,
            self.judged + other.judged,
            self.score_sum + other.score_sum,
            self.square_sum + other.square_sum,
        )


class DomainKey(NamedTuple):
    """One tenant's tasks in one domain, in one hour since 1970."""

    tenant: str
    domain: str
    hour: int


class DomainSum(NamedTuple):
    """What settled: tasks, their cost, and how sure the platform was of those whose answers were compared."""

    settled: int = 0
    cost_picos: int = 0
    confident: int = 0
    confidence_sum: float = 0.0
    square_sum: float = 0.0

    def plus(self, other: DomainSum) -> DomainSum:
        """Adds another sum."""
        return DomainSum(
            self.settled + other.settled,
            self.cost_picos + other.cost_picos,
            self.confident + other.confident,
            self.confidence_sum + other.confidence_sum,
            self.square_sum + other.square_sum,
        )


def hour_of(stored_ns: int) -> int:
    """Returns the hour since 1970 in which something was stored."""
    return stored_ns // HOUR_NS


def of_calls(into: dict[WindowKey, WindowSum], tenant: str, calls: Iterable[Call], hour: int) -> None:
    """Adds calls to the windows of an hour."""
    for call in calls:
        key = WindowKey(tenant, call.key.model, call.key.domain, call.key.rank, hour)
        told = WindowSum(cost_picos=min(call.cost_picos, COST_PICOS_MAX))
        if call.is_judged:
            told = told._replace(
                calls=1,
                succeeded=int(call.succeeded),
                refused=int(call.refused),
                duration_ms_total=min(call.duration_ms, DURATION_MS_MAX),
            )
        into[key] = into.get(key, WindowSum()).plus(told)


def of_words(
    into: dict[WindowKey, WindowSum], standing: Mapping[OutcomeKey, Outcome], newer: Mapping[OutcomeKey, Outcome]
) -> None:
    """Adds words to the hours in which they were told, and takes those that they replace out of theirs."""
    for who, outcome in newer.items():
        before = standing.get(who)
        if before is not None:
            _word(into, who.tenant, before, -1)
        _word(into, who.tenant, outcome, 1)


def _word(into: dict[WindowKey, WindowSum], tenant: str, outcome: Outcome, times: int) -> None:
    scored: ScoreKey = outcome.key
    key = WindowKey(tenant, scored.model, scored.domain, scored.rank, hour_of(outcome.stored_ns))
    score = outcome.score
    told = WindowSum(judged=times, score_sum=times * score, square_sum=times * score * score)
    into[key] = into.get(key, WindowSum()).plus(told)


def settled_in(message: JourneyMessage) -> tuple[str, DomainSum] | None:
    """Returns what a message settles, with its domain; none where it settles nothing that anybody asked for."""
    if not isinstance(message, TaskCompleted | TaskFailed | TaskCanceled):
        return None
    if message.task.kind != "chat" or message.task.probe is not None:
        return None
    usage: Usage = message.usage
    told = DomainSum(settled=1, cost_picos=min(max(0, usage.cost_usd_picos), COST_PICOS_MAX))
    sure = message.confidence
    if sure is not None:
        told = told._replace(confident=1, confidence_sum=sure, square_sum=sure * sure)
    return plain_domain(message.task.domain), told
