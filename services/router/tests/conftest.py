"""Makers of the router's values; whatever is not named has a sensible value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import Sampling, TaskRef, TaskSubmitted
from collegium_contracts.money import Price
from collegium_contracts.state import ModelRecord

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


@pytest.fixture(scope="session")
def model() -> Callable[..., ModelRecord]:
    return make_model


@pytest.fixture(scope="session")
def submission() -> Callable[..., TaskSubmitted]:
    return make_submission
