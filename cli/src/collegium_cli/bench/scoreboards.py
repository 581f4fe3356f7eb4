"""``collegium bench scoreboards``: how long evolution takes to fold so many settled tasks from nothing.

A broker, a database and evolution alone are started; the events are published as fast as the broker takes them, while
evolution folds. One rule: time runs from the first event to the last one that is in the scores, and in the end the
scores must hold every event once.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from collegium_bus.connection import Connection
from collegium_bus.publisher import Publisher
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import AttemptUsage, TaskCompleted, TaskRef
from collegium_contracts.money import Usage
from collegium_runtime import runtime_file
from collegium_store import open_connection

from collegium_cli.bench.stage import StageError, child
from collegium_cli.environment import settings_of
from collegium_cli.tasks.operator import operator
from collegium_cli.up.credentials import OPERATOR

TENANTS: Final = 50
MODELS: Final = ("small", "middle", "large", "sim")
RANKS: Final = ("student", "student", "teacher", "ta")
DOMAINS: Final = 20
# Sent without waiting, and then one that is waited for, so that neither side's buffers grow.
AT_ONCE: Final = 2_000
SILENT_SECONDS: Final = 60.0
_ANSWER: Final = Envelope("identity", b"", b"x" * 200)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How many settled tasks, and where it runs (none: a folder that goes with it)."""

    events: int = 1_000_000
    keep: Path | None = None


def run(options: Options) -> dict[str, Any]:
    """Measures and returns the figures."""
    with contextlib.ExitStack() as stack:
        folder = options.keep
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="collegium-bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        config, data = folder / "collegium.yaml", folder / "data"
        evolution = {"interval_queries": 10**12}
        config.write_text(json.dumps({"embedded_model": False, "evolution": evolution}))
        stack.enter_context(
            child("collegium_cli", "up", "--json", "--only", "evolution", "--config", str(config), "--data", str(data))
        )
        return asyncio.run(_measure(config, data, options))


async def _measure(config: Path, data: Path, options: Options) -> dict[str, Any]:
    runtime = runtime_file.read(data)
    if runtime is None:
        raise StageError("the platform has written no runtime file")
    database = await open_connection(runtime.database, application_name="collegium-bench")
    try:
        async with operator(settings_of(config, data), runtime, OPERATOR) as connection:
            began = time.monotonic()
            await _publish(connection, options.events)
            published = time.monotonic() - began
            await _folded(database, options.events)
            took = time.monotonic() - began
        hours = await database.fetchval("SELECT sum(calls)::int8 FROM evolution.windows")
        settled = await database.fetchval("SELECT settled FROM evolution.progress")
    finally:
        await database.close()
    return {
        "events": options.events,
        "published_seconds": round(published, 1),
        "folded_seconds": round(took, 1),
        "events_per_second": round(options.events / took),
        "counted_by_hour": hours,
        "counted_settled": settled,
    }


async def _publish(connection: Connection, count: int) -> None:
    publisher = Publisher(connection)
    events = _events(count)
    for begin in range(0, count, AT_ONCE):
        for _ in range(min(AT_ONCE, count - begin) - 1):
            subject, payload = next(events)
            connection.publish(subject, payload)
        subject, payload = next(events)
        await publisher.publish(subject, payload, message_id="", headers={})


def _events(count: int) -> Iterator[tuple[str, bytes]]:
    chance = random.Random(1)  # noqa: S311 - the same events every time
    now_ms = int(time.time() * 1000)
    for number in range(count):
        tenant, place = f"bench{number % TENANTS}", number % len(MODELS)
        task = TaskRef(
            id=ids.task_id(now_ms, number.to_bytes(10, "big")),
            tenant=tenant,
            created_at_ms=now_ms,
            deadline_ms=now_ms + 50_000,
            model="auto",
            domain=f"domain{chance.randrange(DOMAINS)}",
        )
        usage = Usage(input_tokens=100, output_tokens=50, cost_usd_picos=1_000, charge_usd_picos=1_200)
        call = AttemptUsage(
            number=1,
            delivery=1,
            model=MODELS[place],
            rank=RANKS[place],
            usage=usage,
            duration_ms=chance.randrange(3_000),
        )
        settled = TaskCompleted(
            task=task, plan="single", stop_reason="completed", usage=usage, attempts=[call], settled_at_ms=now_ms,
            model=call.model, rank=call.rank, output=_ANSWER,
        )  # fmt: skip
        yield s.task_settled(tenant, task.id), codec.encode(settled)


async def _folded(database: Any, count: int) -> None:
    """Waits until every event is in the scores; raises StageError where nothing comes any more."""
    last, since = -1, time.monotonic()
    while last < count:
        found = await database.fetchval("SELECT coalesce(sum(calls), 0)::int8 FROM evolution.scores")
        if found != last:
            last, since = found, time.monotonic()
        elif time.monotonic() - since > SILENT_SECONDS:
            raise StageError(f"only {last} of {count} events were folded")
        await asyncio.sleep(0.2)


def main(options: Any) -> int:
    """Runs the verb ``bench scoreboards`` and prints the figures; returns 1 where an event was not counted once."""
    keep = options.data.resolve() if options.data is not None else None
    report = run(Options(events=options.events, keep=keep))
    if options.json:
        print(json.dumps(report))
    else:
        print("\n".join(f"{name:<20} {value}" for name, value in report.items()))
    return 0 if report["counted_by_hour"] == report["counted_settled"] == options.events else 1
