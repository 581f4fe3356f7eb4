"""Whose the attempts of a cascade or a panel are: the first ones, and each that consensus asks for later. Pure.

A panel of ``auto`` asks unlike models, the cheapest first, and the same ones again where it has more members than there
are models; one that stands for a single answer (opening.py) begins with whoever would have given that, and goes on
without a member rather than ask a model twice. A named model is asked again and again. A cascade's attempt goes to the
rank that it was planned for; where nobody of that rank can be asked and a higher one is left, it fails at once, and
consensus climbs on. One rule: what was asked for is never answered by a dearer rank than was planned, so that its hold
covers it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import AttemptRef, AttemptRequested, Plan, Rank, Sampling, TaskRef, TaskSubmitted
from collegium_contracts.openplans import as_planned
from collegium_contracts.plans import AT_FIRST, RANKS_UP, SEVERAL, at_first, cascade_ranks
from collegium_contracts.state import ModelRecord

from collegium_router.choosing.opening import becomes, route_of, told
from collegium_router.choosing.plan import (
    AUTO,
    Busy,
    Fleet,
    Planned,
    Wait,
    attempt_of,
    bound,
    choose,
    eligible,
    make_plan,
    plan_again,
)
from collegium_router.limits.quota import Size
from collegium_router.roster.bases import upstream_of
from collegium_router.roster.fleet_models import Models

# A model that is asked twice with less than this says the same twice, which tells nothing.
SECOND_TEMPERATURE: Final = 0.7
_SEED_MAX: Final = 2**63 - 1


def decide(message: TaskSubmitted | AttemptRequested, fleet: Fleet) -> Planned | Wait | Busy | TaskError:
    """Returns what becomes of a message of INGRESS now: what is dispatched for it, or why nothing is."""
    if isinstance(message, TaskSubmitted):
        if message.task.plan in SEVERAL:
            return first_members(message, fleet)
        planned = make_plan(message, fleet)
        return widened(message, planned, fleet) if message.task.open_to else planned
    if message.error is None:
        return next_member(message, fleet)
    attempt = message.run.attempt
    if asks_once(message.run.task, attempt):
        if attempt.model not in fleet.models:
            return message.error
        # Any other model may have been asked already, or be asked yet.
        fleet = fleet._replace(models=Models([fleet.models[attempt.model]]))
    return plan_again(message, message.error, fleet)


def first_members(submitted: TaskSubmitted, fleet: Fleet) -> Planned | Wait | Busy | TaskError:
    """Returns the attempts that a plan of several begins with, or why there are none now or at all."""
    task = submitted.task
    candidates = eligible(task, submitted.prompt_bytes, fleet.models)
    if isinstance(candidates, TaskError):
        return candidates
    if task.plan == "cascade":
        return _first_step(submitted, candidates, fleet)
    ordered = _cheapest_first(task, candidates)
    if task.plan_reason:
        ordered = [candidates[0], *(model for model in ordered if model.name != candidates[0].name)]
    size = _size(fleet, submitted.prompt_bytes, submitted.sampling)
    models = _unlike(task, ordered, at_first(submitted.panel_size, task.tests), fleet, size)
    if isinstance(models, Wait | Busy):
        return models
    return _planned("panel", task, models, submitted.panel_size, fleet, size, alternatives=len(candidates) > 1)


def widened(
    submitted: TaskSubmitted, planned: Planned | Wait | Busy | TaskError, fleet: Fleet
) -> Planned | Wait | Busy | TaskError:
    """Returns what becomes of a task whose plan is open: what was planned for it as one attempt, or more than that.

    A panel has as many members as there are models at most: who is asked twice would outvote whoever knows better.
    """
    if not isinstance(planned, Planned) or (more := becomes(submitted, planned, fleet.novel_members)) is None:
        return planned
    candidates = eligible(submitted.task, submitted.prompt_bytes, fleet.models)
    count = len(candidates) if not isinstance(candidates, TaskError) else 0
    wider = msgspec.structs.replace(
        as_planned(submitted, more.plan, more.reason), panel_size=max(1, min(more.members, count))
    )
    several = first_members(wider, fleet) if count > 1 else planned
    if not isinstance(several, Planned) or (more.plan == "panel" and not _are_unlike(several)):
        return told(planned, "no_panel")
    return told(several, more.reason, planned.route)


def _are_unlike(planned: Planned) -> bool:
    return len({attempt.model for attempt in planned.attempts}) == len(planned.attempts) > 1


def asks_once(task: TaskRef, attempt: AttemptRef) -> bool:
    """Whether an attempt is a member of a panel that asks no model twice: one that its client did not choose."""
    return bool(task.plan_reason) and task.model == AUTO and attempt.plan == "panel" and not attempt.judges


def next_member(more: AttemptRequested, fleet: Fleet) -> Planned | Wait | Busy | TaskError:
    """Returns the attempt that consensus asked for, or why there is none now or at all."""
    run, wanted = more.run, more.run.attempt
    candidates = eligible(run.task, run.prompt_bytes, fleet.models)
    if isinstance(candidates, TaskError):
        return candidates
    if wanted.plan == "cascade":
        candidates = [model for model in candidates if model.rank == wanted.rank]
        if not candidates:
            text = f"task {run.task.id}: no enabled model of rank {wanted.rank} is left for attempt {wanted.number}"
            return TaskError(code="no_eligible_model", message=text)
    if wanted.judges and wanted.model:
        # The other order is for the same judge; where it can be asked no more, the panel goes on without it.
        candidates = [model for model in candidates if model.name == wanted.model]
        if not candidates:
            text = f"task {run.task.id}: judge {wanted.model} is left no more for attempt {wanted.number}"
            return TaskError(code="no_eligible_model", message=text)
    is_once = asks_once(run.task, wanted)
    if is_once:
        out = fleet.out_of(run.task.id)
        candidates = [one for one in candidates if one.name not in more.asked and upstream_of(one) not in out]
        if not candidates:
            text = f"task {run.task.id}: every model was asked already, none is left for attempt {wanted.number}"
            return TaskError(code="no_eligible_model", message=text)
    size = _size(fleet, run.prompt_bytes, run.sampling)
    # Judges are the best there are, members the cheapest.
    ordered = candidates if wanted.judges else _cheapest_first(run.task, candidates)
    chosen = _least_asked(run.task, ordered, more.asked, fleet, size)
    if isinstance(chosen, Wait) and (is_once or (wanted.plan == "cascade" and wanted.number < wanted.of)):
        who = "that was not asked" if is_once else f"of rank {wanted.rank}"
        text = f"task {run.task.id}: no model {who} can be asked now for attempt {wanted.number}; its plan goes on"
        return TaskError(code="circuit_open" if chosen.is_open else "model_quota_exceeded", message=text)
    if isinstance(chosen, Wait | Busy):
        return chosen
    attempt = attempt_of(chosen, wanted.number, wanted.of, wanted.plan, run.task.pool)
    if wanted.judges:
        attempt = msgspec.structs.replace(attempt, judges=True)
    return Planned(
        wanted.plan,
        (attempt,),
        alternatives=len(candidates) > 1,
        tokens=(bound(chosen, size),),
        of=wanted.of,
        route=route_of(run.task, attempt),
    )


def sampling_of(sampling: Sampling, number: int, plan: Plan) -> Sampling:
    """Returns how an attempt of a plan of several is asked: later ones with seeds of their own, none streamed.

    The second attempt of a cascade is there to be compared with the first, so it is never asked as coldly.
    """
    changed = msgspec.structs.replace(sampling, stream=False)
    if number > 1 and sampling.seed is not None:
        step = number - 1
        seed = sampling.seed + step if sampling.seed <= _SEED_MAX - step else sampling.seed - step
        changed = msgspec.structs.replace(changed, seed=seed)
    is_compared = plan == "cascade" and number == AT_FIRST
    if is_compared and sampling.temperature is not None and sampling.temperature < SECOND_TEMPERATURE:
        changed = msgspec.structs.replace(changed, temperature=SECOND_TEMPERATURE)
    return changed


def _first_step(submitted: TaskSubmitted, candidates: Sequence[ModelRecord], fleet: Fleet) -> Planned | Wait | Busy:
    """The weakest rank that can be asked now begins; where none can, all of them are waited for."""
    task, waits = submitted.task, list[Wait]()
    size = _size(fleet, submitted.prompt_bytes, submitted.sampling)
    by_rank = {rank: [model for model in candidates if model.rank == rank] for rank in RANKS_UP}
    for first, rank in enumerate(RANKS_UP):
        if not by_rank[rank]:
            continue
        models = _unlike(task, by_rank[rank], at_first(AT_FIRST, task.tests), fleet, size)
        if isinstance(models, Busy):
            return models
        if isinstance(models, Wait):
            waits.append(models)
            continue
        climb = cascade_ranks(one for one in RANKS_UP[first:] if by_rank[one])
        alternatives = len(by_rank[rank]) > 1
        return _planned("cascade", task, models, len(climb), fleet, size, alternatives=alternatives, ranks=climb)
    return min(waits, key=lambda wait: wait.until_ms)


def _planned(
    plan: Plan,
    task: TaskRef,
    models: Sequence[ModelRecord],
    of: int,
    fleet: Fleet,
    size: Size | None,
    *,
    alternatives: bool,
    ranks: tuple[Rank, ...] = (),
) -> Planned:
    attempts = tuple(attempt_of(model, number, of, plan, task.pool) for number, model in enumerate(models, 1))
    tokens = tuple(bound(model, size) for model in models)
    routes = tuple(route for route in (route_of(task, attempt) for attempt in attempts) if route is not None)
    return Planned(
        plan,
        attempts,
        alternatives=alternatives,
        tokens=tokens,
        of=of,
        ranks=ranks,
        routes=routes,
        reason=task.plan_reason,
    )


def _unlike(
    task: TaskRef, candidates: Sequence[ModelRecord], count: int, fleet: Fleet, size: Size | None
) -> list[ModelRecord] | Wait | Busy:
    """Chooses models for attempts that go together: unlike ones as far as there are any.

    They go once the first has a permit, so the others may pass a limit by as many as they are.
    """
    if size is not None and (task.model != AUTO or len(candidates) == 1):
        size = size._replace(attempts=count)
    chosen: list[ModelRecord] = []
    for _ in range(count):
        found = _least_asked(task, candidates, [model.name for model in chosen], fleet, size)
        if isinstance(found, ModelRecord):
            chosen.append(found)
        elif chosen:
            chosen.append(chosen[0])
        else:
            return found
    return chosen


def _least_asked(
    task: TaskRef, candidates: Sequence[ModelRecord], asked: Sequence[str], fleet: Fleet, size: Size | None
) -> ModelRecord | Wait | Busy:
    """Chooses one model: of ``auto`` among those that the plan asked least, in the candidates' order."""
    if task.model != AUTO:
        return choose(task, candidates, fleet, size)
    times, waits = Counter(asked), list[Wait]()
    for count in sorted({times[model.name] for model in candidates}):
        found = choose(task, [model for model in candidates if times[model.name] == count], fleet, size)
        if not isinstance(found, Wait):
            return found
        waits.append(found)
    return min(waits, key=lambda wait: wait.until_ms)


def _cheapest_first(task: TaskRef, candidates: Sequence[ModelRecord]) -> Sequence[ModelRecord]:
    if task.model != AUTO:
        return candidates
    return sorted(
        candidates,
        key=lambda model: (
            model.price.input_picos + model.price.output_picos,
            RANKS_UP.index(model.rank),
            model.name,
        ),
    )


def _size(fleet: Fleet, prompt_bytes: int, sampling: Sampling) -> Size | None:
    return Size(prompt_bytes, sampling.max_tokens, sampling.n) if fleet.quotas is not None else None
