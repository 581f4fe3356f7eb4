"""What tests make of a tally: which answers may win, and how sure that is. Pure.

An answer that passes all tests wins before every other one; one that could not be run, of which nothing is known,
before one that failed; of those that failed the ones that passed most. Within these the votes decide, as without tests.
One rule: tests say which answers are in question, and never that an answer was not given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from collegium_contracts.code_tests import TestState
from collegium_learning.panels import Reliability, Tally, Vote, aggregate
from msgspec import structs

# What an answer is worth that failed a test, whoever gave it: the test may be wrong.
FAILED_CONFIDENCE: Final = 0.05
_PASSED, _NOT_RUN, _FAILED = 2, 1, 0


class Tested(Protocol):
    """An ended attempt with what its tests said."""

    @property
    def number(self) -> int:
        """The attempt's number."""
        ...

    @property
    def key(self) -> str | None:
        """What it says; none where there is no answer."""
        ...

    @property
    def tested(self) -> TestState | None:
        """What its tests said; none where it was not tested."""
        ...

    @property
    def passed(self) -> int:
        """How many tests it passed."""
        ...


def has_passed(ended: Iterable[Tested]) -> bool:
    """Whether one of these answers passed all tests."""
    return any(one.tested == "passed" for one in ended)


def in_question(ended: Sequence[Tested]) -> set[int]:
    """Returns the numbers of the answers that may win."""
    answered = [one for one in ended if one.key is not None]
    best = max(map(_standing, answered), default=None)
    return {one.number for one in answered if _standing(one) == best}


def tested_tally(votes: Mapping[int, Vote], ended: Sequence[Tested], weighing: Reliability) -> Tally | None:
    """Counts all votes, and lets one of those win that are in question."""
    able = in_question(ended)
    whole = aggregate(votes, weighing)
    chosen = aggregate({number: vote for number, vote in votes.items() if number in able}, weighing)
    if whole is None or chosen is None:
        return whole
    camp = next(camp for camp in whole.camps if chosen.winner in camp.numbers)
    return structs.replace(
        whole,
        winner=chosen.winner,
        agreeing=len(camp.numbers) if camp.key else 0,
        probability=camp.probability,
        camps=(camp, *(other for other in whole.camps if other is not camp)),
    )


def undecided(votes: Mapping[int, Vote], ended: Sequence[Tested]) -> dict[int, Vote]:
    """Returns the votes by which a plan may end before all were asked: what failed is as if it said nothing."""
    failed = {one.number for one in ended if one.tested == "failed"}
    return {number: Vote("", vote.member) if number in failed else vote for number, vote in votes.items()}


def confidence_of(state: TestState, tests: int, otherwise: float) -> float:
    """Returns how probably an answer is right by what tests said: stated, and more the more tests it passed.

    ``otherwise`` is what it is worth without them: all that is known of one that could not be run.
    """
    if state == "passed":
        return 1.0 - 0.5 / (tests + 1)
    return otherwise if state == "not_run" else min(otherwise, FAILED_CONFIDENCE)


def _standing(one: Tested) -> tuple[int, int]:
    if one.tested == "passed":
        return _PASSED, 0
    return (_FAILED, one.passed) if one.tested == "failed" else (_NOT_RUN, 0)
