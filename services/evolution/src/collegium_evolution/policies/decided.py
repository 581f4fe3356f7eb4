"""What an event tells of a model's choice: who answered, why, with which chance, and at which cost. Pure.

One rule: an attempt is told of once, by the message that ended it: a plan of one by its settled message, a member of a
larger plan by its own.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import (
    AttemptAnswered,
    AttemptUsage,
    JourneyMessage,
    TaskCompleted,
    TaskRef,
)
from collegium_contracts.routing import Route

from collegium_evolution.scoreboards.scoring import is_single, plain_domain

CANDIDATES_MAX: Final = 100


class Decided(NamedTuple):
    """One answer: whose, by which model, and how it came to be that one's.

    ``propensity`` is 0 where the choice was nobody's to draw: a named model, or one instead of another.
    """

    tenant: str
    task_id: str
    number: int
    model: str
    rank: str
    domain: str
    at_ms: int
    cost_picos: int
    duration_ms: int
    policy_version: int = 0
    propensity: float = 0.0
    explored: bool = False
    candidates: tuple[str, ...] = ()
    embedder: str = ""
    features: Envelope | None = None


def decided_in(message: JourneyMessage) -> Decided | None:
    """Returns the answer that a message tells of; none where it tells of none."""
    match message:
        case AttemptAnswered():
            return _decided(message.task, message.call, message.route, message.at_ms)
        case TaskCompleted() if message.attempts and message.plan in ("auto", "single") and is_single(message):
            return _decided(message.task, message.attempts[-1], message.route, message.settled_at_ms)
        case _:
            return None


def _decided(task: TaskRef, call: AttemptUsage, route: Route | None, at_ms: int) -> Decided | None:
    if task.kind != "chat":
        return None
    found = Decided(
        task.tenant,
        task.id,
        call.number,
        call.model,
        call.rank,
        plain_domain(task.domain),
        at_ms,
        call.usage.cost_usd_picos,
        max(0, call.duration_ms),
    )
    if route is None or route.model != call.model:
        return found
    candidates = tuple(route.candidates[:CANDIDATES_MAX]) if 0.0 < route.propensity <= 1.0 else ()
    return found._replace(
        policy_version=max(0, route.policy_version),
        propensity=route.propensity if candidates else 0.0,
        explored=route.explored,
        candidates=candidates,
        embedder=route.embedder,
        features=route.features,
    )
