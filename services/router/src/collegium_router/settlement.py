"""What the router itself settles: tasks that expired, were canceled, or cannot be planned, while queued. Pure."""

from __future__ import annotations

from collegium_contracts.errors import TaskError
from collegium_contracts.messages import SettledMessage, StopReason, TaskCanceled, TaskFailed, TaskRef
from collegium_contracts.money import Usage


def expired(task: TaskRef, now_ms: int) -> SettledMessage:
    """The task's deadline passed before it was dispatched."""
    waited = (now_ms - max(task.created_at_ms, task.not_before_ms)) / 1000
    message = f"task {task.id} waited {waited:.1f} s in the queue and reached its deadline; nothing was called"
    return failed(task, TaskError(code="deadline_exceeded", message=message), now_ms, "deadline")


def canceled(task: TaskRef, now_ms: int, reason: StopReason = "canceled") -> SettledMessage:
    """The task was canceled before it was dispatched."""
    return TaskCanceled(task=task, plan=task.plan, stop_reason=reason, usage=Usage(), attempts=[], settled_at_ms=now_ms)


def failed(task: TaskRef, error: TaskError, now_ms: int, reason: StopReason = "failed") -> SettledMessage:
    """The task cannot be dispatched."""
    return TaskFailed(
        task=task, plan=task.plan, stop_reason=reason, usage=Usage(), attempts=[], settled_at_ms=now_ms, error=error
    )
