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
from typing import Literal, NamedTuple

from collegium_contracts.code_tests import TestState
from collegium_contracts.messages import Evidence, Plan, Rank
from collegium_contracts.parts import AnswerKind, JudgeMode, Said
from collegium_contracts.plans import AT_FIRST, JUDGES, at_first
from collegium_learning.confidence import Features, confidence
from collegium_learning.confidence.cases import RANK_RIGHT, Case, stated_confidence
from collegium_learning.confidence.policy import ConfidencePolicy
from collegium_learning.panels import NOTHING_KNOWN, Reliability, Tally, Vote, aggregate, is_settled
from msgspec import structs

from collegium_consensus.judging import SHOWN, Heard, Outcome, Shown, again, outcome
from collegium_consensus.testing.deciding import confidence_of, has_passed, tested_tally, undecided

CANCELED = "canceled"
DEADLINE = "deadline_exceeded"
# More than any panel has: numbers for votes that are only supposed.
_SUPPOSED = 1_000
# No answer has it: what is supposed where nobody has said anything.
_ANYTHING = "\x00anything"
_DIGITS = 4

Why = Literal["decided", "exhausted", "deadline", "canceled"]
Reason = Literal["confidence", "disagreement", "failure", "judging", "tests"]


class Seen(NamedTuple):
    """One ended attempt: its number, who answered, what it says, when it ended (Unix ms), how it failed, and its rank.

    ``key`` is equal for equal answers, empty where it says nothing, and none where there is no answer to read.
    ``logprob`` is the mean of its tokens, none where it is not known. ``tested`` (none: not tested) is what tests of
    the task said of it, and ``passed`` how many it passed.
    """

    number: int
    member: str
    key: str | None
    at_ms: int
    error_code: str = ""
    rank: Rank = "student"
    logprob: float | None = None
    tested: TestState | None = None
    passed: int = 0


class Terms(NamedTuple):
    """What a plan goes by: its kind, how many attempts it may make, its deadline (Unix ms) and its domain.

    ``threshold`` is how confident a cascade has to be, ``choices`` among how many labels an answer of its ``kind``
    chooses (0: not stated), ``learned`` what is known of confidence and ``policy`` by which version, ``judge`` how a
    panel that stays undecided is judged, ``tests`` how many tests answers are to pass.
    """

    plan: Plan
    of: int
    deadline_ms: int
    domain: str = ""
    threshold: float = 0.0
    kind: AnswerKind = "text"
    choices: int = 0
    learned: ConfidencePolicy | None = None
    policy: str = ""
    judge: JudgeMode | None = None
    tests: int = 0


class Judgement(NamedTuple):
    """What the answers so far come to: the winner's attempt number, how many agree with it (itself included), how many
    say something, how probably it is right, and what that rests on."""

    winner: int
    agreeing: int
    votes: int
    confidence: float
    evidence: Evidence | None = None


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
    asked = at_first(terms.of, terms.tests)
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


def resume(ended: Sequence[Seen], terms: Terms) -> Move:
    """Returns the next move of a plan that was thought to be settled before its last end, and is not."""
    return _move(ended, max(at_first(terms.of, terms.tests), *(one.number for one in ended)), terms)


def close(ended: Sequence[Seen], terms: Terms) -> Settle:
    """Returns what a plan comes to whose time is over, whoever is still out."""
    return _over(ended, terms, judge(ended, terms))


def judge(ended: Sequence[Seen], terms: Terms) -> Judgement | None:
    """Returns what the answers come to, none where there is none; the order in which they came does not matter."""
    ended, judges = [one for one in ended if one.number <= terms.of], [one for one in ended if one.number > terms.of]
    tally = _tally(ended, terms)
    if tally is None:
        return None
    evidence, winner, agreeing = _evidence(ended, tally, terms), tally.winner, tally.agreeing
    if judges and terms.judge is not None:
        came = judged(terms.judge, shown(ended, tally, terms), judges, terms)
        winner = came.number or winner
        camp, agreeing = _camp(tally, winner)
        evidence = structs.replace(evidence, camp=camp, judge=came.share if came.number else None, judged=came.judged)
    if terms.learned is None:
        features = Features(
            domain=terms.domain,
            agreeing=agreeing,
            votes=tally.votes,
            asked=len(ended),
            probability=tally.probability,
            logprob=next((one.logprob for one in ended if one.number == winner), None),
            judge=evidence.judge,
        )
        sure = confidence(features)
    else:
        sure = stated_confidence(terms.learned, Case(terms.domain, terms.plan, evidence))
    won = next((one for one in ended if one.number == winner), None)
    if won is not None and won.tested is not None:
        sure = confidence_of(won.tested, terms.tests, sure)
        evidence = _given(evidence, ended, winner, is_stated=won.tested != "not_run")
    return Judgement(winner, agreeing, tally.votes, round(sure, _DIGITS), evidence)


def _given(evidence: Evidence, ended: Sequence[Seen], winner: int, *, is_stated: bool) -> Evidence:
    """Marks the answer that is handed out; what tests say of it is no calibration's word."""
    numbers = [one.number for one in sorted(ended)]
    said = [structs.replace(one, is_given=number == winner) for number, one in zip(numbers, evidence.said, strict=True)]
    return structs.replace(evidence, said=said, policy="" if is_stated else evidence.policy)


def _camp(tally: Tally, number: int) -> tuple[int, int]:
    """Returns the place of the camp of an attempt, and how many agree in it."""
    place, camp = next((place, camp) for place, camp in enumerate(tally.camps, 1) if number in camp.numbers)
    return place, len(camp.numbers)


def _evidence(ended: Sequence[Seen], tally: Tally, terms: Terms) -> Evidence:
    """Returns who agreed with whom, in the order of attempts: camps are numbered as the tally has them."""
    camps = {number: place for place, camp in enumerate(tally.camps, 1) if camp.key for number in camp.numbers}
    return Evidence(
        answer_type=terms.kind,
        camp=camps.get(tally.winner, 0),
        said=[
            Said(
                model=one.member,
                rank=one.rank,
                camp=camps.get(one.number, 0),
                logprob=one.logprob,
                tested=one.tested,
                passed=one.passed,
            )
            for one in sorted(ended)
        ],
        probability=round(tally.probability, _DIGITS),
        policy=terms.policy,
        choices=terms.choices,
        tests=terms.tests,
    )


def _move(ended: Sequence[Seen], asked: int, terms: Terms) -> Move:
    out = asked - len(ended)
    if any(one.error_code == CANCELED for one in ended):
        # What runs is being ended; what it had used by then is to be in the books of the same message.
        return Wait() if out else Settle("canceled", judge(ended, terms))
    if has_passed(ended):
        return Settle("decided", judge(ended, terms))
    return _cascade(ended, out, asked, terms) if terms.plan == "cascade" else _panel(ended, out, asked, terms)


def _panel(ended: Sequence[Seen], out: int, asked: int, terms: Terms) -> Move:
    if asked > terms.of:
        return _judges(ended, out, asked, terms)
    votes, left = undecided(_votes(ended), ended), terms.of - asked
    unheard = out + left
    weighing = _weighing(ended, terms)
    if unheard and is_settled(votes, [""] * unheard, weighing):
        return Settle("decided", judge(ended, terms))
    if _is_late(ended, terms):
        return Wait() if out else _over(ended, terms, judge(ended, terms))
    if not unheard:
        judgement = judge(ended, terms)
        if terms.judge is not None and is_undecided(ended, terms):
            return Ask(tuple(range(asked + 1, asked + 1 + JUDGES)), "judging", judgement)
        return Settle("decided", judgement)
    # The next answer may pass all tests, and then no other one is needed.
    more = min((1 if terms.tests else _needed(votes, unheard, weighing)) - out, left)
    if more <= 0:
        return Wait()
    reason: Reason = "disagreement" if all(one.key for one in ended) else "failure"
    reason = "tests" if terms.tests and reason == "disagreement" else reason
    return Ask(tuple(range(asked + 1, asked + 1 + more)), reason, judge(ended, terms))


def _judges(ended: Sequence[Seen], out: int, asked: int, terms: Terms) -> Move:
    """All members were heard, and judges are: each in one order, then those who can be understood in the other."""
    if out:
        return Wait()
    judgement = judge(ended, terms)
    if asked > terms.of + JUDGES or terms.judge is None or _is_late(ended, terms):
        return Settle("decided", judgement)
    first = [heard_of(one) for one in sorted(ended) if one.number > terms.of]
    more = again(terms.judge, judged_answers(ended, terms), first)
    if not more:
        return Settle("decided", judgement)
    return Ask(tuple(range(asked + 1, asked + 1 + len(more))), "judging", judgement)


def is_undecided(ended: Sequence[Seen], terms: Terms) -> bool:
    """Whether members say different things and no two the same."""
    tally = _tally([one for one in ended if one.number <= terms.of], terms)
    return tally is not None and tally.agreeing < AT_FIRST and sum(1 for camp in tally.camps if camp.key) > 1


def shown(members: Sequence[Seen], tally: Tally, terms: Terms) -> list[Shown]:
    """Returns the answers that judges are shown: the best of the camps that lead."""
    keys = {one.number: one.key or "" for one in members}
    camps = [(place, camp.numbers[0]) for place, camp in enumerate(tally.camps, 1) if camp.key]
    count = SHOWN[terms.judge] if terms.judge is not None else 0
    return [Shown(number, place, len(keys[number])) for place, number in camps[:count]]


def judged_answers(ended: Sequence[Seen], terms: Terms) -> list[Shown]:
    """Returns the answers that judges of a plan are shown, in the first order."""
    members = [one for one in ended if one.number <= terms.of]
    tally = _tally(members, terms)
    return shown(members, tally, terms) if tally is not None else []


def judge_of(number: int, ended: Sequence[Seen], terms: Terms) -> str:
    """Returns the model that an attempt to judge in the other order is for; empty for one in the first order."""
    if number <= terms.of + JUDGES or terms.judge is None:
        return ""
    first = [heard_of(one) for one in sorted(ended) if terms.of < one.number <= terms.of + JUDGES]
    places = again(terms.judge, judged_answers(ended, terms), first)
    return first[places[number - terms.of - JUDGES - 1]].model


def judged(mode: JudgeMode, answers: Sequence[Shown], judges: Sequence[Seen], terms: Terms) -> Outcome:
    """Returns what the judges of a panel came to so far."""
    first = [heard_of(one) for one in sorted(judges) if one.number <= terms.of + JUDGES]
    second = {one.number: heard_of(one) for one in judges if one.number > terms.of + JUDGES}
    others: list[Heard | None] = [None] * len(first)
    for count, place in enumerate(again(mode, answers, first), 1):
        others[place] = second.get(terms.of + JUDGES + count)
    return outcome(mode, answers, first, others, terms.learned.judges if terms.learned is not None else {})


def heard_of(one: Seen) -> Heard:
    """Returns what a judge said."""
    return Heard(one.member, one.rank, one.key)


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
    reason: Reason = "tests" if terms.tests else "confidence"
    return Ask((asked + 1,), "failure" if judgement is None else reason, judgement)


def _over(ended: Sequence[Seen], terms: Terms, judgement: Judgement | None) -> Settle:
    is_majority = terms.plan == "panel" and judgement is not None and judgement.agreeing > 1
    return Settle("decided" if is_majority else "deadline", judgement)


def _is_late(ended: Sequence[Seen], terms: Terms) -> bool:
    return any(one.error_code == DEADLINE or one.at_ms >= terms.deadline_ms for one in ended)


def _needed(votes: dict[int, Vote], unheard: int, weighing: Reliability) -> int:
    """Returns how few more votes could settle a panel: as many as do where all of them go to the leader."""
    tally = aggregate(votes, weighing)
    leader = (tally.camps[0].key if tally is not None else "") or _ANYTHING
    for count in range(1, unheard):
        supposed = {_SUPPOSED + number: Vote(leader) for number in range(count)}
        if is_settled({**votes, **supposed}, [""] * (unheard - count), weighing):
            return count
    return unheard


def _votes(ended: Sequence[Seen]) -> dict[int, Vote]:
    return {one.number: Vote(one.key, one.member) for one in ended if one.key is not None}


def _tally(ended: Sequence[Seen], terms: Terms) -> Tally | None:
    weighing = _trusted(ended, terms) if terms.plan == "cascade" else _weighing(ended, terms)
    votes = _votes(ended)
    return tested_tally(votes, ended, weighing) if terms.tests else aggregate(votes, weighing)


def _weighing(ended: Sequence[Seen], terms: Terms) -> Reliability:
    if terms.learned is None:
        return NOTHING_KNOWN
    return terms.learned.reliability((one.member for one in ended), terms.domain, terms.kind, terms.choices)


def _trusted(ended: Sequence[Seen], terms: Terms) -> Reliability:
    """Above a cascade's first step the highest rank that says something decides; the others can only bear it out."""
    above = [one for one in ended if one.number > AT_FIRST and one.key]
    best = max(above, key=lambda one: one.number).member if above else None
    learned = _weighing(ended, terms)
    stated = {one.member: RANK_RIGHT[one.rank] for one in ended}
    return Reliability(right=stated | learned.right, answers=learned.answers, best=best)
