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
    }
    if end.why == "canceled":
        return TaskCanceled(**shared, stop_reason="canceled", partial=winner.answer if winner is not None else None)
    if winner is None or end.judgement is None:
        codes = [member.error.code for member in members if isinstance(member, AttemptFailed)]
        return _failed(shared, codes, len(members), end)
    return TaskCompleted(
        **shared,
        stop_reason=_stop_reason(about.task, answers[winner.attempt.number], end, end.judgement),
        confidence=end.judgement.confidence,
        output=winner.answer,
        turn=winner.turn,
    )


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
    if task.plan == "panel" and judgement.agreeing < 2:
        return "no_majority"
    finished = _FINISHED.get(answer.choices[0].finish_reason, "completed") if answer.choices else "completed"
    if finished == "completed" and judgement.confidence < task.quality_min:
        return "below_quality"
    return finished


def _failed(shared: dict[str, Any], codes: Sequence[str], members: int, end: Settle) -> TaskFailed:
    task_id = shared["task"].id
    if end.why == "deadline" or DEADLINE in codes:
        error = TaskError(code=DEADLINE, message=f"task {task_id} reached its deadline before any attempt answered")
        return TaskFailed(**shared, stop_reason="deadline", error=error)
    reasons = ", ".join(sorted(set(codes))) or "answers that cannot be read"
    message = f"none of the {members} attempts of task {task_id} gave an answer ({reasons}); try again"
    return TaskFailed(**shared, stop_reason="failed", error=TaskError(code="no_verdict", message=message))
