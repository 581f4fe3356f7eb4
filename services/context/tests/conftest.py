"""Settled tasks as the tests of context want them, and platforms on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from collegium_bus import topology
from collegium_bus.claims import ClaimStore
from collegium_bus.connection import Connection, connect
from collegium_bus.dead import DeadLetters
from collegium_bus.direct import DirectReader
from collegium_bus.publisher import Publisher
from collegium_context.migrations import MIGRATIONS
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.content import Answer, Choice, encode_content
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.messages import SettledMessage, TaskCompleted, TaskRef
from collegium_contracts.money import Usage
from collegium_runtime.platform import Platform
from collegium_settings import Settings
from collegium_store import migrate
from collegium_telemetry.metrics import Metrics
from collegium_telemetry.tracing import Tracing

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
Platforms = Callable[..., Awaitable[Platform]]


class Tasks:
    """Makes tasks and their terminal messages."""

    now_ms = NOW_MS

    def task(self, name: str, *, tenant: str = "acme", conversation: str = "c1") -> TaskRef:
        return TaskRef(
            id=f"tsk_{name:0>26}",
            tenant=tenant,
            created_at_ms=NOW_MS,
            deadline_ms=NOW_MS + 50_000,
            model="auto",
            conversation=conversation,
        )

    def completed(self, task: TaskRef, asked: str, answered: str, *, turn: Envelope | None = None) -> TaskCompleted:
        messages = msgspec.json.encode([{"role": "user", "content": asked}])
        return TaskCompleted(
            task=task,
            plan="single",
            stop_reason="completed",
            usage=Usage(),
            attempts=[],
            settled_at_ms=NOW_MS,
            output=Envelope("identity", b"", encode_content(Answer([Choice(text=answered)]))),
            turn=turn or Envelope("identity", b"", messages),
        )


@pytest.fixture(scope="session")
def make() -> Tasks:
    return Tasks()


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
        connection = await connect(clean_nats_url, "context")
        connections.append(connection)
        publisher = Publisher(connection)
        values: dict[str, Any] = {
            "service": "context",
            "instance": connection.instance,
            "settings": Settings(),
            "data_dir": tmp_path,
            "database_url": database_url,
            "embedded_model": None,
            "connection": connection,
            "publisher": publisher,
            "direct": DirectReader(connection),
            "claims": ClaimStore(connection),
            "dead_letters": DeadLetters(publisher, "context"),
            "tracing": tracing or Tracing(None, 0.0),
            "metrics": Metrics("context"),
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


async def settle(platform: Platform, settled: SettledMessage, traceparent: str = "") -> None:
    """Publishes a terminal message as whoever settles does."""
    task = settled.task
    await platform.publisher.publish(
        s.task_settled(task.tenant, task.id),
        encode(settled),
        message_id=f"{task.id}.test",
        headers={s.TRACEPARENT: traceparent, s.H_TENANT: task.tenant},
        create_once=True,
    )


@pytest.fixture(scope="session")
def settle_task() -> Callable[..., Awaitable[None]]:
    return settle
