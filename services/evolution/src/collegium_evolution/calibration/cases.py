"""What a settled message adds to what confidence is learned from. Pure.

One rule: only an answer somebody asked for counts, and a task counts once.
"""

from __future__ import annotations

from typing import NamedTuple

from collegium_contracts.messages import JourneyMessage, TaskCompleted
from collegium_contracts.parts import Evidence

from collegium_evolution.scoreboards.scoring import plain_domain


class Kept(NamedTuple):
    """A settled answer: whose, in which domain, by which plan, how sure it was said to be, and what that rests on."""

    tenant: str
    task_id: str
    domain: str
    plan: str
    confidence: float | None
    evidence: Evidence
    settled_at_ms: int


def kept_of(message: JourneyMessage) -> Kept | None:
    """Returns what is kept of a message; none of one that tells of no weighed answer, or of one nobody asked for.

    Of a plan of one nothing is kept: what became of its answer says all, and a row for each chat would be most of what
    evolution writes.
    """
    if not isinstance(message, TaskCompleted) or message.task.probe is not None or message.task.reused is not None:
        return None
    task, evidence = message.task, message.evidence
    # What tests decided says nothing of what agreement is worth.
    if evidence is None or evidence.tests:
        return None
    return Kept(
        task.tenant,
        task.id,
        plain_domain(task.domain),
        message.plan,
        message.confidence,
        evidence,
        message.settled_at_ms,
    )
