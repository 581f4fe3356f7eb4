"""From the ended attempts of a plan and what they come to, to the task's terminal message. Pure.

One rule: the same members give the same message, whatever the order, so that two replicas which decide the same task
write the same thing.

An attempt that failed does not vote. Where one was ended by the client, the task is canceled, and what had been
answered is its partial result; where time was over, what was answered is the answer, and the stop reason says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import msgspec
from collegium_contracts.charging import is_charged
from collegium_contracts.content import Answer
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import (
    AttemptAnswered,
    AttemptEnded,
    AttemptFailed,
    AttemptUsage,
    SettledMessage,
    StopReason,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TaskRef,
)
from collegium_contracts.money import Usage, add_usage
from collegium_contracts.routing import Route

from collegium_consensus.course import DEADLINE, Judgement, Settle

_FINISHED: dict[str, StopReason] = {
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


def decide(members: Sequence[AttemptEnded], answers: Mapping[int, Answer], end: Settle, now_ms: int) -> SettledMessage:
    """Returns the task's terminal message.

    ``members`` are the attempts that had ended (at least one); ``answers`` are the opened answers by attempt number,
    without those that could not be read; ``end`` is what the plan came to.
    """
    members = sorted(members, key=lambda member: member.attempt.number)
    winner = _winner(members, end.judgement)
    about = winner or members[0]
    calls = [call for member in members for call in (*member.earlier, member.call) if call.delivery]
    shared: dict[str, Any] = {
        "task": about.task,
        "plan": about.attempt.plan,
        "usage": usage_of(calls),
        "attempts": calls,
        "settled_at_ms": now_ms,
        "model": about.attempt.model,
        "rank": about.attempt.rank,
        "route": _tried(members[0]),
    }
    if end.why == "canceled":
        return TaskCanceled(**shared, stop_reason="canceled", partial=winner.answer if winner is not None else None)
    if winner is None or end.judgement is None:
        errors = [member.error for member in members if isinstance(member, AttemptFailed)]
        return _failed(shared, errors, len(members), end)
    return TaskCompleted(
        **shared,
        stop_reason=_stop_reason(about.task, answers[winner.attempt.number], end, end.judgement),
        confidence=end.judgement.confidence,
        evidence=end.judgement.evidence,
        output=winner.answer,
        turn=winner.turn,
    )


def _tried(member: AttemptEnded) -> Route | None:
    """Returns the route of a member whose plan is tried, so that whoever compares plans hears of the task once."""
    return member.route if member.route is not None and member.route.trial is not None else None


def usage_of(calls: Sequence[AttemptUsage]) -> Usage:
    """Returns a task's usage: everything its calls used and cost, and the charge of those that are charged.

    What was generated is charged when it answered or when the client ended it; neither when the platform or the
    endpoint ended it, nor when it is booked as waste.
    """
    total = reduce(add_usage, (call.usage for call in calls), Usage())
    charge = sum(call.usage.charge_usd_picos for call in calls if is_charged(call))
    return msgspec.structs.replace(total, charge_usd_picos=charge)


def _winner(members: Sequence[AttemptEnded], judgement: Judgement | None) -> AttemptAnswered | None:
    if judgement is None:
        return None
    for member in members:
        if member.attempt.number == judgement.winner and isinstance(member, AttemptAnswered):
            return member
    return None


def _stop_reason(task: TaskRef, answer: Answer, end: Settle, judgement: Judgement) -> StopReason:
    if end.why == "deadline":
        return "deadline"
    given = next((one for one in judgement.evidence.said if one.is_given), None) if judgement.evidence else None
    if given is not None and given.tested is not None:
        if given.tested != "passed":
            return "tests_failed" if given.tested == "failed" else "tests_not_run"
        return _finished(answer)
    is_judged = judgement.evidence is not None and judgement.evidence.judge is not None
    if task.plan == "panel" and judgement.agreeing < 2 and not is_judged:
        return "no_majority"
    finished = _finished(answer)
    if finished == "completed" and judgement.confidence < task.quality_min:
        return "below_quality"
    return finished


def _finished(answer: Answer) -> StopReason:
    return _FINISHED.get(answer.choices[0].finish_reason, "completed") if answer.choices else "completed"


def _failed(shared: dict[str, Any], errors: Sequence[TaskError], members: int, end: Settle) -> TaskFailed:
    task_id = shared["task"].id
    codes = [error.code for error in errors]
    blocked = [error for error in errors if error.gate is not None]
    if blocked and len(blocked) == members:
        # Every answer broke a rule: the client is told which, as of a plan of one.
        return TaskFailed(**shared, stop_reason="gate", error=blocked[0])
    if members == 1 and errors:
        # A plan of one that people may be asked about: its client is told what became of it, as of any other.
        return TaskFailed(**shared, stop_reason="deadline" if DEADLINE in codes else "failed", error=errors[0])
    if end.why == "deadline" or DEADLINE in codes:
        error = TaskError(code=DEADLINE, message=f"task {task_id} reached its deadline before any attempt answered")
        return TaskFailed(**shared, stop_reason="deadline", error=error)
    reasons = ", ".join(sorted(set(codes))) or "answers that cannot be read"
    message = f"none of the {members} attempts of task {task_id} gave an answer ({reasons}); try again"
    return TaskFailed(**shared, stop_reason="failed", error=TaskError(code="no_verdict", message=message))
