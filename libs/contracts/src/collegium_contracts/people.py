"""What people are asked about a task: which questions, whom, and what follows from their answers. Pure.

A task pauses at most twice: before it begins (its request is to be approved) and before its answer leaves (the answer
is to be approved, or a person answers in its place). A pause has one question or several, each answered once; nothing
about it is kept but the events that tell of it, so whoever reads them knows how it stands. One rule: a question names
everybody who may answer it and what follows when nobody does, so that no later change of the configuration moves it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from collegium_contracts.envelope import Envelope

Stage = Literal["request", "answer"]
STAGES: Final[tuple[Stage, ...]] = ("request", "answer")
# ``approval``: may it go on as it is? ``answer``: take what there is, or say what is right.
QuestionKind = Literal["approval", "answer"]
# ``client``: any key of the tenant that may ask; ``tenant`` and ``operator``: the staff of a queue.
Whom = Literal["client", "tenant", "operator"]
Decision = Literal["approve", "deny", "answer", "expire"]
OnExpiry = Literal["fail", "best", "deny"]
# What answers are of: a person of a queue or a client, or the clock.
InputSource = Literal["client", "tenant", "operator", "expiry"]

# EVENTS keeps what a pause is told from for three days; a task that waited for so long has a day left to run.
EXPIRES_MS_MAX: Final = 2 * 86_400_000
EXPIRES_MS_DEFAULT: Final = 86_400_000
# What one pause may ask, rules that ask included.
QUESTIONS_MAX: Final = 16
PERSON: Final = "person"


class Question(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question: ``id`` is one token, unique within its task; ``queue`` is empty where the client is asked.

    ``reason`` is a stable word (``requested``, ``gate``, ``unsure``), ``rule`` the gate's name. ``labels`` are what
    whoever answers should know about. ``price_picos`` is charged where a person's own answer settles the task.
    """

    id: str
    kind: QuestionKind = "approval"
    of: Whom = "client"
    queue: str = ""
    reason: str = "requested"
    rule: str = ""
    labels: list[str] = []
    price_picos: int = 0
    on_expiry: OnExpiry = "fail"


class People(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When people are asked about a task, pinned when it was taken.

    ``before`` it begins, ``after`` it was answered, ``unsure``: after it was answered with a confidence below ``below``
    (0: below the ``quality_min`` that it states). ``rules`` has a question for each rule of its answer that asks.
    """

    before: list[Question] = []
    after: list[Question] = []
    unsure: Question | None = None
    below: float = 0.0
    rules: dict[str, Question] = {}
    expires_ms: int = EXPIRES_MS_DEFAULT

    @property
    def at_answer(self) -> bool:
        """Whether anybody may be asked about the answer."""
        return bool(self.after or self.rules) or self.unsure is not None


class Given(NamedTuple):
    """One answer to one question as it stands: what was decided, by whom, and the sealed answer where it has one."""

    decision: Decision
    source: InputSource
    by: str = ""
    answer: Envelope | None = None


class Open(NamedTuple):
    """Some questions are not answered yet."""


class Proceed(NamedTuple):
    """Everybody agreed: the request is released, or the answer leaves as it is."""

    by: str = ""


class Replaced(NamedTuple):
    """A person said what is right: that is the answer."""

    question: Question
    given: Given
    answer: Envelope


class Refused(NamedTuple):
    """Somebody said no, or nobody said anything and that means no."""

    question: Question
    given: Given


class Expired(NamedTuple):
    """Nobody answered in time; ``best``: what there is goes on all the same."""

    question: Question
    best: bool


Resolution = Open | Proceed | Replaced | Refused | Expired


def resolve(stage: Stage, questions: Sequence[Question], given: Mapping[str, Given]) -> Resolution:
    """Returns what follows from the answers so far.

    A no decides at once, whoever else has not answered. Otherwise all have to; then the first in the questions' order
    that has an answer of its own gives the task's, and one that nobody answered counts by its rule.
    """
    for question in questions:
        if (one := given.get(question.id)) is not None and one.decision == "deny":
            return Refused(question, one)
    for question in questions:
        one = given.get(question.id)
        if one is not None and one.decision == "expire" and question.on_expiry == "deny":
            return Refused(question, one)
        if one is not None and one.decision == "expire" and (question.on_expiry == "fail" or stage == "request"):
            return Expired(question, best=False)
    if any(question.id not in given for question in questions):
        return Open()
    for question in questions:
        one = given[question.id]
        if one.decision == "answer" and one.answer is not None:
            return Replaced(question, one, one.answer)
    for question in questions:
        if given[question.id].decision == "expire":
            return Expired(question, best=True)
    return Proceed(by=given[questions[0].id].by if questions else "")


def stage_of(question_id: str) -> Stage | None:
    """Returns the stage whose pause has a question, none for what is no question's id."""
    first = question_id.partition("-")[0]
    return "request" if first == "request" else "answer" if first == "answer" else None


def numbered(stage: Stage, questions: Sequence[Question]) -> list[Question]:
    """Returns questions with the ids that they have in a stage's pause, in this order."""
    return [msgspec.structs.replace(one, id=f"{stage}-{number}") for number, one in enumerate(questions, 1)]
