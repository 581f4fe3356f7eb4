"""Which people a verdict has to pass before it leaves. Pure.

One rule: the same verdict asks the same questions, under the same ids, whoever decides it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from collegium_contracts.messages import AttemptAnswered, AttemptEnded, SettledMessage, StopReason, TaskCompleted
from collegium_contracts.people import QUESTIONS_MAX, Question, numbered

# How a plan ends that is not sure of itself, where nobody said how sure it has to be.
_UNSURE: frozenset[StopReason] = frozenset(("no_majority", "below_quality", "tests_failed", "tests_not_run"))


def questions_of(settled: SettledMessage, members: Iterable[AttemptEnded]) -> list[Question]:
    """Returns what people are asked about a verdict, none where it may leave.

    A person who is asked for an answer is not asked for an approval by the same queue besides.
    """
    people = settled.task.people
    if people is None or not isinstance(settled, TaskCompleted):
        return []
    found = [people.rules[rule] for rule in _asked(members) if rule in people.rules]
    found += people.after
    if people.unsure is not None and is_unsure(settled):
        same = (people.unsure.of, people.unsure.queue)
        found = [people.unsure, *(one for one in found if (one.of, one.queue) != same or one.rule)]
    return numbered("answer", found[:QUESTIONS_MAX])


def is_unsure(settled: TaskCompleted) -> bool:
    """Whether a verdict's confidence is below what was asked for, or what its plan ends with where nothing was."""
    people = settled.task.people
    bound = (people.below if people is not None else 0.0) or settled.task.quality_min
    if not bound:
        return settled.stop_reason in _UNSURE
    return settled.confidence is not None and settled.confidence < bound


def _asked(members: Iterable[AttemptEnded]) -> Sequence[str]:
    """The rules that want a person to look at any of the answers: a vote that one of them decided is to be seen too."""
    rules = [rule for member in members if isinstance(member, AttemptAnswered) for rule in member.asked]
    return list(dict.fromkeys(rules))
