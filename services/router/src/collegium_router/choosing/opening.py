"""Which questions of an open plan are for several models, and what is told of why. Pure.

A question is novel where its tenant's policy knows nothing like it (learning's room ``routing``): the highest rank
would answer it alone, and nobody could say how well. Asked beside cheaper models, its answer is checked, and all of
them are learned of. Who was drawn to learn from, and who is in an experiment, stays what it is. One rule: each attempt
of several says why its model, whoever chose the plan; a model that the client named needs no reason.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
from collegium_contracts.messages import TaskSubmitted
from collegium_contracts.openplans import as_planned
from collegium_contracts.parts import AttemptRef, Plan, TaskRef
from collegium_contracts.plans import SEVERAL
from collegium_contracts.routing import Route

from collegium_router.choosing.plan import AUTO, Planned

NOVEL: Final = "novel"


class Wanted(NamedTuple):
    """A plan of several, of a panel with so many members at most, and the code of why."""

    plan: Plan
    members: int
    reason: str


def is_novel(route: Route | None) -> bool:
    """Whether a model was chosen because nothing like its question is known."""
    return route is not None and NOVEL in route.reasons and not route.explored


def becomes(submitted: TaskSubmitted, planned: Planned, novel_members: int) -> Wanted | None:
    """Returns the plan of several that an open one becomes; none where it stays one attempt.

    What an experiment or a flag says goes before what its question is. Held for is what ``open_to`` says, so nothing
    else is wanted; its first is for novel questions, whose panel has ``novel_members`` at most, however many an
    experiment's may have.
    """
    task, route, wider = submitted.task, planned.route, planned.wider
    if wider is None or route is None:
        return None
    if wider.plan:
        if wider.plan not in SEVERAL.intersection(task.open_to):
            return None
        return Wanted(wider.plan, min(wider.members, submitted.panel_size), route.reasons[0])
    plan = task.open_to[0]
    members = min(novel_members, submitted.panel_size)
    return Wanted(plan, members, NOVEL) if plan in SEVERAL and is_novel(route) else None


def route_of(task: TaskRef, attempt: AttemptRef) -> Route | None:
    """Returns why a model makes an attempt of a plan of several; none where the client named it."""
    if task.model != AUTO:
        return None
    why = "judge" if attempt.judges else "step" if attempt.plan == "cascade" else "member"
    reasons = [why, task.plan_reason] if task.plan_reason else [why]
    return Route(model=attempt.model, rank=attempt.rank, domain=task.domain, reasons=reasons)


def told(planned: Planned, reason: str, of: Route | None = None) -> Planned:
    """Returns a plan that says why it is one: of several, with what its policy knew ``of`` the question.

    None of its members was drawn among others, so nothing can be learned of draws by them; the question's features are
    kept with each.
    """
    if planned.plan == "single":
        if planned.route is None:
            return planned
        route = msgspec.structs.replace(planned.route, reasons=[*planned.route.reasons, reason])
        return msgspec.structs.replace(planned, route=route)
    if of is None:
        return planned
    routes = tuple(_known(route, of) for route in planned.routes)
    return msgspec.structs.replace(planned, routes=routes, reason=reason)


def given(submitted: TaskSubmitted, planned: Planned) -> TaskSubmitted:
    """Returns a task of an open plan with the plan that was made for it; any other as it is."""
    if not submitted.task.open_to:
        return submitted
    found = as_planned(submitted, planned.plan, planned.reason)
    return msgspec.structs.replace(found, panel_size=planned.of) if planned.plan == "panel" else found


def _known(route: Route, of: Route) -> Route:
    return msgspec.structs.replace(
        route,
        policy_version=of.policy_version,
        policy_of=of.policy_of,
        quality=of.quality if route.model == of.model else None,
        embedder=of.embedder,
        features=of.features,
        trial=of.trial,
    )
