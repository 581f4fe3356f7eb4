"""What of the events may be learned from. Pure.

One rule: only what a tenant agreed to before it was asked is a sample: an answer to one plain chat that stands alone.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from collegium_contracts.envelope import Envelope
from collegium_contracts.memory_paths import OFF
from collegium_contracts.messages import JourneyMessage, TaskCompleted, TaskRef
from collegium_contracts.routing import Route

from collegium_evolution.scoreboards.scoring import plain_domain

# Longer ones teach little for what they cost to keep.
SAMPLE_BYTES_MAX: Final = 64 * 1024
_WHOLE = frozenset(("completed", "answered_by_person"))
# Arms that are told nothing, unless their experiment says otherwise.
_UNCHANGED = frozenset(("control", "holdout"))


class Sample(NamedTuple):
    """A prompt and its answer, both sealed, and who gave it; ``confidence`` none: nobody said."""

    tenant: str
    task_id: str
    domain: str
    model: str
    rank: str
    tier: str
    confidence: float | None
    consent_ms: int
    settled_ms: int
    prompt: Envelope
    answer: Envelope


def may_be_learned(task: TaskRef) -> bool:
    """Tells whether what was said in a task may be kept to learn from: its tenant had agreed, and it is one plain
    turn."""
    # What a model was told from memory is not in the prompt, so its answer is none to the prompt alone.
    return (
        0 < task.collects_since_ms <= task.created_at_ms
        and task.kind == "chat"
        and not task.conversation
        and task.gated is None
        and task.probe is None
        and task.memory in ("", OFF)
    )


def is_bare(route: Route | None) -> bool:
    """Tells whether a prompt went to its model as its client wrote it, as far as experiments and flags go."""
    trial = route.trial if route is not None else None
    return trial is None or (trial.arm in _UNCHANGED and not trial.instructed)


def sample_of(message: JourneyMessage) -> Sample | None:
    """Returns the sample that a settled task is, none where it is none."""
    if not isinstance(message, TaskCompleted) or message.turn is None:
        return None
    task = message.task
    if not may_be_learned(task) or not is_bare(message.route):
        return None
    if message.stop_reason not in _WHOLE or not message.model or task.reused is not None:
        return None
    if len(message.turn.body) + len(message.output.body) > SAMPLE_BYTES_MAX:
        return None
    return Sample(
        task.tenant,
        task.id,
        plain_domain(task.domain),
        message.model,
        message.rank,
        task.tier,
        message.confidence,
        task.collects_since_ms,
        message.settled_at_ms,
        message.turn,
        message.output,
    )
