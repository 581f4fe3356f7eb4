"""Events as the tests of evolution want them, and platforms on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from collegium_bus import topology
from collegium_bus.claims import ClaimStore
from collegium_bus.connection import Connection, connect
from collegium_bus.dead import DeadLetters
from collegium_bus.direct import DirectReader
from collegium_bus.publisher import Publisher
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import (
    AttemptAnswered,
    AttemptDiscarded,
    AttemptFailed,
    AttemptRef,
    AttemptUsage,
    JourneyMessage,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TaskRef,
)
from collegium_contracts.money import Price, Usage
from collegium_evolution.migrations import MIGRATIONS
from collegium_runtime.platform import Platform
from collegium_settings import Settings
from collegium_store import migrate
from collegium_telemetry.metrics import Metrics
from collegium_telemetry.tracing import Tracing

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
ANSWER = Envelope("identity", b"", b'{"choices":[{"text":"yes"}]}')
Platforms = Callable[..., Awaitable[Platform]]


class Events:
    """Makes messages; whatever is not named has a value that keeps them consistent with each other."""

    now_ms = NOW_MS

    def task(self, name: str, *, domain: str = "", **fields: Any) -> TaskRef:
        values: dict[str, Any] = {"tenant": "acme"} | fields
        return TaskRef(
            id=f"tsk_{name:0>26}",
            created_at_ms=NOW_MS,
            deadline_ms=NOW_MS + 50_000,
            model="auto",
            domain=domain,
            **values,
        )

    def call(
        self, number: int = 1, *, delivery: int = 1, model: str = "m", cost: int = 5, **fields: Any
    ) -> AttemptUsage:
        values: dict[str, Any] = {"rank": "student", "duration_ms": 100} | fields
        values.setdefault("succeeded", not values.get("error_code"))
        return AttemptUsage(number=number, delivery=delivery, model=model, usage=Usage(cost_usd_picos=cost), **values)

    def attempt(self, call: AttemptUsage, of: int) -> AttemptRef:
        free = Price()
        return AttemptRef(
            number=call.number, of=of, model=call.model, rank=call.rank, pool="general", price=free, charge=free
        )

    def ended(self, task: TaskRef, call: AttemptUsage, *, of: int = 3, at_ms: int = NOW_MS) -> JourneyMessage:
        attempt = self.attempt(call, of)
        if call.succeeded:
            return AttemptAnswered(task=task, attempt=attempt, answer=ANSWER, call=call, at_ms=at_ms)
        error = TaskError(code=call.error_code, message="no answer")
        return AttemptFailed(task=task, attempt=attempt, error=error, call=call, at_ms=at_ms)

    def discarded(self, task: TaskRef, call: AttemptUsage, *, of: int = 1, at_ms: int = NOW_MS) -> AttemptDiscarded:
        return AttemptDiscarded(task=task, attempt=self.attempt(call, of), call=call, at_ms=at_ms)

    def settled(self, task: TaskRef, calls: list[AttemptUsage], *, at_ms: int = NOW_MS) -> JourneyMessage:
        shared: dict[str, Any] = {
            "task": task,
            "plan": "single" if len(calls) < 2 else "panel",
            "usage": Usage(),
            "attempts": calls,
            "settled_at_ms": at_ms,
        }
        codes = [call.error_code for call in calls]
        if "canceled" in codes or not calls:
            return TaskCanceled(**shared, stop_reason="canceled")
        if all(codes):
            return TaskFailed(**shared, stop_reason="failed", error=TaskError(code=codes[0], message="it failed"))
        return TaskCompleted(**shared, stop_reason="completed", output=ANSWER)


@pytest.fixture(scope="session")
def make() -> Events:
    return Events()


async def _migrate(url: str) -> None:
    await migrate(url, [MIGRATIONS])


@pytest.fixture(scope="session")
def database_migrations() -> Callable[[str], Awaitable[None]]:
    return _migrate


@pytest.fixture
async def platforms(clean_nats_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[Platforms]:
    """Gives a maker of platforms on a broker whose streams are as declared; each has its own connection."""
    connections: list[Connection] = []

    async def make_platform(tracing: Tracing | None = None, **fields: Any) -> Platform:
        connection = await connect(clean_nats_url, "evolution")
        connections.append(connection)
        publisher = Publisher(connection)
        values: dict[str, Any] = {
            "service": "evolution",
            "instance": connection.instance,
            "settings": Settings(),
            "data_dir": tmp_path,
            "database_url": database_url,
            "embedded_model": None,
            "connection": connection,
            "publisher": publisher,
            "direct": DirectReader(connection),
            "claims": ClaimStore(connection),
            "dead_letters": DeadLetters(publisher, "evolution"),
            "tracing": tracing or Tracing(None, 0.0),
            "metrics": Metrics("evolution"),
            "keyring": IdentityKeyring(),
            "now_ms": lambda: NOW_MS,
        }
        return Platform(**(values | fields))

    operator = await connect(clean_nats_url, "operator")
    connections.append(operator)
    await topology.apply(operator, await topology.plan(operator, pools=[]))
    yield make_platform
    for connection in connections:
        await connection.close()


async def publish(platform: Platform, message: Any, traceparent: str = "") -> None:
    """Publishes a message on the subject where it belongs."""
    task = message.task
    match message:
        case AttemptAnswered() | AttemptFailed():
            subject = s.attempt_ended(task.tenant, task.id, message.attempt.number)
        case AttemptDiscarded():
            subject = s.attempt_discarded(task.tenant, task.id, message.attempt.number, message.call.delivery)
        case _:
            subject = s.task_settled(task.tenant, task.id)
    await platform.publisher.publish(
        subject,
        encode(message),
        message_id=subject,
        headers={s.TRACEPARENT: traceparent, s.H_TENANT: task.tenant},
        create_once=True,
    )


@pytest.fixture(scope="session")
def tell() -> Callable[..., Awaitable[None]]:
    return publish
