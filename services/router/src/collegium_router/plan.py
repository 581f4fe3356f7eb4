"""Which models answer a task, and in how many attempts. Pure.

``auto`` without a policy: the highest rank that is enabled and allowed for the domain, ties by price, then by least
outstanding work, then by name. A named model is never swapped. One rule: a plan is a value; making it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import AttemptRef, Plan, TaskSubmitted
from collegium_contracts.state import ModelRecord

AUTO = "auto"
_RANK_ORDER = {"teacher": 0, "ta": 1, "student": 2}
# A token is at least this many bytes of ordinary text on average; a prompt that is too long even so cannot fit.
_BYTES_PER_TOKEN_AT_MOST = 6


class Planned(msgspec.Struct, frozen=True):
    """The plan of a task: its kind and its attempts, in order."""

    plan: Plan
    attempts: tuple[AttemptRef, ...]


def make_plan(
    submitted: TaskSubmitted, models: Sequence[ModelRecord], outstanding: Mapping[str, int]
) -> Planned | TaskError:
    """Returns the task's plan, or why there can be none.

    ``outstanding`` is how many dispatched attempts of each model have not settled, as far as this router knows.
    """
    chosen = choose_model(submitted, models, outstanding)
    if isinstance(chosen, TaskError):
        return chosen
    count = submitted.panel_size if submitted.task.plan == "panel" else 1
    plan: Plan = "panel" if submitted.task.plan == "panel" else "single"
    attempts = tuple(
        AttemptRef(
            number=number,
            of=count,
            model=chosen.name,
            rank=chosen.rank,
            pool=chosen.pool,
            price=chosen.price,
            charge=chosen.charge,
            plan=plan,
        )
        for number in range(1, count + 1)
    )
    return Planned(plan, attempts)


def choose_model(
    submitted: TaskSubmitted, models: Sequence[ModelRecord], outstanding: Mapping[str, int]
) -> ModelRecord | TaskError:
    """Returns the model that answers, or why none can."""
    task = submitted.task
    enabled = [model for model in models if model.enabled]
    if task.model != AUTO:
        named = next((model for model in enabled if model.name == task.model), None)
        if named is None:
            return TaskError(
                code="unknown_model",
                message=f"model {task.model!r} is not in the roster; see GET /v1/models",
                param="model",
            )
        candidates = [named]
    else:
        candidates = [model for model in enabled if not model.domains or task.domain in model.domains]
        if not candidates:
            return TaskError(code="no_eligible_model", message=f"no enabled model serves domain {task.domain!r}")
    fitting = [model for model in candidates if fits(submitted.prompt_bytes, model)]
    if not fitting:
        return TaskError(
            code="context_length_exceeded",
            message=f"a prompt of {submitted.prompt_bytes} bytes is longer than any eligible model's context",
            param="messages",
        )
    return min(
        fitting,
        key=lambda model: (
            _RANK_ORDER[model.rank],
            model.price.input_picos + model.price.output_picos,
            outstanding.get(model.name, 0),
            model.name,
        ),
    )


def fits(prompt_bytes: int, model: ModelRecord) -> bool:
    """Whether a prompt may fit a model's context; when in doubt it may, and the endpoint decides."""
    return prompt_bytes // _BYTES_PER_TOKEN_AT_MOST < model.context_tokens


def max_tokens(requested: int | None, model: ModelRecord) -> int:
    """Returns the bound that is always sent upstream: the request's, at most the model's own limit."""
    return model.max_output_tokens if requested is None else min(requested, model.max_output_tokens)
