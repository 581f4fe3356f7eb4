"""Whose the attempts of a cascade or a panel are: the first ones, and each that consensus asks for later. Pure.

A panel of ``auto`` asks unlike models, the cheapest first, and the same ones again where it has more members than there
are models; a named model is asked again and again. A cascade's attempt goes to the rank that it was planned for; where
nobody of that rank can be asked and a higher one is left, it fails at once, and consensus climbs on. One rule: what was
asked for is never answered by a dearer rank than was planned, so that its hold covers it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import AttemptRequested, Plan, Rank, Sampling, TaskRef, TaskSubmitted
from collegium_contracts.plans import AT_FIRST, RANKS_UP, SEVERAL, at_first, cascade_ranks
from collegium_contracts.state import ModelRecord

from collegium_router.plan import (
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
from collegium_router.quota import Size

# A model that is asked twice with less than this says the same twice, which tells nothing.
SECOND_TEMPERATURE: Final = 0.7
_SEED_MAX: Final = 2**63 - 1


def decide(message: TaskSubmitted | AttemptRequested, fleet: Fleet) -> Planned | Wait | Busy | TaskError:
    """Returns what becomes of a message of INGRESS now: what is dispatched for it, or why nothing is."""
    if isinstance(message, TaskSubmitted):
        return first_members(message, fleet) if message.task.plan in SEVERAL else make_plan(message, fleet)
    if message.error is None:
        return next_member(message, fleet)
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
    size = _size(fleet, submitted.prompt_bytes, submitted.sampling)
    models = _unlike(task, ordered, at_first(submitted.panel_size), fleet, size)
    if isinstance(models, Wait | Busy):
        return models
    return _planned("panel", task, models, submitted.panel_size, fleet, size, alternatives=len(candidates) > 1)


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
    size = _size(fleet, run.prompt_bytes, run.sampling)
    chosen = _least_asked(run.task, _cheapest_first(run.task, candidates), more.asked, fleet, size)
    if isinstance(chosen, Wait) and wanted.plan == "cascade" and wanted.number < wanted.of:
        text = f"task {run.task.id}: no model of rank {wanted.rank} can be asked now; the next rank is"
        return TaskError(code="circuit_open" if chosen.is_open else "model_quota_exceeded", message=text)
    if isinstance(chosen, Wait | Busy):
        return chosen
    attempt = attempt_of(chosen, wanted.number, wanted.of, wanted.plan, run.task.pool)
    alternatives = len(candidates) > 1
    return Planned(wanted.plan, (attempt,), alternatives=alternatives, tokens=(bound(chosen, size),), of=wanted.of)


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
        models = _unlike(task, by_rank[rank], AT_FIRST, fleet, size)
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
    return Planned(plan, attempts, alternatives=alternatives, tokens=tokens, of=of, ranks=ranks)


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
