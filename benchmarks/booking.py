"""What booking costs: microseconds per settled task of ``Store.book`` on a PostgreSQL of its own, by batches.

Each batch books whole tasks of one call (its start, its end, the settled task, and their events in the archive), once
with the ledger and once without it, by turns, so that whatever else the machine does disturbs both alike.
Run: ``python benchmarks/booking.py [--tasks 1000] [--rounds 20]``.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from collegium_billing.books import ledger_store
from collegium_billing.books.booking import book
from collegium_billing.books.store import Store
from collegium_billing.migrations import MIGRATIONS
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import AttemptRef, AttemptStarted, AttemptUsage, TaskCompleted, TaskRef
from collegium_contracts.money import Price, Usage
from collegium_servers import postgres
from collegium_store import migrate, open_pool
from collegium_store.archive import ARCHIVE_MIGRATIONS, ArchivedEvent

NOW_MS = 1_767_225_600_000
PAYLOAD = b"x" * 700
PRICE = Price(input_picos=150_000, output_picos=600_000)


def task_messages(number: int) -> list[Any]:
    """The events of one task of a plan of one that billing books."""
    task = TaskRef(
        id=f"tsk_{number:026d}", tenant=f"tenant-{number % 50}", created_at_ms=NOW_MS, deadline_ms=NOW_MS + 50_000,
        model="auto", key_id=f"key{number % 200}",
    )  # fmt: skip
    attempt = AttemptRef(number=1, of=1, model="model-one", rank="student", pool="general", price=PRICE, charge=PRICE)
    usage = Usage(
        input_tokens=800, output_tokens=200, cost_usd_picos=240_000_000 + number, charge_usd_picos=240_000_000
    )
    call = AttemptUsage(number=1, delivery=1, model="model-one", rank="student", usage=usage, duration_ms=900)
    return [
        AttemptStarted(task=task, attempt=attempt, delivery=1, worker="w", at_ms=NOW_MS + number),
        TaskCompleted(
            task=task, plan="single", usage=usage, attempts=[call], settled_at_ms=NOW_MS + number, model="model-one",
            rank="student", stop_reason="completed", output=Envelope("identity", b"", b"{}"),
        ),
    ]  # fmt: skip


def archived(number: int, task: str) -> ArchivedEvent:
    """An event as the archive is given it."""
    at = datetime.fromtimestamp((NOW_MS + number) / 1000, UTC)
    return ArchivedEvent("EVENTS", number + 1, f"task.settled.t.{task}", "t", task, at, b"H" * 120, PAYLOAD)


async def measure(tasks: int, rounds: int) -> None:
    """Books batches by turns and prints the medians."""
    with tempfile.TemporaryDirectory() as folder:
        server = await postgres.start(Path(folder))
        try:
            await migrate(server.url, [ARCHIVE_MIGRATIONS, MIGRATIONS])
            pool = await open_pool(server.url, application_name="bench")
            try:
                await _rounds(Store(pool), tasks, rounds)
            finally:
                await pool.close()
        finally:
            await server.stop()


async def _rounds(store: Store, tasks: int, rounds: int) -> None:
    post = ledger_store.book
    took: dict[str, list[float]] = {"without ledger": [], "with ledger": []}

    async def nothing(_connection: Any, _books: Any) -> None: ...

    for number in range(rounds * 2):
        name = ("without ledger", "with ledger")[number % 2]
        first = number * tasks
        messages = [message for task in range(first, first + tasks) for message in task_messages(task)]
        events = [archived(2 * first + place, message.task.id) for place, message in enumerate(messages)]
        ledger_store.book = post if number % 2 else nothing
        began = time.perf_counter()
        await store.book(book(messages), events)
        took[name].append((time.perf_counter() - began) / tasks * 1e6)
    for name, values in took.items():
        values = values[2:]  # the first fill caches
        print(f"{name}: median {statistics.median(values):.1f} us a task, least {min(values):.1f}")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tasks", type=int, default=1000)
    options.add_argument("--rounds", type=int, default=20)
    given = options.parse_args()
    asyncio.run(measure(given.tasks, given.rounds))
