"""Whether a request leaves its plan to the router, and to which plans. Pure.

A client that names no plan gets one attempt, unless its tenant's novel questions are for several models, or an
experiment or a flag gives some of its tasks to several: then what it asks may become such a plan, and is held for as
the dearest of them. Which questions are novel only the router knows. One rule: what is open is what a client could have
asked for itself: no stream that would wait for a verdict, nothing that would cost more than the client allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from collegium_contracts.messages import TaskRef, TaskSubmitted
from collegium_contracts.openplans import opened
from collegium_contracts.parts import Plan
from collegium_contracts.state import ModelRecord
from collegium_contracts.worstcase import worst_picos
from collegium_settings.routing import RoutingSettings

from collegium_gateway.admission.admission import AUTO, Asked, is_open_to
from collegium_gateway.identity.principal import Principal

Tried = Callable[[TaskRef], tuple[list[Plan], int]]
NOTHING_TRIED: Tried = lambda _task: ([], 0)  # noqa: E731 - a default


def with_open_plan(
    submitted: TaskSubmitted,
    asked: Asked,
    principal: Principal,
    routing: RoutingSettings,
    models: Sequence[ModelRecord],
    tried: Tried = NOTHING_TRIED,
) -> TaskSubmitted:
    """Returns a task with the plans that the router may give it; the task as it is where there are none.

    ``tried`` returns the plans that are tried on such tasks, and how many members a panel of theirs has.
    """
    novel, (others, members) = routing.novel_of(principal.tenant), tried(submitted.task)
    if (novel == "single" and not others) or not _may_vary(submitted, asked):
        return submitted
    plans: list[Plan] = [novel, *(plan for plan in others if plan != novel)]
    members = max(members, routing.novel_members if novel == "panel" else 0)
    found = opened(submitted, plans, members or submitted.panel_size)
    most = submitted.task.cost_max_picos
    if most and worst_picos(found, [model for model in models if is_open_to(model, principal)]) > most:
        return submitted
    return found


def _may_vary(submitted: TaskSubmitted, asked: Asked) -> bool:
    """Whether several models may answer a request in the place of one: their answers can be compared as a whole."""
    task, sampling = submitted.task, submitted.sampling
    return (
        task.model == AUTO
        and asked.options.plan == AUTO
        and task.plan == "single"
        and task.kind == "chat"
        and task.people is None
        and not asked.streamed
        and sampling.n == 1
        and asked.sampling.tools is None
    )
