"""From the ended members of a panel to the task's terminal message. Pure.

One rule: the same members give the same message, whatever the order, so that two replicas which decide the same task
write the same thing.

A member that failed does not vote. Where a member was ended by the client, the task is canceled, and what had been
answered is its partial result.
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
)
from collegium_contracts.money import Usage, add_usage

from collegium_consensus.vote import Count, count

_FINISHED: dict[str, StopReason] = {
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_CANCELED = "canceled"
_DEADLINE = "deadline_exceeded"


def decide(members: Sequence[AttemptEnded], answers: Mapping[int, Answer], now_ms: int) -> SettledMessage:
    """Returns the task's terminal message.

    ``members`` are all ended attempts of the task (at least one); ``answers`` are the opened answers by attempt number,
    without those that could not be read.
    """
    members = sorted(members, key=lambda member: member.attempt.number)
    counted = count(answers)
    winner = _winner(members, counted)
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
    codes = [member.error.code for member in members if isinstance(member, AttemptFailed)]
    if _CANCELED in codes:
        return TaskCanceled(**shared, stop_reason="canceled", partial=winner.answer if winner is not None else None)
    if winner is None or counted is None:
        return _failed(shared, codes, len(members))
    return TaskCompleted(
        **shared,
        stop_reason=_stop_reason(answers[counted.winner], counted),
        confidence=counted.agreeing / counted.votes,
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


def _winner(members: Sequence[AttemptEnded], counted: Count | None) -> AttemptAnswered | None:
    if counted is None:
        return None
    for member in members:
        if member.attempt.number == counted.winner and isinstance(member, AttemptAnswered):
            return member
    return None


def _stop_reason(answer: Answer, counted: Count) -> StopReason:
    if not counted.is_majority:
        return "no_majority"
    return _FINISHED.get(answer.choices[0].finish_reason, "completed") if answer.choices else "completed"


def _failed(shared: dict[str, Any], codes: Sequence[str], members: int) -> TaskFailed:
    task_id = shared["task"].id
    if _DEADLINE in codes:
        error = TaskError(code=_DEADLINE, message=f"task {task_id} reached its deadline before any attempt answered")
        return TaskFailed(**shared, stop_reason="deadline", error=error)
    reasons = ", ".join(sorted(set(codes))) or "answers that cannot be read"
    message = f"none of the {members} attempts of task {task_id} gave an answer ({reasons}); try again"
    return TaskFailed(**shared, stop_reason="failed", error=TaskError(code="no_verdict", message=message))
