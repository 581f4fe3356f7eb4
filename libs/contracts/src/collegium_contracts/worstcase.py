"""The most that a task may be charged, known before it runs. Pure.

The prompt is bounded by its bytes (no tokenizer makes more tokens than bytes) and a fixed part a message for what the
chat template adds; the answer by ``max_tokens``, which is always sent upstream; both by the model's context. One rule:
an endpoint that keeps to what it was told never costs more than this.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from collegium_contracts.domains import any_topic
from collegium_contracts.memory_requests import NOTE_BYTES_MAX
from collegium_contracts.messages import TaskSubmitted
from collegium_contracts.money import Price
from collegium_contracts.openplans import as_planned
from collegium_contracts.parts import Rank, Sampling, TaskRef
from collegium_contracts.people import People
from collegium_contracts.plans import JUDGE_ATTEMPTS, JUDGE_PROMPT_BYTES, JUDGE_TOKENS, RANKS_UP, SEVERAL, cascade_ranks
from collegium_contracts.priceversions import charges_until
from collegium_contracts.ranks import as_ranked
from collegium_contracts.state import ModelRecord
from collegium_contracts.wording import words_bytes

# What a chat template adds to a prompt: role marks and separators, of at most some hundred messages.
TEMPLATE_TOKENS = 512
# A task is settled at its deadline or shortly after; a worker that died is replaced within half a minute.
GRACE_MS = 120_000
_BYTES_PER_TOKEN = 4
# Below what a token of most texts has: a prompt student's context is its base's, less what its examples take by this.
SHOWN_BYTES_PER_TOKEN = 3


class Asked(Protocol):
    """What is asked of a model: a task that was submitted, or an attempt of it."""

    @property
    def task(self) -> TaskRef:
        """Whose task it is, and what it wants."""
        ...

    @property
    def sampling(self) -> Sampling:
        """How long its answer may be."""
        ...

    @property
    def prompt_bytes(self) -> int:
        """How long its prompt is."""
        ...


def candidates(submitted: TaskSubmitted, models: Iterable[ModelRecord]) -> list[ModelRecord]:
    """Returns the models that may answer a task: the named one and its fallbacks, or for ``auto`` all of its domain."""
    task = submitted.task
    by_name = {
        model.name: as_ranked(model, task.tenant, task.domain)
        for model in models
        if model.enabled and model.kind == task.kind and (not task.models or model.name in task.models)
    }
    if task.model == "auto":
        # A task that names no domain may be found to be of one that was discovered.
        able = [
            one
            for one in by_name.values()
            if not one.domains or task.domain in one.domains or (not task.domain and any_topic(one.domains))
        ]
    elif (named := by_name.get(task.model)) is not None:
        able = [named, *(by_name[name] for name in named.fallbacks if name in by_name)]
    else:
        return []
    return able if task.plan in SEVERAL else affordable(submitted, able)


def affordable(asked: Asked, models: Iterable[ModelRecord]) -> list[ModelRecord]:
    """Returns the models of which one attempt surely charges no more than the task may cost, beside the person whom it
    may ask; all where it says nothing."""
    most = asked.task.cost_max_picos
    if not most:
        return list(models)
    left = most - _person_picos(asked.task.people)
    return [model for model in models if _attempt_picos(asked, model) <= left]


def worst_picos(submitted: TaskSubmitted, models: Iterable[ModelRecord]) -> int:
    """Returns the most (pico-dollars) that any of the models that may answer would charge for the whole plan.

    Of a plan that is open: for the dearest that it may become.
    """
    if not submitted.task.open_to:
        return _plan_picos(submitted, models)
    known = list(models)
    return max(_plan_picos(as_planned(submitted, plan), known) for plan in ("single", *submitted.task.open_to))


def least_picos(submitted: TaskSubmitted, models: Iterable[ModelRecord]) -> int:
    """Returns the most that a task whose plan is open would be charged as a plan of one; 0 where it is not open."""
    return worst_picos(as_planned(submitted, "single"), models) if submitted.task.open_to else 0


def _plan_picos(submitted: TaskSubmitted, models: Iterable[ModelRecord]) -> int:
    if submitted.task.probe is not None and submitted.task.probe.account == "operator":
        return 0
    person = _person_picos(submitted.task.people)
    if submitted.task.plan == "cascade":
        return person + _cascade_picos(submitted, candidates(submitted, models))
    attempts = submitted.panel_size if submitted.task.plan == "panel" else 1
    able = candidates(submitted, models)
    picos = person + attempts * max((_attempt_picos(submitted, model) for model in able), default=0)
    return picos if submitted.judge is None else picos + _judges_picos(submitted, able)


def _judges_picos(submitted: TaskSubmitted, models: Iterable[ModelRecord]) -> int:
    """What judges may cost at most: they are shown so much, and write so little, whatever was asked."""
    judging = msgspec.structs.replace(
        submitted,
        task=msgspec.structs.replace(submitted.task, conversation="", memory=""),
        sampling=Sampling(max_tokens=JUDGE_TOKENS),
        prompt_bytes=JUDGE_PROMPT_BYTES,
    )
    return JUDGE_ATTEMPTS * max((_attempt_picos(judging, model) for model in models), default=0)


def worst_cost_picos(submitted: TaskSubmitted, models: Iterable[ModelRecord]) -> int:
    """Returns the most (pico-dollars) that one attempt by any of these models would cost us, whoever pays."""
    priced = (msgspec.structs.replace(model, charge=model.price, upcoming=[]) for model in models)
    return max((_attempt_picos(submitted, model) for model in priced), default=0)


def counted_tokens(submitted: TaskSubmitted, models: Iterable[ModelRecord]) -> int:
    """Returns the tokens that a task is counted with until it has settled: about its prompt, and its answer's bound."""
    asked = submitted.sampling.max_tokens
    if asked is None:
        asked = min((model.max_output_tokens for model in candidates(submitted, models)), default=0)
    return -(-submitted.prompt_bytes // _BYTES_PER_TOKEN) + asked * submitted.sampling.n


def _cascade_picos(submitted: TaskSubmitted, models: Iterable[ModelRecord]) -> int:
    """Each step at the dearest model of its rank; a rank that nobody can answer for when it begins falls away."""
    dearest: dict[Rank, int] = {}
    for model in models:
        dearest[model.rank] = max(dearest.get(model.rank, 0), _attempt_picos(submitted, model))
    # Without its weakest rank a cascade begins with two attempts of the next one, which may cost more.
    climbs = (cascade_ranks(rank for rank in dearest if rank in RANKS_UP[first:]) for first in range(len(RANKS_UP)))
    return max(sum(dearest[rank] for rank in climb) for climb in climbs)


def _person_picos(people: People | None) -> int:
    """The dearest answer of a person's own: at most one settles a task."""
    if people is None:
        return 0
    questions = [*people.after, *people.rules.values(), *([people.unsure] if people.unsure is not None else [])]
    return max((one.price_picos for one in questions), default=0)


def _attempt_picos(submitted: Asked, model: ModelRecord) -> int:
    sampling = submitted.sampling
    prompt = submitted.prompt_bytes + words_bytes(sampling) + TEMPLATE_TOKENS
    if model.student is not None:
        prompt += model.student.prompt_bytes
    if submitted.task.memory:
        prompt += NOTE_BYTES_MAX
    window = _window_tokens(model)
    if submitted.task.conversation:
        # What a conversation adds is not known at the door.
        prompt = window
    if model.kind == "chat":
        # An embedder's context is that of one text, and there may be many: JSON has more bytes than they have tokens.
        prompt = min(prompt, max(window, 1))
    answer = min(sampling.max_tokens or model.max_output_tokens, model.max_output_tokens) * sampling.n
    if not model.upcoming:
        return _most(model.charge, prompt, answer)
    # It may wait until its deadline, and is charged by the version of when it is dispatched.
    return max(_most(charge, prompt, answer) for charge in charges_until(model, submitted.task.deadline_ms))


def _window_tokens(model: ModelRecord) -> int:
    """Returns what a prompt may have in all: a prompt student's context is its base's without what it is shown."""
    if model.student is None or model.student.kind != "prompt":
        return model.context_tokens
    return model.context_tokens + model.student.prompt_bytes // SHOWN_BYTES_PER_TOKEN + 1


def _most(charge: Price, prompt: int, answer: int) -> int:
    return prompt * _dearest_input(charge) + answer * _dearest_output(charge) + charge.call_picos


def _dearest_input(price: Price) -> int:
    return max(price.input_picos, price.cached_input_picos or 0, price.cache_write_picos or 0)


def _dearest_output(price: Price) -> int:
    return max(price.output_picos, price.reasoning_picos or 0)
