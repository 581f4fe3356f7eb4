"""Which model answers a task, and its next tries. Pure; the members of larger plans are chosen by members.py.

``auto`` goes by its tenant's policy (policies.py); without one: the highest rank that is enabled, healthy and allowed
for the domain, ties by price, then by least outstanding work, then by name. A named model is never swapped, except for
its own fallbacks, in their order, while its circuit breaker is open, its quota is used up, or after it failed. One
rule: a plan is a value; making it changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.experiments import TriedPlan
from collegium_contracts.messages import AttemptRef, AttemptRequested, Plan, Rank, TaskRef, TaskSubmitted
from collegium_contracts.money import picos_to_usd
from collegium_contracts.parts import Probe
from collegium_contracts.plans import SEVERAL
from collegium_contracts.ranks import as_ranked
from collegium_contracts.routing import Route
from collegium_contracts.state import ModelRecord
from collegium_contracts.students import may_ask, serves_unasked
from collegium_contracts.worstcase import Asked, affordable

from collegium_router.limits.quota import Quotas, Size, tokens_of
from collegium_router.roster.bases import upstream_of
from collegium_router.roster.fleet_models import Models

AUTO = "auto"
# Calls of one attempt, the first included: three more chances are what a passing fault needs.
MAX_CALLS = 4
# Failures of one model before another that could answer is preferred.
FAILURES_BEFORE_ANOTHER = 2
# What no other try on the same model can mend, and after what else another model is asked at once.
ELSEWHERE = frozenset(("upstream_auth", "endpoint_not_configured", "head_unsure"))
GIVES_WAY = ELSEWHERE | {"upstream_rate_limited", "circuit_open", "head_unavailable"}
_RANK_ORDER = {"teacher": 0, "ta": 1, "student": 2}
# A token is at least this many bytes of ordinary text on average; a prompt that is too long even so cannot fit.
_BYTES_PER_TOKEN_AT_MOST = 6


class Wider(NamedTuple):
    """What an open plan of one attempt may become beside a question's being novel: ``plan`` (empty: nothing else), a
    panel of ``members`` at most."""

    plan: TriedPlan = ""
    members: int = 0


class Planned(msgspec.Struct, frozen=True):
    """The attempts of a task that are made now, in order, and their plan; ``alternatives``: other models could answer.

    ``tokens`` is what each attempt may use of its model's quota, 0 where the model has none. Of a plan of several,
    ``of`` is how many attempts it may make, ``ranks`` whose each of a cascade's is, and ``routes`` (empty: the client
    named the model) why each of these models. ``route`` (none: the client named it, or there are several) says why its
    model. ``reason`` is the code of why the plan, where the client left it open. ``instruction`` is told first,
    ``other`` asks the other arm of an experiment too. ``wider`` (none: it stays alone) is for a plan that is open.
    """

    plan: Plan
    attempts: tuple[AttemptRef, ...]
    alternatives: bool = False
    tokens: tuple[int, ...] = (0,)
    of: int = 1
    ranks: tuple[Rank, ...] = ()
    routes: tuple[Route, ...] = ()
    reason: str = ""
    route: Route | None = None
    instruction: Envelope | None = None
    instruction_bytes: int = 0
    other: Probe | None = None
    wider: Wider | None = Wider()


class Wait(msgspec.Struct, frozen=True):
    """Nothing can answer before this time (Unix ms): a try has to wait, or no model concerned may be asked.

    ``is_open``: a breaker is what ends first; ``is_full``: a quota is.
    """

    until_ms: int
    is_open: bool = False
    is_full: bool = False


class Busy(msgspec.Struct, frozen=True):
    """Whatever could answer has no permit free."""


Ordering = Callable[[TaskSubmitted, Sequence[ModelRecord]], tuple[Sequence[ModelRecord], Route]]


class Tried(NamedTuple):
    """Who is asked for a task that is part of an experiment or a flag, why, and what is told first.

    ``is_ordered``: none of the models is of equal merit. ``other`` asks what the other arm would have answered.
    """

    models: Sequence[ModelRecord]
    route: Route
    is_ordered: bool
    instruction: Envelope | None = None
    instruction_bytes: int = 0
    other: Probe | None = None
    wider: Wider | None = None


Trying = Callable[[TaskSubmitted, Sequence[ModelRecord]], Tried | None]


class Fleet(NamedTuple):
    """The models as they are now: the roster, attempts dispatched and not ended, open breakers, and who has room.

    ``quotas`` is none where no model is limited. ``route`` orders those that may answer a task of ``auto`` and says why
    the first one is first; without it they stand by merit. ``trial`` (none: nothing runs) says what experiments and
    flags make of a task. A panel of a novel question has ``novel_members`` at most; ``out_of`` says under whose names
    (``upstream_of``) attempts of a task are out.
    """

    models: Models
    outstanding: Mapping[str, int]
    open_until_ms: Mapping[str, int]
    has_room: Callable[[ModelRecord, str], bool]
    now_ms: int
    quotas: Quotas | None = None
    route: Ordering | None = None
    trial: Trying | None = None
    novel_members: int = 9
    out_of: Callable[[str], Collection[str]] = lambda _task: ()


def make_plan(submitted: TaskSubmitted, fleet: Fleet) -> Planned | Wait | Busy | TaskError:
    """Returns the plan of a task of one attempt, or why there is none now or at all."""
    able = eligible(submitted.task, submitted.prompt_bytes, fleet.models)
    if isinstance(able, TaskError):
        return able
    candidates = within_budget(submitted, able)
    if isinstance(candidates, TaskError):
        return candidates
    is_tight = len(candidates) < len(able)
    sampling = submitted.sampling
    size = Size(submitted.prompt_bytes, sampling.max_tokens, sampling.n) if fleet.quotas is not None else None
    route: Route | None = None
    tried = fleet.trial(submitted, candidates) if fleet.trial is not None else None
    if tried is not None:
        candidates, route = tried.models, tried.route
    elif fleet.route is not None and submitted.task.model == AUTO:
        candidates, route = fleet.route(submitted, candidates)
    if route is not None and is_tight:
        route = msgspec.structs.replace(route, reasons=[*route.reasons, "budget"])
    is_ordered = tried.is_ordered if tried is not None else route is not None and route.policy_version > 0
    chosen = choose(submitted.task, candidates, fleet, size, is_ordered=is_ordered)
    if not isinstance(chosen, ModelRecord):
        return chosen
    attempts = (attempt_of(chosen, 1, 1, "single", submitted.task.pool),)
    why = routed(route, chosen, "not_available") if route is not None else None
    planned = Planned("single", attempts, alternatives=len(candidates) > 1, tokens=(bound(chosen, size),), route=why)
    if tried is None:
        return planned
    return msgspec.structs.replace(
        planned,
        instruction=tried.instruction,
        instruction_bytes=tried.instruction_bytes,
        other=tried.other,
        wider=tried.wider,
    )


def plan_again(more: AttemptRequested, error: TaskError, fleet: Fleet) -> Planned | Wait | Busy | TaskError:
    """Returns the next try of an attempt that failed with an error, or that error where no model is left.

    A model that was turned away, refuses its key, or failed twice gives way to the next one that could answer (a
    cascade's to one of its rank); a try that goes to the same model waits for ``not_before_ms``.
    """
    run = more.run
    candidates = eligible(run.task, run.prompt_bytes, fleet.models)
    if isinstance(candidates, TaskError):
        return candidates
    if run.attempt.plan not in SEVERAL:
        candidates = within_budget(run, candidates)
        if isinstance(candidates, TaskError):
            return error
    if run.attempt.plan == "cascade":
        candidates = [model for model in candidates if model.rank == run.attempt.rank]
        if not candidates:
            return error
    failures = Counter(call.model for call in run.earlier)
    same = run.attempt.model
    limits = fleet.quotas
    size = Size(run.prompt_bytes, run.sampling.max_tokens, run.sampling.n) if limits is not None else None
    is_open = same in fleet.models and _open_until_ms(fleet.models[same], fleet) > fleet.now_ms
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
    if attempt.judges:
        again = msgspec.structs.replace(again, judges=True)
    why = routed(more.run.route, chosen, "another_try") if more.run.route is not None else None
    tokens = (bound(chosen, size),)
    return Planned(attempt.plan, (again,), alternatives=more.run.alternatives, tokens=tokens, route=why)


def routed(route: Route, chosen: ModelRecord, reason: str) -> Route:
    """Returns why a model was chosen where a route had preferred one: for another one, with the reason of that.

    Without a policy the first of equal merit was told, and any of them is as good.
    """
    if chosen.name == route.model:
        return route
    told = [] if route.policy_version == 0 and reason == "not_available" else [reason]
    return msgspec.structs.replace(
        route,
        model=chosen.name,
        rank=chosen.rank,
        propensity=0.0 if route.policy_version else 1.0,
        explored=False,
        quality=None,
        gain=None,
        reasons=[*told, *route.reasons],
    )


def eligible(task: TaskRef, prompt_bytes: int, models: Models) -> list[ModelRecord] | TaskError:
    """Returns the models that may answer and that the key may ask: best first for ``auto``, the named one and its
    fallbacks otherwise."""
    if task.model != AUTO:
        named = models.get(task.model)
        if named is None or not named.enabled or named.kind != task.kind or not may_ask(named.student, task.tenant):
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
        candidates = [
            as_ranked(model, task.tenant, task.domain)
            for model in candidates
            if not model.drained and may_ask(model.student, task.tenant)
        ]
        if not candidates:
            text = f"model {task.model!r} is drained, and no fallback of it may answer"
            return TaskError(code="no_eligible_model", message=text, param="model")
    else:
        candidates = [
            model
            for model in models.offered(task.tenant)
            if model.enabled
            and not model.drained
            and model.kind == task.kind
            and (not model.domains or task.domain in model.domains)
        ]
        if not candidates:
            return TaskError(code="no_eligible_model", message=f"no enabled model serves domain {task.domain!r}")
        candidates = [
            model
            for model in (as_ranked(one, task.tenant, task.domain) for one in candidates)
            if model.student is None or serves_unasked(model.student, model.rank)
        ]
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


def within_budget(asked: Asked, candidates: list[ModelRecord]) -> list[ModelRecord] | TaskError:
    """Returns those that surely charge no more than a task may cost, or why there is none."""
    task = asked.task
    if not task.cost_max_picos:
        return candidates
    found = affordable(asked, candidates)
    if found:
        return found
    text = f"no model that may answer task {task.id} surely costs at most {picos_to_usd(task.cost_max_picos)} USD"
    return TaskError(code="budget_too_small", message=text, param="budget_usd_max")


def choose(
    task: TaskRef,
    candidates: Sequence[ModelRecord],
    fleet: Fleet,
    size: Size | None,
    *,
    is_ordered: bool = False,
) -> ModelRecord | Wait | Busy:
    """Chooses among candidates in their order: the first that may be asked, or for ``auto`` the freest of equal merit.

    ``size`` is none where no model is limited. ``is_ordered``: none is of equal merit, a policy ordered them.
    """
    healthy = [model for model in candidates if _open_until_ms(model, fleet) <= fleet.now_ms]
    if size is not None:
        healthy = [model for model in healthy if not (model.is_limited and _is_full(model, fleet, size))]
    if not healthy:
        first = min(candidates, key=lambda model: (_blocked_until_ms(model, fleet, size), model.name))
        until_ms = _blocked_until_ms(first, fleet, size)
        is_open = _open_until_ms(first, fleet) >= until_ms
        return Wait(until_ms, is_open=is_open, is_full=not is_open)
    best = healthy[0]
    equals = [best]
    if task.model == AUTO and not is_ordered:
        equals = [model for model in healthy if _merit(model)[:2] == _merit(best)[:2]]
    roomy = [model for model in equals if fleet.has_room(model, task.pool)]
    if size is not None:
        roomy = [model for model in roomy if not model.is_limited or _has_quota(model, fleet, size)]
    if not roomy:
        return Busy()
    return min(roomy, key=lambda model: (fleet.outstanding.get(upstream_of(model), 0), model.name))


def _open_until_ms(model: ModelRecord, fleet: Fleet) -> int:
    return fleet.open_until_ms.get(upstream_of(model), 0) if fleet.open_until_ms else 0


def _blocked_until_ms(model: ModelRecord, fleet: Fleet, size: Size | None) -> int:
    """When a model may be asked (Unix ms; at most now: now): its breaker lets calls through and its quota has place."""
    open_ms = _open_until_ms(model, fleet)
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
