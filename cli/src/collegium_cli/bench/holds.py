"""``collegium bench holds``: holds and captures a second, and how long each takes, with budgets that cover them.

Tenants with a budget each are made; a number of askers at a time ask for a hold, store the task's terminal message as a
worker would, and go on. First over many tenants, then on one. In the end the owner's books must agree: nothing is held,
and what is captured is what was settled. One rule: every hold is journaled before it is granted, as in service.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec
from collegium_bus.ask import ask as question
from collegium_bus.connection import Connection
from collegium_bus.holding import Holds
from collegium_bus.kv import Bucket
from collegium_bus.publisher import Publisher
from collegium_bus.settle import settle
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import TaskCompleted, TaskRef
from collegium_contracts.money import Usage
from collegium_contracts.requests import HoldAsk, HoldsListReply, HoldsListRequest
from collegium_contracts.state import BudgetRecord, TenantRecord

from collegium_cli.bench import figures
from collegium_cli.bench.stage import Stage, StageError, StageOptions, stage
from collegium_cli.bench.watching import operator_of

HELD_PICOS = 1_000
CAPTURED_PICOS = 400
LIMIT_PICOS = 10**15
AGREE_SECONDS = 20.0
_ANSWER = Envelope("identity", b"", b"{}")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure."""

    holds: int = 20_000
    askers: int = 64
    tenants: int = 100
    keep: Path | None = None


def run(options: Options) -> dict[str, Any]:
    """Measures and returns the figures of both parts."""
    with stage(StageOptions(tenants={"bench": "enterprise"}, keep=options.keep)) as running:
        return asyncio.run(_measure(running, options))


async def _measure(running: Stage, options: Options) -> dict[str, Any]:
    report: dict[str, Any] = {"holds": options.holds, "askers": options.askers}
    async with operator_of(running) as connection, operator_of(running, "gateway") as gateway:
        for part, tenants in (("many tenants", options.tenants), ("one tenant", 1)):
            names = [f"{part.split()[0]}-{number}" for number in range(tenants)]
            await _introduce(connection, gateway, names)
            report[part] = await _part(connection, gateway, names, options)
    report["load_average"] = round(os.getloadavg()[0], 2)
    return report


async def _introduce(connection: Connection, gateway: Connection, names: list[str]) -> None:
    bucket = Bucket(connection, s.KV_TENANTS)
    for name in names:
        budget = BudgetRecord(id="bench", scope="tenant", limit_picos=LIMIT_PICOS)
        await bucket.put(name, codec.encode(TenantRecord(id=name, tier="enterprise", budgets=[budget])))
    holds = Holds(gateway)
    for name in names:
        await holds.ask(_asked(_task(name), 0))


async def _part(connection: Connection, gateway: Connection, names: list[str], options: Options) -> dict[str, Any]:
    holds, publisher = Holds(gateway), Publisher(connection)
    left = iter(range(options.holds))
    hold_ms: list[float] = []
    capture_ms: list[float] = []

    async def one_asker() -> None:
        for number in left:
            task = _task(names[number % len(names)])
            began = time.perf_counter()
            answer = await holds.ask(_asked(task, HELD_PICOS))
            if answer.code:
                raise StageError(f"a hold was refused: {answer.message}")
            held = time.perf_counter()
            await settle(publisher, _settled(task), settler="bench", traceparent="")
            hold_ms.append((held - began) * 1000)
            capture_ms.append((time.perf_counter() - held) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(one_asker() for _ in range(options.askers)))
    seconds = time.perf_counter() - began
    agreed = await _agreed(gateway, names, options.holds * CAPTURED_PICOS)
    return {
        "per_second": round(options.holds / seconds, 1),
        "hold": figures.spread(hold_ms),
        "capture": figures.spread(capture_ms),
        "hold_and_capture": figures.spread(a + b for a, b in zip(hold_ms, capture_ms, strict=True)),
        "books_agree_after_seconds": agreed,
    }


async def _agreed(gateway: Connection, names: list[str], captured: int) -> float | None:
    """Waits until the owners hold nothing and have captured everything; none where they do not agree in time."""
    began = time.perf_counter()
    while time.perf_counter() - began < AGREE_SECONDS:
        standings = []
        for shard in {ids.shard_of(name) for name in names}:
            reply = await question(gateway, s.holds_of_shard(shard), HoldsListRequest(), HoldsListReply)
            standings += [one for one in reply.budgets if one.tenant in set(names)]
        if sum(one.captured_picos for one in standings) == captured and not any(one.held_picos for one in standings):
            return round(time.perf_counter() - began, 2)
        await asyncio.sleep(0.05)
    return None


def _task(tenant: str) -> TaskRef:
    now_ms = time.time_ns() // 1_000_000
    return TaskRef(
        id=ids.task_id(now_ms, os.urandom(10)),
        tenant=tenant,
        created_at_ms=now_ms,
        deadline_ms=now_ms + 60_000,
        model="sim",
        tier="enterprise",
    )


def _asked(task: TaskRef, picos: int) -> HoldAsk:
    return HoldAsk(
        task=task.id, tenant=task.tenant, tier=task.tier, picos=picos, tokens=10, expires_at_ms=task.deadline_ms
    )


def _settled(task: TaskRef) -> TaskCompleted:
    usage = Usage(input_tokens=5, output_tokens=5, charge_usd_picos=CAPTURED_PICOS)
    return TaskCompleted(
        task=task,
        plan="single",
        stop_reason="completed",
        usage=usage,
        attempts=[],
        settled_at_ms=task.created_at_ms,
        model="sim",
        rank="teacher",
        output=_ANSWER,
    )


def render(report: dict[str, Any]) -> str:
    """Writes the figures as text."""
    lines = [
        f"{'holds and captures':20}{'a second':>10}{'hold p50':>10}{'p99 ms':>9}{'both p50':>10}{'p99 ms':>9}  books"
    ]
    for part in ("many tenants", "one tenant"):
        one = report[part]
        hold, both = one["hold"], one["hold_and_capture"]
        agreed = one["books_agree_after_seconds"]
        books = f"agree after {agreed} s" if agreed is not None else "DO NOT AGREE"
        lines.append(
            f"{part:20}{one['per_second']:>10.0f}{hold['p50_ms']:>10.2f}{hold['p99_ms']:>9.2f}"
            f"{both['p50_ms']:>10.2f}{both['p99_ms']:>9.2f}  {books}"
        )
    lines.append(f"load average {report['load_average']}")
    return "\n".join(lines)


def main(options: Any) -> int:
    """Runs the benchmark for the command line."""
    report = run(
        Options(
            holds=options.holds,
            askers=options.askers,
            tenants=options.tenants,
            keep=options.data.resolve() if options.data else None,
        )
    )
    print(json.dumps(report) if options.json else render(report))
    agree = all(report[part]["books_agree_after_seconds"] is not None for part in ("many tenants", "one tenant"))
    return 0 if agree else 1
