"""The same work answered by two models: what events tell of it. Pure.

A panel's members are compared by whether they said what was settled. In a cascade that went on to a higher rank the
first model is compared with the one whose answer was settled, and a probe compares who answered with who was asked
again, or was asked what it was not trained on: where both say the same they are as good, where not the one of the lower
rank is taken to be wrong. What a client or a program says of the settled answer is weighed in when pairs are read,
because it may come later. One rule: of one piece of work a model is heard once, by its first attempt.
"""

from __future__ import annotations

from itertools import combinations
from typing import Final, Literal, NamedTuple

from collegium_contracts.messages import JourneyMessage, ProbeCompared, TaskCompleted
from collegium_learning.ranks.decisions import RANKS

from collegium_evolution.scoreboards.scoring import plain_domain

Kind = Literal["panel", "escalation", "audit", "shadow", "held_out"]
# A panel of more would fill the table with one task's pairs.
MEMBERS_MAX: Final = 6


class ComparedPair(NamedTuple):
    """Two models' scores (0 to 1) for one task; ``kind`` says how they came to be compared.

    The settled answer is ``other``'s, of an audit ``model``'s.
    """

    task_id: str
    tenant: str
    domain: str
    model: str
    other: str
    score: float
    other_score: float
    kind: Kind
    at_ms: int


def pairs_of(message: JourneyMessage) -> list[ComparedPair]:
    """Returns the pairs that a message tells of; none where only one model answered, or nobody agreed on anything."""
    if isinstance(message, ProbeCompared):
        return _probed(message)
    if not isinstance(message, TaskCompleted) or message.task.probe is not None:
        return []
    evidence = message.evidence
    # Who agrees with an answer that failed its tests, or was not run, is none the better for it.
    if evidence is None or evidence.camp == 0 or any(one.is_given and one.tested != "passed" for one in evidence.said):
        return []
    agreed: dict[str, bool] = {}
    ranks: dict[str, int] = {}
    for one in evidence.said:
        if one.model not in agreed:
            agreed[one.model] = one.camp == evidence.camp
            ranks[one.model] = RANKS.index(one.rank)
    if message.plan == "cascade":
        return _escalated(message, agreed, ranks)
    if message.plan != "panel" or sum(one.camp == evidence.camp for one in evidence.said) < 2:
        return []
    members = sorted(agreed)[:MEMBERS_MAX]
    return [_pair(message, one, other, agreed, "panel") for one, other in combinations(members, 2)]


def tenant_of(message: JourneyMessage) -> str:
    """Returns whose task a message is about; empty where it is about none."""
    task = getattr(message, "task", None)
    return task.tenant if task is not None else ""


def _probed(message: ProbeCompared) -> list[ComparedPair]:
    if message.same is None or not message.model or message.model == message.probe_model or message.kind == "trial":
        return []
    is_audit = message.kind == "audit"
    model, other = (message.model, message.probe_model) if is_audit else (message.probe_model, message.model)
    task = message.task
    domain, score = plain_domain(task.domain), float(message.same)
    return [ComparedPair(task.id, task.tenant, domain, model, other, score, 1.0, message.kind, message.at_ms)]


def _escalated(message: TaskCompleted, agreed: dict[str, bool], ranks: dict[str, int]) -> list[ComparedPair]:
    decided = message.model
    if decided not in ranks:
        return []
    agreed = {**agreed, decided: True}
    return [_pair(message, model, decided, agreed, "escalation") for model in agreed if ranks[model] < ranks[decided]]


def _pair(message: TaskCompleted, model: str, other: str, agreed: dict[str, bool], kind: Kind) -> ComparedPair:
    return ComparedPair(
        message.task.id,
        message.task.tenant,
        plain_domain(message.task.domain),
        model,
        other,
        float(agreed[model]),
        float(agreed[other]),
        kind,
        message.settled_at_ms,
    )
