"""What feedback adds to the scores of models. Pure.

One rule: of one source the last word about a task counts, whatever order the words come in, so a word that is replaced
is taken out of the sums as it was put in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from collegium_contracts.messages import Feedback, JourneyMessage, ProbeCompared

from collegium_evolution.scoreboards.scoring import ScoreKey, plain_domain

# The source of what a probe says, beside those of feedback.
AUDIT = "audit"


class OutcomeKey(NamedTuple):
    """Whose word about which task."""

    tenant: str
    task_id: str
    source: str


class Outcome(NamedTuple):
    """One word: who is scored, how (0 to 1), and when the broker stored it (Unix nanoseconds)."""

    key: ScoreKey
    score: float
    stored_ns: int


class Judged(NamedTuple):
    """What words change a model's sums by; both may be below zero."""

    words: int = 0
    score_sum: float = 0.0

    def plus(self, words: int, score: float) -> Judged:
        """Adds words of one score; a negative count takes them out."""
        return Judged(self.words + words, self.score_sum + words * score)


def outcome_of(message: JourneyMessage, stored_ns: int) -> tuple[OutcomeKey, Outcome] | None:
    """Returns what a message says of a model's answer; none where it is no feedback, or nothing had answered."""
    if isinstance(message, ProbeCompared):
        return _audited(message, stored_ns)
    if not isinstance(message, Feedback) or not message.model:
        return None
    task = message.task
    key = ScoreKey(message.model, plain_domain(task.domain), message.rank)
    return OutcomeKey(task.tenant, task.id, message.source), Outcome(key, message.score, stored_ns)


def _audited(message: ProbeCompared, stored_ns: int) -> tuple[OutcomeKey, Outcome] | None:
    """A teacher's second answer is a word about the first; a cheaper model's is not, and silence is none."""
    if message.kind != AUDIT or message.same is None or not message.model:
        return None
    task = message.task
    key = ScoreKey(message.model, plain_domain(task.domain), message.rank)
    return OutcomeKey(task.tenant, task.id, AUDIT), Outcome(key, float(message.same), stored_ns)


def last_words(outcomes: Iterable[tuple[OutcomeKey, Outcome]]) -> dict[OutcomeKey, Outcome]:
    """Returns the last word of each source about each task."""
    found: dict[OutcomeKey, Outcome] = {}
    for key, outcome in outcomes:
        standing = found.get(key)
        if standing is None or standing.stored_ns < outcome.stored_ns:
            found[key] = outcome
    return found


def changes(
    standing: Mapping[OutcomeKey, Outcome], told: Mapping[OutcomeKey, Outcome]
) -> tuple[dict[OutcomeKey, Outcome], dict[ScoreKey, Judged]]:
    """Returns the words that are newer than what stands, and by how much they change the sums."""
    newer: dict[OutcomeKey, Outcome] = {}
    sums: dict[ScoreKey, Judged] = {}
    for key, outcome in told.items():
        before = standing.get(key)
        if before is not None:
            if before.stored_ns >= outcome.stored_ns:
                continue
            sums[before.key] = sums.get(before.key, Judged()).plus(-1, before.score)
        newer[key] = outcome
        sums[outcome.key] = sums.get(outcome.key, Judged()).plus(1, outcome.score)
    return newer, sums
