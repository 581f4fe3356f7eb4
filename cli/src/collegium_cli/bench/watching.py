"""What became of tasks, read from the broker as the operator: how many have settled so far, and, afterwards, when.

While a benchmark runs it asks a consumer that nobody pulls how many messages it has, which costs the broker nothing;
the messages themselves are read when the measured time is over. One rule: times are the broker's own, as it stored the
message; a task's creation is the gateway's clock (both on this machine).
"""

from __future__ import annotations

import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncGenerator

import msgspec
from collegium_bus.connection import Connection
from collegium_bus.delivery import Delivery
from collegium_bus.errors import NoAnswerError
from collegium_bus.ordered import OrderedReader
from collegium_contracts import subjects as s

from collegium_cli.bench.stage import Stage
from collegium_cli.environment import settings_of
from collegium_cli.tasks.operator import operator
from collegium_cli.up.credentials import OPERATOR

_DAY_NS = 86_400 * 10**9


class SettledTask(msgspec.Struct):
    """One task as its terminal message tells it; times in Unix ms, ``started_ms`` 0 where no attempt was started."""

    tenant: str
    state: str
    created_ms: float
    settled_ms: float
    started_ms: float = 0.0
    worker: str = ""


class Outcome(msgspec.Struct):
    """What became of the tasks: by id, and how many terminal messages each has where it is not one."""

    tasks: dict[str, SettledTask]
    doubled: dict[str, int]

    def of(self, tenant: str) -> list[SettledTask]:
        """Returns one tenant's tasks."""
        return [task for task in self.tasks.values() if task.tenant == tenant]


class _Ref(msgspec.Struct):
    id: str
    tenant: str
    created_at_ms: int


class _Settled(msgspec.Struct):
    type: str
    task: _Ref


class _Started(msgspec.Struct):
    task: _Ref
    worker: str = ""


class _Info(msgspec.Struct):
    num_pending: int = 0


_decode_settled = msgspec.msgpack.Decoder(_Settled).decode
_decode_started = msgspec.msgpack.Decoder(_Started).decode
_decode_info = msgspec.json.Decoder(_Info).decode


@contextlib.asynccontextmanager
async def operator_of(stage: Stage, user: str = OPERATOR) -> AsyncGenerator[Connection]:
    """Connects to a stage's broker as its operator, or as one of its services."""
    async with operator(settings_of(stage.config, stage.data), stage.runtime(), user) as connection:
        yield connection


class SettledCounter:
    """Counts terminal messages as they are stored, without reading them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._name = f"bench-{secrets.token_hex(6)}"
        self._last = 0

    async def start(self) -> None:
        """Makes the consumer that is only asked how much it would deliver."""
        config = {
            "name": self._name,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _DAY_NS,
            "filter_subjects": [s.TASK_SETTLED_ALL],
        }
        body = msgspec.json.encode({"stream_name": s.EVENTS, "config": config, "action": "create"})
        await self._connection.api(f"CONSUMER.CREATE.{s.EVENTS}.{self._name}", body)

    async def count(self) -> int:
        """Returns how many terminal messages stand; the last known number while the broker is away."""
        with contextlib.suppress(NoAnswerError):
            raw = await self._connection.api(f"CONSUMER.INFO.{s.EVENTS}.{self._name}", timeout_seconds=2.0)
            self._last = max(self._last, _decode_info(raw).num_pending)
        return self._last


async def outcome(connection: Connection, *, with_starts: bool = False) -> Outcome:
    """Reads what became of every task from EVENTS; ``with_starts`` also reads when its first attempt was started."""
    found = Outcome(tasks={}, doubled={})
    copies: Counter[str] = Counter()
    starts: dict[str, tuple[float, str]] = {}

    def receive(delivery: Delivery) -> None:
        at_ms = delivery.timestamp_ns / 1e6
        event = s.parse_event(delivery.subject)
        if event is None:
            return
        if event.kind == "started":
            starts.setdefault(event.task, (at_ms, _decode_started(delivery.payload).worker))
            return
        copies[event.task] += 1
        state, created_ms = "large", at_ms
        if not delivery.header(s.H_CLAIM):
            settled = _decode_settled(delivery.payload)
            state, created_ms = settled.type, settled.task.created_at_ms
        task = SettledTask(tenant=event.tenant, state=state, created_ms=created_ms, settled_ms=at_ms)
        found.tasks.setdefault(event.task, task)

    filters = [s.TASK_SETTLED_ALL, *([s.ATTEMPT_STARTED_ALL] if with_starts else [])]
    reader = OrderedReader(connection, s.EVENTS, filters, receive, label="bench")
    reader.start()
    try:
        await reader.caught_up.wait()
    finally:
        await reader.stop()
    for task_id, (at_ms, worker) in starts.items():
        if (task := found.tasks.get(task_id)) is not None:
            task.started_ms, task.worker = at_ms, worker
    found.doubled.update({task_id: count for task_id, count in copies.items() if count > 1})
    return found
