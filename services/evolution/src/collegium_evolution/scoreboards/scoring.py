"""What events add to the scores of models. Pure.

One rule: every upstream call counts once, by exactly one of the messages that tell of it:

    AttemptDiscarded                        its call
    AttemptAnswered, AttemptFailed          its call (a member of a plan of several)
    TaskCompleted, -Failed, -Canceled       its only call, where the plan was of one attempt; otherwise none, because
                                            each of its calls was told of when it ended

A call that the client ended is no success and no failure of the model: it adds its cost alone. An attempt that ended
before its call was made (canceled or expired in the queue) adds nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from collegium_contracts.messages import (
    AttemptAnswered,
    AttemptDiscarded,
    AttemptFailed,
    AttemptUsage,
    JourneyMessage,
    SettledMessage,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
)

from collegium_evolution.scoreboards.histogram import bucket_of

# A client may write anything as its domain.
DOMAIN_CHARS_MAX = 64
_BY_THE_CLIENT = "canceled"
_DECLINED = "content_filter"


class ScoreKey(NamedTuple):
    """What is scored: a model in a domain, at the rank it had."""

    model: str
    domain: str
    rank: str


class Call(NamedTuple):
    """One upstream call as it is scored; ``refused``: the model answered that it would not."""

    key: ScoreKey
    is_judged: bool
    succeeded: bool
    duration_ms: int
    cost_picos: int
    at_ms: int
    refused: bool = False


class Sum:
    """What several calls add to one score; ``durations`` counts judged calls by histogram bucket."""

    __slots__ = ("calls", "cost_picos", "duration_ms_total", "durations", "last_at_ms", "succeeded")

    def __init__(self) -> None:
        self.calls = 0
        self.succeeded = 0
        self.duration_ms_total = 0
        self.cost_picos = 0
        self.last_at_ms = 0
        self.durations: Counter[int] = Counter()

    def add(self, call: Call) -> None:
        """Adds one call."""
        self.cost_picos += call.cost_picos
        self.last_at_ms = max(self.last_at_ms, call.at_ms)
        if call.is_judged:
            self.calls += 1
            self.succeeded += call.succeeded
            self.duration_ms_total += call.duration_ms
            self.durations[bucket_of(call.duration_ms)] += 1


def calls_of(message: JourneyMessage) -> list[Call]:
    """Returns the calls that count by this message."""
    match message:
        case AttemptAnswered() | AttemptFailed():
            told, domain, at_ms = [*message.earlier, message.call], message.task.domain, message.at_ms
        case AttemptDiscarded():
            told, domain, at_ms = [message.call], message.task.domain, message.at_ms
        case TaskCompleted() | TaskFailed() | TaskCanceled() if is_single(message):
            told, domain, at_ms = message.attempts, message.task.domain, message.settled_at_ms
            declined = message.stop_reason == _DECLINED
            return [
                _scored(call, domain, at_ms, refused=declined and call.succeeded) for call in told if _was_made(call)
            ]
        case _:
            return []
    return [_scored(call, domain, at_ms) for call in told if _was_made(call)]


def add_up(calls: Iterable[Call]) -> dict[ScoreKey, Sum]:
    """Returns the sums by key; they do not depend on the order of calls."""
    sums: dict[ScoreKey, Sum] = {}
    for call in calls:
        sums.setdefault(call.key, Sum()).add(call)
    return sums


def is_single(settled: SettledMessage) -> bool:
    """Whether a settled message tells of calls that no end of an attempt told of: those of a plan of one.

    A cascade has several, and who judged a panel is confident of something (as a head is, alone); without an answer,
    its members' numbers tell. What people may be asked about, and what is tested, ends attempt by attempt, however few.
    """
    task = settled.task
    if settled.plan == "cascade" or task.people is not None or task.probe is not None or task.tests:
        return False
    if settled.plan != "single" and settled.confidence is not None:
        return False
    return all(call.number == 1 for call in settled.attempts)


def _was_made(call: AttemptUsage) -> bool:
    return call.succeeded or call.duration_ms > 0 or call.usage.cost_usd_picos > 0


def plain_domain(domain: str) -> str:
    """Returns a client's domain as it is stored: PostgreSQL's text holds no NUL."""
    return domain.replace("\x00", "")[:DOMAIN_CHARS_MAX]


def _scored(call: AttemptUsage, domain: str, at_ms: int, *, refused: bool = False) -> Call:
    return Call(
        key=ScoreKey(call.model, plain_domain(domain), call.rank),
        is_judged=call.error_code != _BY_THE_CLIENT,
        succeeded=call.succeeded,
        duration_ms=max(0, call.duration_ms),
        cost_picos=call.usage.cost_usd_picos,
        at_ms=at_ms,
        refused=refused,
    )
