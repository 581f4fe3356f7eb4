"""What a task becomes when its time has come, and a cron schedule when it has fired. Pure.

One rule: everything is derived from what stands and from the firing's time, so that a second try derives the same.
"""

from __future__ import annotations

import msgspec
from collegium_calendar.cron import Cron
from collegium_calendar.firings import Firings, firings
from collegium_contracts.ids import task_id_of_firing
from collegium_contracts.messages import TaskSubmitted
from collegium_contracts.state import CronSchedule

# What a hold is refused with where the key of a task has ended while it waited.
KEY_ENDED = ("revoked_api_key",)


def stopped(schedule: CronSchedule, code: str) -> CronSchedule:
    """Returns a schedule that fires no more until somebody resumes it, and says why."""
    return msgspec.structs.replace(schedule, paused=True, stopped=code)


def released(submitted: TaskSubmitted, now_ms: int) -> TaskSubmitted:
    """Returns a scheduled task as it enters INGRESS: its deadline, as long as it was given, counts from now."""
    task = submitted.task
    length_ms = task.deadline_ms - task.not_before_ms
    return msgspec.structs.replace(
        submitted, task=msgspec.structs.replace(task, deadline_ms=max(now_ms, task.not_before_ms) + length_ms)
    )


def decide(schedule: CronSchedule, now_ms: int) -> Firings:
    """Decides what a schedule has to submit; raises CalendarError where its cron or zone cannot be used any more."""
    return firings(Cron(schedule.cron, schedule.timezone), schedule.next_at_ms, now_ms, schedule.missed)


def task_of(schedule: CronSchedule, at_ms: int, now_ms: int) -> TaskSubmitted:
    """Returns the task that the firing at ``at_ms`` submits, before its release."""
    pattern = schedule.task.task
    task = msgspec.structs.replace(
        pattern,
        id=task_id_of_firing(schedule.tenant, schedule.id, at_ms),
        created_at_ms=now_ms,
        not_before_ms=at_ms,
        deadline_ms=at_ms + pattern.deadline_ms,
    )
    return msgspec.structs.replace(schedule.task, task=task)


def fired(schedule: CronSchedule, decided: Firings) -> CronSchedule:
    """Returns the schedule after its firings were submitted; one that never fires again is paused."""
    last_ms = decided.due_ms[-1] if decided.due_ms else None
    return msgspec.structs.replace(
        schedule,
        next_at_ms=decided.next_ms or 0,
        paused=decided.next_ms is None,
        fired=schedule.fired + len(decided.due_ms),
        last_at_ms=schedule.last_at_ms if last_ms is None else last_ms,
        last_task=schedule.last_task if last_ms is None else task_id_of_firing(schedule.tenant, schedule.id, last_ms),
    )
