"""Which model answers a task, and its next tries. Pure; the members of larger plans are chosen by members.py.

``auto`` without a policy: the highest rank that is enabled, healthy and allowed for the domain, ties by price, then by
least outstanding work, then by name. A named model is never swapped, except for its own fallbacks, in their order,
while its circuit breaker is open, its quota is used up, or after it failed. One rule: a plan is a value; making it
changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import AttemptRef, AttemptRequested, Plan, Rank, TaskRef, TaskSubmitted
from collegium_contracts.state import ModelRecord

from collegium_router.quota import Quotas, Size, tokens_of

AUTO = "auto"
# Calls of one attempt, the first included: three more chances are what a passing fault needs.
MAX_CALLS = 4
# Failures of one model before another that could answer is preferred.
FAILURES_BEFORE_ANOTHER = 2
# What no other try on the same model can mend, and after what else another model is asked at once.
ELSEWHERE = frozenset(("upstream_auth", "endpoint_not_configured"))
GIVES_WAY = ELSEWHERE | {"upstream_rate_limited", "circuit_open"}
_RANK_ORDER = {"teacher": 0, "ta": 1, "student": 2}
# A token is at least this many bytes of ordinary text on average; a prompt that is too long even so cannot fit.
_BYTES_PER_TOKEN_AT_MOST = 6


class Planned(msgspec.Struct, frozen=True):
    """The attempts of a task that are made now, in order, and their plan; ``alternatives``: other models could answer.

    ``tokens`` is what each attempt may use of its model's quota, 0 where the model has none. Of a plan of several,
    ``of`` is how many attempts it may make, and ``ranks`` whose each of a cascade's is.
    """

    plan: Plan
    attempts: tuple[AttemptRef, ...]
    alternatives: bool = False
    tokens: tuple[int, ...] = (0,)
    of: int = 1
    ranks: tuple[Rank, ...] = ()


class Wait(msgspec.Struct, frozen=True):
    """Nothing can answer before this time (Unix ms): a try has to wait, or no model concerned may be asked.

    ``is_open``: a breaker is what ends first; ``is_full``: a quota is.
    """

    until_ms: int
    is_open: bool = False
    is_full: bool = False


class Busy(msgspec.Struct, frozen=True):
    """Whatever could answer has no permit free."""


class Fleet(NamedTuple):
    """The models as they are now: the roster, attempts dispatched and not ended, open breakers, and who has room.

    ``quotas`` is none where no model is limited.
    """

    models: Mapping[str, ModelRecord]
    outstanding: Mapping[str, int]
    open_until_ms: Mapping[str, int]
    has_room: Callable[[ModelRecord, str], bool]
    now_ms: int
    quotas: Quotas | None = None


def make_plan(submitted: TaskSubmitted, fleet: Fleet) -> Planned | Wait | Busy | TaskError:
    """Returns the plan of a task of one attempt, or why there is none now or at all."""
    candidates = eligible(submitted.task, submitted.prompt_bytes, fleet.models)
    if isinstance(candidates, TaskError):
        return candidates
    size: Size | None = None
    if fleet.quotas is not None:
        sampling = submitted.sampling
        size = Size(submitted.prompt_bytes, sampling.max_tokens, sampling.n)
    chosen = choose(submitted.task, candidates, fleet, size)
    if not isinstance(chosen, ModelRecord):
        return chosen
    attempts = (attempt_of(chosen, 1, 1, "single", submitted.task.pool),)
    return Planned("single", attempts, alternatives=len(candidates) > 1, tokens=(bound(chosen, size),))


def plan_again(more: AttemptRequested, error: TaskError, fleet: Fleet) -> Planned | Wait | Busy | TaskError:
    """Returns the next try of an attempt that failed with an error, or that error where no model is left.

    A model that was turned away, refuses its key, or failed twice gives way to the next one that could answer (a
    cascade's to one of its rank); a try that goes to the same model waits for ``not_before_ms``.
    """
    run = more.run
    candidates = eligible(run.task, run.prompt_bytes, fleet.models)
    if isinstance(candidates, TaskError):
        return candidates
    if run.attempt.plan == "cascade":
        candidates = [model for model in candidates if model.rank == run.attempt.rank]
        if not candidates:
            return error
    failures = Counter(call.model for call in run.earlier)
    same = run.attempt.model
    size: Size | None = None
    if fleet.quotas is not None:
        size = Size(run.prompt_bytes, run.sampling.max_tokens, run.sampling.n)
    is_open = fleet.open_until_ms.get(same, 0) > fleet.now_ms
    is_full = same in fleet.models and _blocked_until_ms(fleet.models[same], fleet, size) > fleet.now_ms
    if error.code in GIVES_WAY or is_open or is_full or failures[same] >= FAILURES_BEFORE_ANOTHER:
        others = [model for model in candidates if model.name != same]
        fresh = [model for model in others if failures[model.name] < FAILURES_BEFORE_ANOTHER]
        chosen = choose(run.task, fresh, fleet, size) if fresh else None
        if isinstance(chosen, ModelRecord | Busy):
            return _another(more, chosen, size)
    if error.code in ELSEWHERE:
        return error
    if fleet.now_ms < more.not_before_ms:
        return Wait(more.not_before_ms)
    own = [model for model in candidates if model.name == same] or candidates
    chosen = choose(run.task, own, fleet, size)
    return _another(more, chosen, size) if isinstance(chosen, ModelRecord) else chosen


def _another(more: AttemptRequested, chosen: ModelRecord | Busy, size: Size | None) -> Planned | Busy:
    if isinstance(chosen, Busy):
        return chosen
    attempt = more.run.attempt
    again = attempt_of(chosen, attempt.number, attempt.of, attempt.plan, more.run.task.pool)
    return Planned(attempt.plan, (again,), alternatives=more.run.alternatives, tokens=(bound(chosen, size),))


def eligible(task: TaskRef, prompt_bytes: int, models: Mapping[str, ModelRecord]) -> list[ModelRecord] | TaskError:
    """Returns the models that may answer and that the key may ask: best first for ``auto``, the named one and its
    fallbacks otherwise."""
    if task.model != AUTO:
        named = models.get(task.model)
        if named is None or not named.enabled or named.kind != task.kind:
            return TaskError(
                code="unknown_model",
                message=f"model {task.model!r} is not in the roster; see GET /v1/models",
                param="model",
            )
        others = (models.get(name) for name in named.fallbacks)
        candidates = [
            named,
            *(other for other in others if other is not None and other.enabled and other.kind == task.kind),
        ]
    else:
        candidates = [
            model
            for model in models.values()
            if model.enabled and model.kind == task.kind and (not model.domains or task.domain in model.domains)
        ]
        if not candidates:
            return TaskError(code="no_eligible_model", message=f"no enabled model serves domain {task.domain!r}")
        candidates.sort(key=_merit)
    if task.models:
        candidates = [model for model in candidates if model.name in task.models]
        if not candidates:
            message = f"key {task.key_id} may not ask model {task.model!r}; it may ask: {', '.join(task.models)}"
            return TaskError(code="model_not_allowed", message=message, param="model")
    fitting = [model for model in candidates if fits(prompt_bytes, model)]
    if not fitting:
        return TaskError(
            code="context_length_exceeded",
            message=f"a prompt of {prompt_bytes} bytes is longer than any eligible model's context",
            param="messages",
        )
    return fitting


def choose(
    task: TaskRef, candidates: Sequence[ModelRecord], fleet: Fleet, size: Size | None
) -> ModelRecord | Wait | Busy:
    """Chooses among candidates in their order: the first that may be asked, or for ``auto`` the freest of equal merit.

    ``size`` is none where no model is limited.
    """
    healthy = [model for model in candidates if fleet.open_until_ms.get(model.name, 0) <= fleet.now_ms]
    if size is not None:
        healthy = [model for model in healthy if not (model.is_limited and _is_full(model, fleet, size))]
    if not healthy:
        until_ms, first = min((_blocked_until_ms(model, fleet, size), model.name) for model in candidates)
        is_open = fleet.open_until_ms.get(first, 0) >= until_ms
        return Wait(until_ms, is_open=is_open, is_full=not is_open)
    best = healthy[0]
    equals = [model for model in healthy if _merit(model)[:2] == _merit(best)[:2]] if task.model == AUTO else [best]
    roomy = [model for model in equals if fleet.has_room(model, task.pool)]
    if size is not None:
        roomy = [model for model in roomy if not model.is_limited or _has_quota(model, fleet, size)]
    if not roomy:
        return Busy()
    return min(roomy, key=lambda model: (fleet.outstanding.get(model.name, 0), model.name))


def _blocked_until_ms(model: ModelRecord, fleet: Fleet, size: Size | None) -> int:
    """When a model may be asked (Unix ms; at most now: now): its breaker lets calls through and its quota has place."""
    open_ms = fleet.open_until_ms.get(model.name, 0)
    if size is None or fleet.quotas is None:
        return open_ms
    return max(open_ms, fleet.quotas.full_until_ms(model, size, fleet.now_ms))


def _is_full(model: ModelRecord, fleet: Fleet, size: Size) -> bool:
    return fleet.quotas is not None and fleet.quotas.full_until_ms(model, size, fleet.now_ms) > fleet.now_ms


def _has_quota(model: ModelRecord, fleet: Fleet, size: Size) -> bool:
    return fleet.quotas is None or fleet.quotas.has_room(model, size, fleet.now_ms)


def bound(model: ModelRecord, size: Size | None) -> int:
    """Returns what an attempt may use of a model's quota, 0 where it has none."""
    return tokens_of(model, size) if size is not None and model.is_limited else 0


def _merit(model: ModelRecord) -> tuple[int, int, str]:
    return _RANK_ORDER[model.rank], model.price.input_picos + model.price.output_picos, model.name


def attempt_of(model: ModelRecord, number: int, of: int, plan: Plan, pool: str = "") -> AttemptRef:
    """Returns an attempt by a model, with the model's prices of now, in its tenant's own pool where it has one."""
    return AttemptRef(
        number=number,
        of=of,
        model=model.name,
        rank=model.rank,
        pool=pool or model.pool,
        price=model.price,
        charge=model.charge,
        plan=plan,
        price_version=model.price_version,
    )


def fits(prompt_bytes: int, model: ModelRecord) -> bool:
    """Whether a prompt may fit a model's context; when in doubt it may, and the endpoint decides.

    An embedder's context is that of each text, and it cuts what is longer.
    """
    return model.kind == "embedding" or prompt_bytes // _BYTES_PER_TOKEN_AT_MOST < model.context_tokens


def max_tokens(requested: int | None, model: ModelRecord) -> int:
    """Returns the bound that is always sent upstream: the request's, at most the model's own limit."""
    return model.max_output_tokens if requested is None else min(requested, model.max_output_tokens)
