"""Makers of the router's values; whatever is not named has a sensible value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import AttemptRequested, AttemptUsage, RunAttempt, Sampling, TaskRef, TaskSubmitted
from collegium_contracts.money import Price, Usage
from collegium_contracts.state import ModelRecord
from collegium_router.choosing.plan import attempt_of

NOW_MS = 1_767_225_600_000


def make_model(name: str, **fields: Any) -> ModelRecord:
    """A student of the pool ``general`` that costs 1 and 2 pico-dollars a token."""
    values: dict[str, Any] = {
        "rank": "student",
        "pool": "general",
        "price": Price(input_picos=1, output_picos=2),
        "charge": Price(input_picos=3, output_picos=4),
        "max_output_tokens": 100,
        "context_tokens": 1000,
        "price_version": 1,
    }
    return ModelRecord(name=name, **(values | fields))


def make_submission(
    model: str = "auto", *, prompt_bytes: int = 40, panel_size: int = 3, max_tokens: int | None = None, **task: Any
) -> TaskSubmitted:
    """A task of acme that was submitted at ``NOW_MS``."""
    values: dict[str, Any] = {
        "id": "tsk_" + "0" * 26,
        "tenant": "acme",
        "created_at_ms": NOW_MS,
        "deadline_ms": NOW_MS + 50_000,
        "plan": "single",
    }
    return TaskSubmitted(
        task=TaskRef(model=model, **(values | task)),
        prompt=Envelope("identity", b"", b'[{"role":"user","content":"hello"}]'),
        sampling=Sampling(max_tokens=max_tokens),
        prompt_bytes=prompt_bytes,
        panel_size=panel_size,
    )


def make_again(*, model: str = "sim", failures: int = 1, code: str = "upstream_error", of: int = 1, **fields: Any):
    """An attempt that failed ``failures`` times on a model and is to be made again."""
    submitted = make_submission(fields.pop("asked", "auto"), plan="panel" if of > 1 else "single")
    call = AttemptUsage(
        number=1, delivery=1, model=model, rank="student", usage=Usage(cost_usd_picos=7), duration_ms=5, succeeded=False
    )
    run = RunAttempt(
        task=submitted.task,
        attempt=attempt_of(make_model(model), 1, of, "panel" if of > 1 else "single"),
        prompt=submitted.prompt,
        sampling=Sampling(max_tokens=50),
        prompt_bytes=40,
        try_number=failures,
        max_calls=4,
        alternatives=True,
        earlier=[msgspec.structs.replace(call, delivery=number + 1) for number in range(failures)],
    )
    error = TaskError(code=code, message="it failed")
    return AttemptRequested(run=run, error=error, not_before_ms=fields.pop("not_before_ms", NOW_MS))


@pytest.fixture(scope="session")
def again() -> Callable[..., AttemptRequested]:
    return make_again


@pytest.fixture(scope="session")
def model() -> Callable[..., ModelRecord]:
    return make_model


@pytest.fixture(scope="session")
def submission() -> Callable[..., TaskSubmitted]:
    return make_submission
