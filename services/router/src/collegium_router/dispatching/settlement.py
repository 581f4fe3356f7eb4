"""What the router itself ends: tasks that expired, were canceled, or cannot be planned, while they waited. Pure.

An attempt that waits for another try has made calls already; they stay in the books, and what ends it ends the task,
or, in a larger plan, that member of it. One rule: what waited costs the tenant nothing.
"""

from __future__ import annotations

from functools import reduce

import msgspec
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import (
    AttemptFailed,
    AttemptRequested,
    AttemptUsage,
    Plan,
    SettledMessage,
    StopReason,
    TaskCanceled,
    TaskFailed,
    TaskRef,
    TaskSubmitted,
)
from collegium_contracts.money import Usage, add_usage
from collegium_contracts.plans import settles
from collegium_contracts.routing import Route

Waiting = TaskSubmitted | AttemptRequested
End = SettledMessage | AttemptFailed


def task_of(waiting: Waiting) -> TaskRef:
    """Returns the task that waits."""
    return waiting.task if isinstance(waiting, TaskSubmitted) else waiting.run.task


def expired(waiting: Waiting, now_ms: int, route: Route | None = None) -> End:
    """The task's deadline passed while it waited; ``route`` as ``failed`` takes it."""
    task = task_of(waiting)
    waited = (now_ms - max(task.created_at_ms, task.not_before_ms)) / 1000
    if isinstance(waiting, TaskSubmitted):
        message = f"task {task.id} waited {waited:.1f} s in the queue and reached its deadline; nothing was called"
    else:
        why = f" ({waiting.error.message})" if waiting.error is not None else ""
        message = f"task {task.id} reached its deadline while it waited for another try{why}"
    return failed(waiting, TaskError(code="deadline_exceeded", message=message), now_ms, "deadline", route)


def canceled(waiting: Waiting, now_ms: int, reason: StopReason = "canceled") -> End:
    """The task was canceled while it waited."""
    task = task_of(waiting)
    if _is_member(waiting):
        return failed(waiting, TaskError(code="canceled", message=f"task {task.id} was canceled"), now_ms, reason)
    earlier = _earlier(waiting)
    return TaskCanceled(
        task=task,
        plan=_plan(waiting),
        stop_reason=reason,
        usage=_usage(earlier),
        attempts=earlier,
        settled_at_ms=now_ms,
    )


def failed(
    waiting: Waiting, error: TaskError, now_ms: int, reason: StopReason = "failed", route: Route | None = None
) -> End:
    """The task, or the member of a larger plan, cannot be dispatched.

    ``route`` is how a task of which nothing was sent would have gone, so that its experiment is told of the failure.
    """
    task, earlier = task_of(waiting), _earlier(waiting)
    if isinstance(waiting, AttemptRequested) and _is_member(waiting):
        attempt = waiting.run.attempt
        # What was called stands in ``earlier``; this entry says how the attempt ended and booked nothing.
        call = AttemptUsage(
            number=attempt.number,
            delivery=0,
            model=attempt.model,
            rank=attempt.rank,
            usage=Usage(),
            duration_ms=0,
            succeeded=False,
            error_code=error.code,
        )
        route = waiting.run.route
        return AttemptFailed(
            task=task, attempt=attempt, error=error, call=call, at_ms=now_ms, earlier=earlier, route=route
        )
    model, rank = (waiting.run.attempt.model, waiting.run.attempt.rank) if earlier else ("", "")  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    return TaskFailed(
        task=task,
        plan=_plan(waiting),
        stop_reason=reason,
        usage=_usage(earlier),
        attempts=earlier,
        settled_at_ms=now_ms,
        model=model,
        rank=rank,
        error=error,
        route=route if isinstance(waiting, TaskSubmitted) else waiting.run.route,
    )


def _is_member(waiting: Waiting) -> bool:
    return isinstance(waiting, AttemptRequested) and not settles(waiting.run.task, waiting.run.attempt)


def _plan(waiting: Waiting) -> Plan:
    if isinstance(waiting, AttemptRequested):
        return waiting.run.attempt.plan
    # A plan that is open still would have been of one attempt unless its question were looked at.
    return "single" if waiting.task.open_to else waiting.task.plan


def _earlier(waiting: Waiting) -> list[AttemptUsage]:
    return [] if isinstance(waiting, TaskSubmitted) else waiting.run.earlier


def _usage(calls: list[AttemptUsage]) -> Usage:
    total = reduce(add_usage, (call.usage for call in calls), Usage())
    return msgspec.structs.replace(total, charge_usd_picos=0)
