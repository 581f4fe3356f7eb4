"""What the span of a dispatch says."""

from __future__ import annotations

from collegium_contracts.journey import template
from collegium_runtime.spans import Said, about, received
from collegium_telemetry import names

from collegium_router.dispatching.jobs import Job


def said_of(job: Job) -> Said:
    """Returns what a job's span says: of its entry, and of the plan that was made of it, whose rank it has if it is of
    one."""
    message = job.queued.message
    said = received(template(type(message).__name__)) | about(message)
    if job.plan is not None:
        ranks = {attempt.rank for attempt in job.plan.attempts}
        said |= {names.PLAN: job.plan.plan, names.RANK: ranks.pop() if len(ranks) == 1 else None}
    return said
