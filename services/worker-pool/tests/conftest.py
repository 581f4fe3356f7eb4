"""Makers of the worker pool's values; whatever is not named has a sensible value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import AttemptRef, RunAttempt, Sampling, TaskRef
from collegium_contracts.money import Price

NOW_MS = 1_767_225_600_000


def make_attempt(**fields: Any) -> AttemptRef:
    """The only attempt of a plan, by a model that costs 10 and 20 and is charged at 30 and 40."""
    values: dict[str, Any] = {
        "number": 1,
        "of": 1,
        "model": "m",
        "rank": "ta",
        "pool": "general",
        "price": Price(input_picos=10, output_picos=20),
        "charge": Price(input_picos=30, output_picos=40),
    }
    return AttemptRef(**(values | fields))


def make_run(*, attempt: AttemptRef | None = None, **task: Any) -> RunAttempt:
    """One attempt of a task of acme."""
    values: dict[str, Any] = {
        "id": "tsk_" + "0" * 26,
        "tenant": "acme",
        "created_at_ms": NOW_MS,
        "deadline_ms": NOW_MS + 50_000,
        "model": "auto",
    }
    return RunAttempt(
        task=TaskRef(**(values | task)),
        attempt=attempt or make_attempt(),
        prompt=Envelope("identity", b"", b'[{"role":"user","content":"hello"}]'),
        sampling=Sampling(max_tokens=10),
        prompt_bytes=35,
    )


@pytest.fixture(scope="session")
def attempt() -> Callable[..., AttemptRef]:
    return make_attempt


@pytest.fixture(scope="session")
def run() -> Callable[..., RunAttempt]:
    return make_run
