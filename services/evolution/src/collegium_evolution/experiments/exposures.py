"""What an event tells of a task that was part of an experiment. Pure.

One rule: a task counts in the arm that it was given, whoever answered it in the end; what its client took back counts
in none.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from collegium_contracts.messages import JourneyMessage, ProbeCompared, TaskCompleted, TaskFailed

# Arms whose tasks are kept; a flag compares nothing.
KEPT: Final = ("control", "candidate", "holdout")
_DECLINED: Final = "content_filter"
_INT64_MAX: Final = 2**63 - 1


class Exposure(NamedTuple):
    """A task's end: of which experiment, in which arm, as which unit; how long it took from its beginning."""

    experiment: str
    arm: str
    unit: str
    tenant: str
    task_id: str
    at_ms: int
    failed: bool
    refused: bool
    duration_ms: int
    cost_picos: float


class Asked(NamedTuple):
    """A question that both arms answered: which arm was ``asked`` in shadow, and whether both said the same."""

    experiment: str
    tenant: str
    task_id: str
    asked: str
    same: bool | None
    at_ms: int


def exposure_in(message: JourneyMessage) -> Exposure | None:
    """Returns the end of a task that was part of an experiment; none of any other."""
    if not isinstance(message, TaskCompleted | TaskFailed) or message.route is None or message.task.probe is not None:
        return None
    trial, task = message.route.trial, message.task
    if trial is None or trial.arm not in KEPT:
        return None
    # What a rule keeps back was no breakdown.
    gated = isinstance(message, TaskFailed) and message.error.gate is not None
    begun_ms = max(task.created_at_ms, task.not_before_ms)
    return Exposure(
        trial.id,
        trial.arm,
        trial.unit,
        task.tenant,
        task.id,
        message.settled_at_ms,
        failed=isinstance(message, TaskFailed) and not gated,
        refused=gated or message.stop_reason == _DECLINED,
        duration_ms=min(max(0, message.settled_at_ms - begun_ms), _INT64_MAX),
        cost_picos=float(message.usage.cost_usd_picos),
    )


def asked_in(message: JourneyMessage) -> Asked | None:
    """Returns what a probe of the other arm tells; none of any other message."""
    if not isinstance(message, ProbeCompared) or message.trial is None:
        return None
    task, trial = message.task, message.trial
    return Asked(trial.id, task.tenant, task.id, trial.arm, message.same, message.at_ms)
