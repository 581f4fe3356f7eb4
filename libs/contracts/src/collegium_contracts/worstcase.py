"""The most that a task may be charged, known before it runs. Pure.

The prompt is bounded by its bytes (no tokenizer makes more tokens than bytes) and a fixed part a message for what the
chat template adds; the answer by ``max_tokens``, which is always sent upstream; both by the model's context. One rule:
an endpoint that keeps to what it was told never costs more than this.
"""

from __future__ import annotations

from collections.abc import Iterable

from collegium_contracts.memory_requests import NOTE_BYTES_MAX
from collegium_contracts.messages import TaskSubmitted
from collegium_contracts.money import Price
from collegium_contracts.parts import Rank
from collegium_contracts.plans import RANKS_UP, cascade_ranks
from collegium_contracts.priceversions import charges_until
from collegium_contracts.state import ModelRecord
from collegium_contracts.wording import words_bytes

# What a chat template adds to a prompt: role marks and separators, of at most some hundred messages.
TEMPLATE_TOKENS = 512
# A task is settled at its deadline or shortly after; a worker that died is replaced within half a minute.
GRACE_MS = 120_000
_BYTES_PER_TOKEN = 4


def candidates(submitted: TaskSubmitted, models: Iterable[ModelRecord]) -> list[ModelRecord]:
    """Returns the models that may answer a task: the named one and its fallbacks, or for ``auto`` all of its domain."""
    task = submitted.task
    by_name = {
        model.name: model
        for model in models
        if model.enabled and model.kind == task.kind and (not task.models or model.name in task.models)
    }
    if task.model == "auto":
        return [one for one in by_name.values() if not one.domains or task.domain in one.domains]
    named = by_name.get(task.model)
    if named is None:
        return []
    return [named, *(by_name[name] for name in named.fallbacks if name in by_name)]


def worst_picos(submitted: TaskSubmitted, models: Iterable[ModelRecord]) -> int:
    """Returns the most (pico-dollars) that any of the models that may answer would charge for the whole plan."""
    if submitted.task.plan == "cascade":
        return _cascade_picos(submitted, candidates(submitted, models))
    attempts = submitted.panel_size if submitted.task.plan == "panel" else 1
    return attempts * max((_attempt_picos(submitted, model) for model in candidates(submitted, models)), default=0)


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


def _attempt_picos(submitted: TaskSubmitted, model: ModelRecord) -> int:
    sampling = submitted.sampling
    prompt = submitted.prompt_bytes + words_bytes(sampling) + TEMPLATE_TOKENS
    if submitted.task.memory:
        prompt += NOTE_BYTES_MAX
    if submitted.task.conversation:
        # What a conversation adds is not known at the door.
        prompt = model.context_tokens
    if model.kind == "chat":
        # An embedder's context is that of one text, and there may be many: JSON has more bytes than they have tokens.
        prompt = min(prompt, max(model.context_tokens, 1))
    answer = min(sampling.max_tokens or model.max_output_tokens, model.max_output_tokens) * sampling.n
    if not model.upcoming:
        return _most(model.charge, prompt, answer)
    # It may wait until its deadline, and is charged by the version of when it is dispatched.
    return max(_most(charge, prompt, answer) for charge in charges_until(model, submitted.task.deadline_ms))


def _most(charge: Price, prompt: int, answer: int) -> int:
    return prompt * _dearest_input(charge) + answer * _dearest_output(charge) + charge.call_picos


def _dearest_input(price: Price) -> int:
    return max(price.input_picos, price.cached_input_picos or 0, price.cache_write_picos or 0)


def _dearest_output(price: Price) -> int:
    return max(price.output_picos, price.reasoning_picos or 0)
