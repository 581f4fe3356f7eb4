"""Waiting for models: when it is in vain, and what a task is told then. Pure."""

from __future__ import annotations

from typing import Final

from collegium_contracts.errors import TaskError

from collegium_router.choosing.plan import Wait
from collegium_router.queue.fairness import Entry
from collegium_router.queue.intake import Queued
from collegium_router.queue.lines import listens

# Who listens for an answer is told of open circuit breakers at once, unless they are about to close.
LISTENERS_WAIT_MS: Final = 5_000


def ends_waiting(entry: Entry, wait: Wait, now_ms: int) -> bool:
    """Whether a wait is in vain: the deadline comes first, or a client listens who is told at once and asks again."""
    if wait.until_ms >= entry.deadline_ms:
        return True
    queued: Queued = entry.item
    is_long = wait.until_ms - now_ms > LISTENERS_WAIT_MS
    return (wait.is_open or wait.is_full) and is_long and listens(queued.task)


def unavailable(task_id: str, wait: Wait, seconds: float) -> TaskError:
    """Returns what a task is told that nobody can answer for so long."""
    why = "has used up its upstream quota" if wait.is_full else "failed of late and is left alone"
    return TaskError(
        code="model_quota_exceeded" if wait.is_full else "circuit_open",
        message=f"task {task_id}: every endpoint that could answer {why} for"
        f" {seconds:.0f} s; try again then, or submit it to /v1/tasks, where it waits",
        retry_after_seconds=seconds,
    )
