"""Collecting what a run left: answers over HTTP, EVENTS, the books, what is queued, the probes, the simulator's count.

Read with the operator's rights, from outside every service. One rule: nothing is changed by looking.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
from collegium_bus import topology
from collegium_bus.claims import ClaimStore
from collegium_bus.connection import Connection, connect
from collegium_bus.delivery import Delivery
from collegium_bus.ordered import OrderedReader
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import DeadLetter, TaskCanceled, TaskCompleted, TaskFailed
from collegium_contracts.permissions import inbox_prefix
from collegium_runtime import runtime_file
from collegium_runtime.runtime_file import Runtime

from collegium_testing.faults.checker import Booked, Called, CallKey, Facts, Terminal
from collegium_testing.simulator import Counts, LoggedCall

READ_SECONDS = 30.0
PERMITS_METRIC = "collegium_permits_in_use"
_CONCURRENT_GETS = 16
_STATES: dict[type, str] = {TaskCompleted: "completed", TaskFailed: "failed", TaskCanceled: "canceled"}


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Where facts are: a platform's data folder, its doors, the broker and database, and the pools there are.

    ``probes`` are further readiness addresses by name, of services that run beside the platform; those of the platform
    itself come from its ``runtime.json``.
    """

    folder: Path
    http: str
    key: str
    admin_key: str
    nats: str = ""
    database: str = ""
    pools: tuple[str, ...] = ("general",)
    probes: Mapping[str, str] = {}
    picos_per_input_token: int = 1_000_000
    picos_per_output_token: int = 2_000_000

    def runtime(self) -> Runtime:
        """The platform's addresses as they are written down now."""
        return runtime_file.read(self.folder) or Runtime()


@asynccontextmanager
async def operator(sources: Sources) -> AsyncGenerator[Connection]:
    """Connects to the broker with all rights."""
    runtime = sources.runtime()
    seed_file = runtime.credentials.get("operator") if not sources.nats else None
    connection = await connect(
        sources.nats or runtime.nats,
        "operator",
        inbox_prefix=inbox_prefix("operator"),
        nkey_seed=Path(seed_file).read_text().strip() if seed_file else None,  # noqa: ASYNC240 - a small file
    )
    try:
        yield connection
    finally:
        await connection.close()


async def collect(sources: Sources, counts: Counts, accepted: Collection[str]) -> Facts:
    """Collects everything; raises what the platform raises while it cannot be asked."""
    async with operator(sources) as connection:
        terminal = await _terminal(connection)
        dead_tasks = await _dead_tasks(connection)
        queues = await _queues(connection, sources.pools)
    database = await asyncpg.connect(sources.database or sources.runtime().database)
    try:
        booked = await _booked(database)
        charges = await _charges(database)
    finally:
        await database.close()
    async with aiohttp.ClientSession(sources.http, headers=_bearer(sources.key)) as session:
        states = await shown(session, accepted)
    async with aiohttp.ClientSession(sources.http, headers=_bearer(sources.admin_key)) as session:
        possible = await _possible(session)
    return Facts(
        accepted=frozenset(accepted),
        terminal=terminal,
        shown=states,
        calls=called(counts.requests, sources),
        booked=booked,
        possible=possible,
        charges=charges,
        queues=queues,
        probes=await probes(sources),
        dead_tasks=dead_tasks,
        permits_in_use=await permits_in_use(sources),
        running_attempts=queues.get(s.WORK),
    )


def called(requests: Iterable[LoggedCall], sources: Sources) -> dict[CallKey, tuple[Called, ...]]:
    """Returns the simulator's calls by the attempt that each named in its header."""
    found: dict[CallKey, tuple[Called, ...]] = {}
    for call in requests:
        key = key_of(call.attempt or "")
        if key is None:
            continue
        generated = call.outcome == "completed" or call.completion_tokens > 0
        picos = (
            call.prompt_tokens * sources.picos_per_input_token + call.completion_tokens * sources.picos_per_output_token
        )
        found[key] = (*found.get(key, ()), Called(call.outcome, picos if generated else 0))
    return found


def key_of(attempt: str) -> CallKey | None:
    """Reads ``<task>.<attempt>.<delivery>``; none where it is something else."""
    task_id, _, rest = attempt.partition(".")
    number, _, delivery = rest.partition(".")
    if not (task_id and number.isdigit() and delivery.isdigit()):
        return None
    return CallKey(task_id, int(number), int(delivery))


async def probes(sources: Sources) -> dict[str, bool]:
    """Asks every readiness probe; one that does not answer is not ready."""
    ports = sources.runtime().admin_ports
    addresses = {name: f"http://127.0.0.1:{port}/health/ready" for name, port in ports.items()}
    addresses |= sources.probes
    timeout = aiohttp.ClientTimeout(total=3)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def ready(url: str) -> bool:
            try:
                async with session.get(url) as response:
                    return response.status == 200
            except (aiohttp.ClientError, TimeoutError):
                return False

        answers = await asyncio.gather(*map(ready, addresses.values()))
    return dict(zip(addresses, answers, strict=True))


async def permits_in_use(sources: Sources) -> int | None:
    """Sums the routers' gauge of permits; none where it is not there."""
    port = sources.runtime().admin_ports.get("router")
    if port is None:
        return None
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as response,
    ):
        lines = (await response.text()).splitlines()
    values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(PERMITS_METRIC)]
    return int(sum(values)) if values else None


async def read_all(connection: Connection, stream: str, filters: Sequence[str]) -> list[Delivery]:
    """Returns everything that stands on the filters, in order; raises TimeoutError if it takes too long."""
    found: list[Delivery] = []
    reader = OrderedReader(connection, stream, filters, found.append, label="facts")
    reader.start()
    try:
        async with asyncio.timeout(READ_SECONDS):
            await reader.caught_up.wait()
    finally:
        await reader.stop()
    return found


async def _terminal(connection: Connection) -> dict[str, tuple[Terminal, ...]]:
    claims = ClaimStore(connection)
    found: dict[str, tuple[Terminal, ...]] = {}
    for delivery in await read_all(connection, s.EVENTS, [s.TASK_SETTLED_ALL]):
        claim = delivery.header(s.H_CLAIM)
        try:
            settled = codec.settled.decode(await claims.get(claim) if claim else delivery.payload)
        except ContractError:
            continue  # a fault put it there; who reads it has to bury it
        age_ms = settled.settled_at_ms - settled.task.created_at_ms
        one = Terminal(_STATES[type(settled)], settled.usage.charge_usd_picos, age_ms)
        found[settled.task.id] = (*found.get(settled.task.id, ()), one)
    return found


async def _dead_tasks(connection: Connection) -> frozenset[str]:
    """Tasks that dead letters speak of: by a field of their own where there is one, else by their original bytes."""
    found: set[str] = set()
    for delivery in await read_all(connection, s.DEAD, [s.DEAD_ALL]):
        try:
            letter = codec.journey.decode(delivery.payload)
        except ContractError:
            continue
        if not isinstance(letter, DeadLetter):
            continue
        task_id: str = getattr(letter, "task", "") or getattr(letter, "task_id", "")
        if not task_id:
            try:
                original: Any = codec.journey.decode(letter.payload)
            except ContractError:
                continue
            task_id = original.task.id if hasattr(original, "task") else ""
        found.add(task_id)
    return frozenset(found - {""})


async def _queues(connection: Connection, pools: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for stream in (s.INGRESS, s.WORK):
        info = msgspec.json.decode(await connection.api(f"STREAM.INFO.{stream}"))
        counts[stream] = info["state"]["messages"]
    for consumer in topology.consumers(pools):
        name = f"{consumer.stream}/{consumer.durable}"
        info = msgspec.json.decode(await connection.api(f"CONSUMER.INFO.{consumer.stream}.{consumer.durable}"))
        if "error" not in info:
            counts[name] = info["num_pending"] + info["num_ack_pending"]
    return counts


async def _booked(database: Any) -> dict[CallKey, Booked]:
    rows = await database.fetch(
        "SELECT task_id, attempt, delivery, cost_picos, estimated, wasted FROM billing.attempts"
    )
    return {
        CallKey(row["task_id"], row["attempt"], row["delivery"]): Booked(
            int(row["cost_picos"]), row["estimated"], row["wasted"]
        )
        for row in rows
    }


async def _charges(database: Any) -> dict[str, tuple[int, ...]]:
    rows: defaultdict[str, tuple[int, ...]] = defaultdict(tuple)
    for row in await database.fetch("SELECT task_id, charge_picos FROM billing.tasks"):
        rows[row["task_id"]] += (int(row["charge_picos"]),)
    return dict(rows)


async def shown(session: aiohttp.ClientSession, accepted: Collection[str]) -> dict[str, str]:
    """Returns the state of each task as its tenant sees it (``missing``: 404)."""
    limit = asyncio.Semaphore(_CONCURRENT_GETS)

    async def one(task_id: str) -> tuple[str, str]:
        async with limit, session.get(f"/v1/tasks/{task_id}") as response:
            if response.status == 404:
                return task_id, "missing"
            response.raise_for_status()
            return task_id, (await response.json())["state"]

    return dict(await asyncio.gather(*map(one, accepted)))


async def _possible(session: aiohttp.ClientSession) -> frozenset[CallKey]:
    async with session.get("/v1/admin/possible-spend") as response:
        response.raise_for_status()
        listed = await response.json()
    return frozenset(CallKey(row["task_id"], row["attempt"], row["delivery"]) for row in listed["data"])


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
