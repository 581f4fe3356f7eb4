"""Other models' answers to what samples are made of: of cascades, panels and shadow runs. Pure.

One rule: what may not be a sample has no tries either.
"""

from __future__ import annotations

from typing import NamedTuple

from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import AttemptAnswered, JourneyMessage, ProbeCompared

from collegium_evolution.students.samples import SAMPLE_BYTES_MAX, is_bare, may_be_learned


class Try(NamedTuple):
    """One model's answer, sealed, or (none) whether it was the ``same``."""

    tenant: str
    task_id: str
    number: int
    model: str
    rank: str
    escalated: bool
    same: bool | None
    at_ms: int
    answer: Envelope | None


def try_of(message: JourneyMessage) -> Try | None:
    """Returns the try that a message tells of, none where it tells of none."""
    match message:
        case AttemptAnswered(task=task, attempt=attempt, answer=answer, route=route):
            if attempt.judges or not may_be_learned(task) or not is_bare(route) or len(answer.body) > SAMPLE_BYTES_MAX:
                return None
            return Try(
                task.tenant, task.id, attempt.number, attempt.model, attempt.rank, attempt.plan == "cascade", None,
                message.at_ms, answer,
            )  # fmt: skip
        case ProbeCompared(task=task, kind="shadow", same=bool(same)) if may_be_learned(task):
            return Try(
                task.tenant, task.id, 0, message.probe_model, message.probe_rank, False, same, message.at_ms, None
            )
        case _:
            return None
