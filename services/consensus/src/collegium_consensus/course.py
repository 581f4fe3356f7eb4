"""The course of a cascade or a panel: from its attempts, in the order in which they ended, to what is next. Pure.

    begun ──an attempt ended──┬─► Wait     others are out, and what they say may matter
                              ├─► Ask      not enough is known, and there are attempts left
                              └─► Settle   decided, nobody left to ask, canceled, or out of time
    settled ──an attempt ended──► Late     whatever it says

A panel is decided where no member that was not heard could change it, or two agree and nobody else leads; it asks for
as many more as could decide it if they agreed, so that no call is made that a better moment would have saved. A cascade
hears a step out, is decided where it is confident enough, and climbs one step where it is not.

The order is that of the stream, and folding it from the beginning gives the same move to whoever folds it, so nothing
about a running plan is kept anywhere else. One rule: each end of an attempt has exactly one move of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from collegium_contracts.messages import Plan, Rank
from collegium_contracts.plans import AT_FIRST, at_first

from collegium_consensus.aggregation import NOTHING_KNOWN, Reliability, Tally, Vote, aggregate, is_settled
from collegium_consensus.confidence import Features, confidence

CANCELED = "canceled"
DEADLINE = "deadline_exceeded"
# More than any panel has: numbers for votes that are only supposed.
_SUPPOSED = 1_000
# No answer has it: what is supposed where nobody has said anything.
_ANYTHING = "\x00anything"
_DIGITS = 4
# How often a model of a rank is taken to be right until its own record says more: stated, not measured.
RANK_RIGHT: Final[dict[Rank, float]] = {"student": 0.6, "ta": 0.75, "teacher": 0.9}

Why = Literal["decided", "exhausted", "deadline", "canceled"]
Reason = Literal["confidence", "disagreement", "failure"]


class Seen(NamedTuple):
    """One ended attempt: its number, who answered, what it says, when it ended (Unix ms), how it failed, and its rank.

    ``key`` is equal for equal answers, empty where it says nothing, and none where there is no answer to read.
    """

    number: int
    member: str
    key: str | None
    at_ms: int
    error_code: str = ""
    rank: Rank = "student"


class Terms(NamedTuple):
    """What a plan goes by: its kind, how many attempts it may make, its deadline (Unix ms), its domain, and (of a
    cascade) how confident it has to be."""

    plan: Plan
    of: int
    deadline_ms: int
    domain: str = ""
    threshold: float = 0.0


class Judgement(NamedTuple):
    """What the answers so far come to: the winner's attempt number, how many agree with it (itself included), how many
    say something, and how probably it is right."""

    winner: int
    agreeing: int
    votes: int
    confidence: float


class Wait(NamedTuple):
    """Other attempts are out."""


class Late(NamedTuple):
    """The plan was settled before."""


class Ask(NamedTuple):
    """More attempts, by number."""

    numbers: tuple[int, ...]
    reason: Reason
    judgement: Judgement | None


class Settle(NamedTuple):
    """The plan is over; without a judgement nobody answered."""

    why: Why
    judgement: Judgement | None


Move = Wait | Late | Ask | Settle


def follow(ended: Sequence[Seen], terms: Terms) -> Move:
    """Returns the move of the last of these ends, given all before it; they are in the order of the stream."""
    asked = at_first(terms.of)
    move: Move = Wait()
    for count in range(1, len(ended) + 1):
        if isinstance(move, Settle):
            return Late()
        # Whoever dispatched a plan may have made more attempts than were asked for here.
        asked = max(asked, ended[count - 1].number)
        move = _move(ended[:count], asked, terms)
        if isinstance(move, Ask):
            asked += len(move.numbers)
    return move


def close(ended: Sequence[Seen], terms: Terms) -> Settle:
    """Returns what a plan comes to whose time is over, whoever is still out."""
    return _over(ended, terms, judge(ended, terms))


def judge(ended: Sequence[Seen], terms: Terms) -> Judgement | None:
    """Returns what the answers come to, none where there is none; the order in which they came does not matter."""
    tally = _tally(ended, terms)
    if tally is None:
        return None
    features = Features(
        domain=terms.domain,
        agreeing=tally.agreeing,
        votes=tally.votes,
        asked=len(ended),
        probability=tally.probability,
    )
    return Judgement(tally.winner, tally.agreeing, tally.votes, round(confidence(features), _DIGITS))


def _move(ended: Sequence[Seen], asked: int, terms: Terms) -> Move:
    out = asked - len(ended)
    if any(one.error_code == CANCELED for one in ended):
        # What runs is being ended; what it had used by then is to be in the books of the same message.
        return Wait() if out else Settle("canceled", judge(ended, terms))
    return _cascade(ended, out, asked, terms) if terms.plan == "cascade" else _panel(ended, out, asked, terms)


def _panel(ended: Sequence[Seen], out: int, asked: int, terms: Terms) -> Move:
    votes, left = _votes(ended), terms.of - asked
    unheard = out + left
    if unheard and is_settled(votes, [""] * unheard):
        return Settle("decided", judge(ended, terms))
    if _is_late(ended, terms):
        return Wait() if out else _over(ended, terms, judge(ended, terms))
    if not unheard:
        return Settle("decided", judge(ended, terms))
    more = min(_needed(votes, unheard) - out, left)
    if more <= 0:
        return Wait()
    reason: Reason = "disagreement" if all(one.key for one in ended) else "failure"
    return Ask(tuple(range(asked + 1, asked + 1 + more)), reason, judge(ended, terms))


def _cascade(ended: Sequence[Seen], out: int, asked: int, terms: Terms) -> Move:
    if out:
        return Wait()
    judgement = judge(ended, terms)
    if judgement is not None and judgement.agreeing and judgement.confidence >= terms.threshold:
        return Settle("decided", judgement)
    if _is_late(ended, terms):
        return Settle("deadline", judgement)
    if asked >= terms.of:
        return Settle("exhausted", judgement)
    return Ask((asked + 1,), "failure" if judgement is None else "confidence", judgement)


def _over(ended: Sequence[Seen], terms: Terms, judgement: Judgement | None) -> Settle:
    is_majority = terms.plan == "panel" and judgement is not None and judgement.agreeing > 1
    return Settle("decided" if is_majority else "deadline", judgement)


def _is_late(ended: Sequence[Seen], terms: Terms) -> bool:
    return any(one.error_code == DEADLINE or one.at_ms >= terms.deadline_ms for one in ended)


def _needed(votes: dict[int, Vote], unheard: int) -> int:
    """Returns how few more votes could settle a panel: as many as do where all of them go to the leader."""
    tally = aggregate(votes)
    leader = (tally.camps[0].key if tally is not None else "") or _ANYTHING
    for count in range(1, unheard):
        supposed = {_SUPPOSED + number: Vote(leader) for number in range(count)}
        if is_settled({**votes, **supposed}, [""] * (unheard - count)):
            return count
    return unheard


def _votes(ended: Sequence[Seen]) -> dict[int, Vote]:
    return {one.number: Vote(one.key, one.member) for one in ended if one.key is not None}


def _tally(ended: Sequence[Seen], terms: Terms) -> Tally | None:
    return aggregate(_votes(ended), _trusted(ended) if terms.plan == "cascade" else NOTHING_KNOWN)


def _trusted(ended: Sequence[Seen]) -> Reliability:
    """Above a cascade's first step the highest rank that says something decides; the others can only bear it out."""
    above = [one for one in ended if one.number > AT_FIRST and one.key]
    best = max(above, key=lambda one: one.number).member if above else None
    return Reliability(right={one.member: RANK_RIGHT[one.rank] for one in ended}, best=best)
