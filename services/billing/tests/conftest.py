"""Events of the journey as billing's tests want them, and a world to run the service in."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import asyncpg
import msgspec
import pytest
from collegium_billing.app import BillingApp, build
from collegium_billing.migrations import MIGRATIONS
from collegium_bus import topology
from collegium_bus.ask import ask
from collegium_bus.connection import Connection, connect
from collegium_bus.kv import Bucket
from collegium_bus.publisher import Publisher
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import (
    AnswersReused,
    AttemptAnswered,
    AttemptDiscarded,
    AttemptFailed,
    AttemptRef,
    AttemptStarted,
    AttemptUsage,
    JourneyMessage,
    Message,
    SettledMessage,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TaskRef,
)
from collegium_contracts.money import Price, Usage
from collegium_contracts.parts import Reuse
from collegium_contracts.state import TenantRecord
from collegium_runtime.host import make_platform
from collegium_runtime.platform import Platform
from collegium_runtime.runtime_file import Runtime
from collegium_settings import Settings, TenantSettings
from collegium_settings.settings import RequestLogSettings
from collegium_store import migrate, open_pool
from collegium_store.archive import ARCHIVE_MIGRATIONS
from collegium_telemetry.metrics import Metrics
from collegium_telemetry.tracing import Tracing, setup
from collegium_testing.fixtures import Migrations
from hypothesis import strategies as st

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
ANSWER = Envelope("identity", b"", b'{"text":"yes"}')


class Events:
    """Makes messages; whatever is not named has a value that keeps them consistent with each other."""

    now_ms = NOW_MS

    def task(self, name: str, *, tenant: str = "acme", **fields: Any) -> TaskRef:
        """A task whose id is made of its name."""
        return TaskRef(
            id=f"tsk_{name:0>26}",
            tenant=tenant,
            created_at_ms=NOW_MS,
            deadline_ms=NOW_MS + 50_000,
            model="auto",
            **({"key_id": "k1"} | fields),
        )

    def call(
        self, number: int = 1, *, delivery: int = 1, cost: int = 5, model: str = "m", **fields: Any
    ) -> AttemptUsage:
        """A finished call of 10 tokens in (2 cached, 3 written) and 4 out (1 of reasoning)."""
        usage = Usage(
            input_tokens=10,
            output_tokens=4,
            cached_input_tokens=2,
            reasoning_tokens=1,
            cost_usd_picos=cost,
            cache_write_tokens=3,
        )
        values: dict[str, Any] = {"rank": "student", "usage": usage, "duration_ms": 3} | fields
        return AttemptUsage(number=number, delivery=delivery, model=model, **values)

    def attempt(self, call: AttemptUsage, plan: Any = "single") -> AttemptRef:
        """The attempt that made a call."""
        free = Price()
        return AttemptRef(
            number=call.number,
            of=1,
            model=call.model,
            rank=call.rank,
            pool="general",
            price=free,
            charge=free,
            plan=plan,
        )

    def started(self, task: TaskRef, number: int = 1, *, delivery: int = 1, at_ms: int = NOW_MS) -> AttemptStarted:
        """A call about to be made."""
        attempt = self.attempt(self.call(number, delivery=delivery))
        return AttemptStarted(task=task, attempt=attempt, delivery=delivery, worker="w", at_ms=at_ms)

    def answered(
        self, task: TaskRef, call: AttemptUsage, *, at_ms: int = NOW_MS, plan: Any = "panel"
    ) -> AttemptAnswered:
        """The end of one of several attempts."""
        return AttemptAnswered(task=task, attempt=self.attempt(call, plan), answer=ANSWER, call=call, at_ms=at_ms)

    def failed(self, task: TaskRef, call: AttemptUsage, *, at_ms: int = NOW_MS, plan: Any = "panel") -> AttemptFailed:
        """The failure of one of several attempts."""
        error = TaskError(code="upstream_timeout", message="no answer in time")
        return AttemptFailed(task=task, attempt=self.attempt(call, plan), error=error, call=call, at_ms=at_ms)

    def discarded(
        self, task: TaskRef, call: AttemptUsage, *, at_ms: int = NOW_MS, plan: Any = "single"
    ) -> AttemptDiscarded:
        """A call whose result came too late."""
        return AttemptDiscarded(task=task, attempt=self.attempt(call, plan), call=call, at_ms=at_ms)

    def settled(
        self,
        task: TaskRef,
        calls: list[AttemptUsage],
        *,
        state: str = "completed",
        charge: int = 6,
        at_ms: int = NOW_MS,
        plan: Any = "single",
    ) -> SettledMessage:
        """The terminal message, with the usage of all its calls."""
        usage = Usage(
            input_tokens=sum(call.usage.input_tokens for call in calls),
            output_tokens=sum(call.usage.output_tokens for call in calls),
            cached_input_tokens=sum(call.usage.cached_input_tokens for call in calls),
            cache_write_tokens=sum(call.usage.cache_write_tokens for call in calls),
            reasoning_tokens=sum(call.usage.reasoning_tokens for call in calls),
            cost_usd_picos=sum(call.usage.cost_usd_picos for call in calls),
            charge_usd_picos=charge,
        )
        shared: dict[str, Any] = {
            "task": task, "plan": plan, "usage": usage, "attempts": calls, "settled_at_ms": at_ms,
            "model": calls[0].model if calls else "", "rank": calls[0].rank if calls else "",
        }  # fmt: skip
        if state == "completed":
            return TaskCompleted(stop_reason="completed", output=ANSWER, **shared)
        if state == "failed":
            error = TaskError(code="upstream_error", message="it failed")
            return TaskFailed(stop_reason="failed", error=error, **shared)
        return TaskCanceled(stop_reason="canceled", **shared)

    def reused(self, names: list[str], *, saved: int = 9, at_ms: int = NOW_MS, **task: Any) -> AnswersReused:
        """Answers that were given again, each for a task of its own."""
        answers: list[TaskCompleted] = []
        for name in names:
            reused = Reuse(original="tsk_" + "z" * 26, saved_usd_picos=saved)
            ref = msgspec.structs.replace(self.task(name, **task), cache="hit_exact", reused=reused)
            answer = self.settled(ref, [self.call()], charge=0, at_ms=at_ms)
            assert isinstance(answer, TaskCompleted)
            free = msgspec.structs.replace(answer.usage, cost_usd_picos=0)
            answers.append(msgspec.structs.replace(answer, attempts=[], usage=free))
        return AnswersReused(answers=answers)

    def histories(self) -> st.SearchStrategy[list[JourneyMessage]]:
        """All events of a few tasks: plans of one and of several, zombies, verdicts of waste, in the order of life."""
        shape = st.fixed_dictionaries(
            {
                "attempts": st.integers(1, 3),
                "deliveries": st.integers(1, 2),
                "state": st.sampled_from(["completed", "failed", "canceled", ""]),  # empty: not settled yet
                "lost": st.integers(0, 3),  # which attempt the verdict calls waste; 0: none
                "cost": st.integers(0, 10**15),
                "tags": st.sampled_from([{}, {"team": "x"}, {"team": "x", "env": "y"}]),
                "later_ms": st.integers(0, 172_800_000),
            }
        )
        return st.lists(shape, min_size=1, max_size=5).map(
            lambda shapes: [event for number, shape in enumerate(shapes) for event in self._history(number, **shape)]
        )

    def a_history(self, number: int, rng: random.Random) -> list[JourneyMessage]:
        """All events of one task, as chance has it."""
        return self._history(
            number,
            attempts=rng.randint(1, 3),
            deliveries=rng.randint(1, 2),
            state=rng.choice(["completed", "failed", "canceled", ""]),
            lost=rng.randint(0, 3),
            cost=rng.choice([0, rng.randrange(10**15)]),
            tags=rng.choice([{}, {"team": "x"}, {"team": "x", "env": "y"}]),
            later_ms=rng.randrange(172_800_000),
        )

    def _history(
        self,
        number: int,
        *,
        attempts: int,
        deliveries: int,
        state: str,
        lost: int,
        cost: int,
        tags: dict[str, str],
        later_ms: int,
    ) -> list[JourneyMessage]:
        task = self.task(str(number), tenant=f"t{number % 2}", tags=tags)
        plan = "single" if attempts == 1 else "panel"
        at_ms = NOW_MS + later_ms
        events: list[JourneyMessage] = []
        calls: list[AttemptUsage] = []
        for attempt in range(1, attempts + 1):
            for delivery in range(1, deliveries + 1):
                events.append(self.started(task, attempt, delivery=delivery, at_ms=at_ms))
                call = self.call(attempt, delivery=delivery, cost=cost + attempt, model=f"m{attempt}")
                if delivery < deliveries:
                    events.append(self.discarded(task, call, at_ms=at_ms + 5, plan=plan))
                    continue
                if plan == "panel":
                    events.append(self.answered(task, call, at_ms=at_ms + attempt, plan=plan))
                calls.append(msgspec.structs.replace(call, wasted=attempt == lost))
        if state:
            events.append(self.settled(task, calls, state=state, charge=cost, at_ms=at_ms + 50, plan=plan))
        if state == "completed":
            names = [f"{number}again{time}" for time in range(attempts)]
            events.append(self.reused(names, saved=cost, at_ms=at_ms + 70, tenant=task.tenant, tags=tags))
        return events


@pytest.fixture(scope="session")
def make() -> Events:
    """Gives the maker of events."""
    return Events()


async def migrate_billing(url: str) -> None:
    """Makes billing's tables and the archive's."""
    await migrate(url, [ARCHIVE_MIGRATIONS, MIGRATIONS])


@pytest.fixture(scope="session")
def database_migrations() -> Migrations:
    """Gives what makes the tables of a test's database."""
    return migrate_billing


class World:
    """A broker with the declared streams, an empty database, and services started on them."""

    def __init__(self, nats_url: str, database_url: str, data_dir: Path, make: Any, stack: AsyncExitStack) -> None:
        self.make = make
        self.database_url = database_url
        self.data_dir = data_dir
        self.durability: Literal["process", "power"] = "process"
        self._nats_url = nats_url
        self._stack = stack
        self.gateway: Connection
        self.worker: Publisher
        self.pool: asyncpg.Pool

    async def open(self) -> None:
        """Connects the test's own hands and declares the streams."""
        self.gateway = await self.connect("gateway")
        self.worker = Publisher(await self.connect("worker-pool"))
        await topology.apply(self.gateway, await topology.plan(self.gateway, pools=["general"]))
        self.pool = await open_pool(self.database_url, application_name="billing-test")
        self._stack.push_async_callback(self.pool.close)

    async def connect(self, service: str) -> Connection:
        """Opens one more connection."""
        connection = await connect(self._nats_url, service)
        self._stack.push_async_callback(connection.close)
        return connection

    async def platform(self, *tenants: TenantSettings, tracing: Tracing | None = None) -> Platform:
        """What billing is given."""
        # The events of these tests are of a day long gone: a purge would race with what is asserted of their rows.
        kept = RequestLogSettings(retention_days=3650)
        settings = Settings(data_dir=self.data_dir, tenants=tenants, durability=self.durability, requests=kept)
        runtime = Runtime(database=self.database_url)
        connection = await self.connect("billing")
        tracing = tracing or setup("billing", otlp_endpoint=None, sample_ratio=0.0)
        return make_platform("billing", settings, runtime, connection, tracing, Metrics("billing"))

    async def billing(self, *tenants: TenantSettings, tracing: Tracing | None = None) -> BillingApp:
        """A started service."""
        app = build(await self.platform(*tenants, tracing=tracing))
        self._stack.push_async_callback(app.stop)
        await app.start()
        return app

    async def publish(self, message: Any, traceparent: str = "") -> None:
        """Publishes one event as a worker would."""
        await self.worker.publish(
            subject_of(message),
            codec.encode(message),
            message_id="",
            headers={s.TRACEPARENT: traceparent, s.H_TENANT: "acme"},
        )

    async def count(self, table: str) -> int:
        """How many rows a table has."""
        found: int = await self.pool.fetchval(f"SELECT count(*) FROM {table}")
        return found

    async def ask(self, subject: str, question: Message, expected: Any) -> Any:
        """Asks as the gateway does."""
        return await ask(self.gateway, subject, question, expected)

    async def record(self, tenant: str) -> TenantRecord:
        """A tenant as gateways see it."""
        entry = await Bucket(self.gateway, s.KV_TENANTS).get(tenant)
        assert entry is not None
        found = codec.state.decode(entry.value)
        assert isinstance(found, TenantRecord)
        return found


def subject_of(message: Any) -> str:
    if isinstance(message, AnswersReused):
        return s.reused("gw1")
    task = message.task
    match message:
        case AttemptStarted():
            return s.attempt_started(task.tenant, task.id, message.attempt.number, message.delivery)
        case AttemptDiscarded():
            return s.attempt_discarded(task.tenant, task.id, message.call.number, message.call.delivery)
        case AttemptAnswered():
            return s.attempt_ended(task.tenant, task.id, message.call.number)
        case _:
            return s.task_settled(task.tenant, task.id)


@pytest.fixture
async def world(clean_nats_url: str, database_url: str, tmp_path: Path, make: Any) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        world = World(clean_nats_url, database_url, tmp_path, make, stack)
        await world.open()
        yield world
