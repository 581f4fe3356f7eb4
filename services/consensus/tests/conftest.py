"""Ended attempts as the tests of consensus want them, and a platform on a real broker."""

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
from collegium_contracts.content import Answer, Choice, encode_content
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import AttemptAnswered, AttemptEnded, AttemptFailed, AttemptRef, AttemptUsage, TaskRef
from collegium_contracts.money import Price, Usage
from collegium_contracts.testsnote import write_until
from collegium_runtime.platform import Platform
from collegium_settings import Settings
from collegium_telemetry.metrics import Metrics
from collegium_telemetry.tracing import Tracing

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
_FREE = Price()


class Members:
    """Makes ended attempts; whatever is not named has a value that keeps them consistent with each other."""

    now_ms = NOW_MS

    def task(self, name: str = "1", **fields: Any) -> TaskRef:
        values: dict[str, Any] = {"tenant": "acme", "plan": "panel"} | fields
        return TaskRef(id=f"tsk_{name:0>26}", created_at_ms=NOW_MS, deadline_ms=NOW_MS + 50_000, model="auto", **values)

    def attempt(self, number: int, of: int = 3, plan: Any = "panel") -> AttemptRef:
        return AttemptRef(
            number=number,
            of=of,
            model=f"m{number}",
            rank="student",
            pool="general",
            price=_FREE,
            charge=_FREE,
            plan=plan,
        )

    def call(self, number: int, *, error_code: str = "", cost: int = 10, charge: int = 12) -> AttemptUsage:
        usage = Usage(input_tokens=5, output_tokens=2, cost_usd_picos=cost, charge_usd_picos=charge)
        return AttemptUsage(
            number=number,
            delivery=1,
            model=f"m{number}",
            rank="student",
            usage=usage,
            duration_ms=7,
            succeeded=not error_code,
            error_code=error_code,
        )

    def answered(
        self,
        number: int,
        text: str,
        *,
        of: int = 3,
        task: TaskRef | None = None,
        finish: str = "stop",
        plan: Any = "panel",
    ) -> AttemptAnswered:
        return AttemptAnswered(
            task=task or self.task(),
            attempt=self.attempt(number, of, plan),
            answer=self.sealed(text, finish),
            call=self.call(number),
            at_ms=NOW_MS + number,
            turn=Envelope("identity", b"", b'[{"role":"user","content":"which?"}]'),
        )

    def failed(
        self, number: int, code: str = "upstream_timeout", *, of: int = 3, task: TaskRef | None = None
    ) -> AttemptFailed:
        return AttemptFailed(
            task=task or self.task(),
            attempt=self.attempt(number, of),
            error=TaskError(code=code, message="it did not answer"),
            call=self.call(number, error_code=code),
            at_ms=NOW_MS + number,
        )

    def sealed(self, text: str, finish: str = "stop") -> Envelope:
        answer = Answer(choices=[Choice(text=text, finish_reason=finish)])
        return Envelope("identity", b"", encode_content(answer))


@pytest.fixture(scope="session")
def make() -> Members:
    return Members()


Platforms = Callable[..., Awaitable[Platform]]


@pytest.fixture
async def platforms(clean_nats_url: str, tmp_path: Path) -> AsyncIterator[Platforms]:
    """Gives a maker of platforms on a broker whose streams are as declared; each has its own connection."""
    connections: list[Connection] = []

    async def make_platform(tracing: Tracing | None = None, now_ms: Callable[[], int] = lambda: NOW_MS) -> Platform:
        connection = await connect(clean_nats_url, "consensus")
        connections.append(connection)
        publisher = Publisher(connection)
        return Platform(
            service="consensus",
            instance=connection.instance,
            settings=Settings(),
            data_dir=tmp_path,
            database_url="",
            embedded_model=None,
            connection=connection,
            publisher=publisher,
            direct=DirectReader(connection),
            claims=ClaimStore(connection),
            dead_letters=DeadLetters(publisher, "consensus"),
            tracing=tracing or Tracing(None, 0.0),
            metrics=Metrics("consensus"),
            keyring=IdentityKeyring(),
            now_ms=now_ms,
        )

    operator = await connect(clean_nats_url, "operator")
    connections.append(operator)
    await topology.apply(operator, await topology.plan(operator, pools=[]))
    yield make_platform
    for connection in connections:
        await connection.close()


async def publish(platform: Platform, member: AttemptEnded, traceparent: str = "", *, note: str | None = None) -> None:
    """Publishes one ended attempt as a worker does; ``note``: another than its own of until when it is tested."""
    task, number = member.task, member.attempt.number
    await platform.publisher.publish(
        s.attempt_ended(task.tenant, task.id, number),
        encode(member),
        message_id=f"{task.id}.{number}.1.ended",
        headers={
            s.TRACEPARENT: traceparent,
            s.H_TENANT: task.tenant,
            s.H_TESTS_UNTIL: write_until(member) if note is None else note,
        },
        create_once=True,
    )


@pytest.fixture(scope="session")
def end_attempt() -> Callable[..., Awaitable[None]]:
    return publish
