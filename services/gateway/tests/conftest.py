"""Makers of the gateway's values, and a running platform with the gateway as its door."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from collegium_contracts.content import Answer, Choice, encode_content
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import AttemptUsage, SettledMessage, TaskCanceled, TaskCompleted, TaskFailed, TaskRef
from collegium_contracts.money import Price, Usage
from collegium_contracts.state import ModelRecord
from collegium_testing.platform import RunningPlatform, migrate_all

NOW_MS = 1_767_225_600_123  # 2026-01-01T00:00:00.123Z
USAGE = Usage(10, 4, cached_input_tokens=2, cost_usd_picos=1_500_000, charge_usd_picos=3_000_000)


def make_model(name: str = "m", **fields: Any) -> ModelRecord:
    """A free student for all domains with a context of a thousand tokens."""
    values: dict[str, Any] = {
        "rank": "student",
        "pool": "general",
        "price": Price(),
        "charge": Price(),
        "max_output_tokens": 100,
        "context_tokens": 1000,
    }
    return ModelRecord(name=name, **(values | fields))


def make_task(**fields: Any) -> TaskRef:
    """A task of acme, created at ``NOW_MS``."""
    values: dict[str, Any] = {
        "id": "tsk_" + "0" * 26,
        "tenant": "acme",
        "created_at_ms": NOW_MS,
        "deadline_ms": NOW_MS + 50_000,
        "model": "auto",
    }
    return TaskRef(**(values | fields))


def seal(*texts: str, **fields: Any) -> Envelope:
    """An answer with one choice a text."""
    return Envelope("identity", b"", encode_content(Answer([Choice(text, **fields) for text in texts])))


def make_settled(kind: str = "completed", task: TaskRef | None = None, **fields: Any) -> SettledMessage:
    """A terminal message; ``kind`` is the task's state."""
    call = AttemptUsage(number=1, delivery=1, model="m", rank="ta", usage=USAGE, duration_ms=7)
    values: dict[str, Any] = {
        "task": task or make_task(),
        "plan": "single",
        "stop_reason": "completed",
        "usage": USAGE,
        "attempts": [call],
        "settled_at_ms": NOW_MS + 1_000,
        "model": "m",
        "rank": "ta",
    }
    match kind:
        case "completed":
            return TaskCompleted(**(values | {"output": seal("the answer")} | fields))
        case "canceled":
            return TaskCanceled(**(values | {"stop_reason": "canceled"} | fields))
        case _:
            error = TaskError(code="upstream_cut", message="cut", upstream_status=200)
            return TaskFailed(**(values | {"stop_reason": "failed", "error": error} | fields))


@pytest.fixture(scope="session")
def model() -> Callable[..., ModelRecord]:
    return make_model


@pytest.fixture(scope="session")
def task() -> Callable[..., TaskRef]:
    return make_task


@pytest.fixture(scope="session")
def settled() -> Callable[..., SettledMessage]:
    return make_settled


@pytest.fixture(scope="session")
def sealed() -> Callable[..., Envelope]:
    return seal


@pytest.fixture(scope="session")
def database_migrations() -> Any:
    return migrate_all


@pytest.fixture
async def platform(clean_nats_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[RunningPlatform]:
    """Gives router, worker pool and gateway with two tenants and the simulator as the model ``sim``."""
    async with RunningPlatform(clean_nats_url, database_url, folder=tmp_path) as running:
        yield running
