"""What consensus notes of a plan between its attempts: why one more is asked for, and what tests said of an answer.

One rule: what an answer did stays sealed; whether it passed does not.
"""

from __future__ import annotations

from typing import Literal

from collegium_contracts.base import Message
from collegium_contracts.code_tests import TestNote, TestState
from collegium_contracts.envelope import Envelope
from collegium_contracts.parts import AttemptRef, Plan, Rank, TaskRef


class AttemptAsked(Message, frozen=True, kw_only=True):
    """Consensus asks for one more attempt of a plan that it could not settle yet (hop 4): a note of why.

    ``rank`` is of a cascade's next step, empty of a panel. ``confidence`` (none: nobody answered) is what the answers
    so far were thought to be worth, ``threshold`` (none: a panel has none) what was wanted.
    """

    task: TaskRef
    number: int
    of: int
    plan: Plan
    at_ms: int
    rank: Rank | Literal[""] = ""
    reason: Literal["confidence", "disagreement", "failure", "judging", "tests"] = "disagreement"
    confidence: float | None = None
    threshold: float | None = None


class AttemptTested(Message, frozen=True, kw_only=True):
    """An answer was run against the tests that came with its task (hop 4): ``passed`` of ``of``, and why not all.

    ``behaviour`` seals the hash of what all tests gave, equal for answers that do the same; none where it was not run.
    """

    task: TaskRef
    attempt: AttemptRef
    state: TestState
    passed: int
    of: int
    at_ms: int
    note: TestNote = ""
    duration_ms: int = 0
    behaviour: Envelope | None = None
