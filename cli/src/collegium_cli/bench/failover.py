"""``collegium bench failover``: how long a killed process is felt, and what is lost or doubled by it.

For each part in turn: a platform of its own (with two worker pools, apart from the rest), tasks submitted at a steady
rate, ``kill -9`` of the part's process, and afterwards a look at what became of every accepted task and at the books.
A killed worker pool is not started again, its peer takes over; everything else is. One rule: recovered means that all
that was accepted before the kill has settled, whoever held it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from collegium_contracts.consumers import work_consumer

from collegium_cli.bench import figures, processes
from collegium_cli.bench.stage import Stage, StageOptions, stage
from collegium_cli.bench.submitting import submitting
from collegium_cli.bench.watching import SettledTask, operator_of, outcome

TENANT = "bench"
WORKERS = ("worker-pool", "worker-pool")
# What to kill, and the process that runs it on the stage.
PARTS = {
    "worker": "worker-pool-1",
    "router": "router",
    "gateway": "gateway",
    "back-office": "billing",
    "broker": "nats",
    "database": "postgres",
}
LEASE_SECONDS = work_consumer("general").ack_wait_seconds
LIMIT_SECONDS = {"worker": LEASE_SECONDS + 2.0}
# Killed in the middle of their work, everything else is back within what a leader's death may cost.
OTHERS_LIMIT_SECONDS = 30.0
DRAIN_SECONDS = 90.0
BOOKED_SECONDS = 30.0


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to kill, and the load meanwhile: tasks a second, the model's time, seconds before and after the kill."""

    kill: tuple[str, ...] = tuple(PARTS)
    rate: float = 40.0
    model_ms: float = 200.0
    before_seconds: float = 4.0
    after_seconds: float = 30.0
    keep: Path | None = None


def run(options: Options) -> dict[str, Any]:
    """Kills each part on a platform of its own and returns the figures by part."""
    report: dict[str, Any] = {"rate": options.rate, "model_ms": options.model_ms, "kills": {}}
    for part in options.kill:
        print(f"  kill -9 of the {part} …", file=sys.stderr, flush=True)
        keep = options.keep / part if options.keep is not None else None
        chosen = StageOptions(tenants={TENANT: "enterprise"}, delay_ms=options.model_ms, apart=WORKERS, keep=keep)
        with stage(chosen) as running:
            report["kills"][part] = asyncio.run(_measure(running, part, options))
    report["load_average"] = processes.load_average()
    return report


async def _measure(running: Stage, part: str, options: Options) -> dict[str, Any]:
    seconds = options.before_seconds + options.after_seconds
    async with submitting(running, TENANT, rate=options.rate, seconds=seconds, clients=32) as submission:
        await asyncio.sleep(options.before_seconds)
        os.kill(_pid(running, part), signal.SIGKILL)
        killed_ms = time.time() * 1000
        submitted, ids = await submission.result()
    async with operator_of(running) as connection:
        deadline = time.monotonic() + DRAIN_SECONDS
        while True:
            seen = await outcome(connection, with_starts=True)
            if ids <= seen.tasks.keys() or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.5)
    tasks = seen.tasks
    figures_of = recovery([tasks[task_id] for task_id in ids if task_id in tasks], killed_ms, options.model_ms)
    booked = await _booked(running, len(tasks))
    return {
        "accepted": len(ids),
        "refused": submitted["refused"],
        "unanswered": submitted["unanswered"],
        "late": submitted["late"],
        **figures_of,
        "limit_seconds": LIMIT_SECONDS.get(part, OTHERS_LIMIT_SECONDS),
        "lost": len(ids - tasks.keys()),
        "doubled": len(seen.doubled),
        "settled": len(tasks),
        "booked": booked,
        "model_calls": await _calls(running),
    }


def _pid(running: Stage, part: str) -> int:
    name = PARTS[part]
    if name in running.replicas:
        return running.replicas[name].pid
    return running.runtime().pids[name]


def recovery(tasks: Iterable[SettledTask], killed_ms: float, model_ms: float) -> dict[str, Any]:
    """Returns, in seconds from the kill: until all that was accepted before it settled, and the longest silence. Pure.

    ``held`` are the tasks that existed at the kill and settled after it; a few of them would have needed no more than
    the model's own time, which is taken off the recovery.
    """
    known = list(tasks)
    held = [task for task in known if task.created_ms < killed_ms < task.settled_ms]
    recovered = max((task.settled_ms for task in held), default=killed_ms + model_ms) - killed_ms - model_ms
    settled = [task.settled_ms for task in known]
    # Up to the last submission: after it silence means nothing.
    loaded_ms = max((task.created_ms for task in known), default=killed_ms)
    silence = figures.longest_gap_ms(settled, killed_ms, max(killed_ms, loaded_ms))
    after = [task.settled_ms - task.created_ms for task in known if task.created_ms >= killed_ms]
    return {
        "held": len(held),
        "recovered_seconds": round(max(0.0, recovered) / 1000, 2),
        "longest_silence_seconds": round(silence / 1000, 2),
        "created_after": figures.spread(after),
    }


async def _booked(running: Stage, expected: int) -> int | None:
    """Returns how many tasks the usage report holds once it has as many as settled, or at the end of the patience."""
    headers = {"Authorization": f"Bearer {running.keys[TENANT]}"}
    booked: int | None = None
    deadline = time.monotonic() + BOOKED_SECONDS
    async with aiohttp.ClientSession(running.http, headers=headers) as session:
        while time.monotonic() < deadline:
            with contextlib.suppress(aiohttp.ClientError, KeyError):
                async with session.get("/v1/usage") as response:
                    booked = (await response.json())["totals"]["requests"]
            if booked is not None and booked >= expected:
                break
            await asyncio.sleep(0.2)
    return booked


async def _calls(running: Stage) -> int:
    """Returns how many calls the model was asked for: more than tasks where some were made twice."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{running.simulator['url']}/control/counts") as response,
    ):
        started: int = (await response.json())["totals"]["started"]
        return started


def kept(one: dict[str, Any]) -> bool:
    """Whether nothing was lost, doubled or booked twice, and the part was back in time."""
    whole = one["lost"] == one["doubled"] == 0 and one["booked"] == one["settled"]
    return whole and one["recovered_seconds"] <= one["limit_seconds"]


def table(report: dict[str, Any]) -> str:
    """Returns the figures as a table for people."""
    head = "killed        accepted  held  recovered s  limit s  silence s  later max s"
    lines = [f"{head}  lost  doubled  settled  booked  calls"]
    for part, one in report["kills"].items():
        later = (one["created_after"]["max_ms"] or 0.0) / 1000
        lines.append(
            f"{part:<14}{one['accepted']:>8}{one['held']:>6}{one['recovered_seconds']:>13.2f}"
            f"{one['limit_seconds']:>9.0f}{one['longest_silence_seconds']:>11.2f}{later:>13.2f}{one['lost']:>6}{one['doubled']:>9}"
            f"{one['settled']:>9}{one['booked'] or 0:>8}{one['model_calls']:>7}{'' if kept(one) else '  MISSED'}"
        )
    lines.append(f"load average {report['load_average']}")
    return "\n".join(lines)


def main(options: Any) -> int:
    """Runs the verb ``bench failover`` and prints the figures; returns 1 where something was lost or came back late."""
    kill = options.kill or tuple(PARTS)
    if unknown := [part for part in kill if part not in PARTS]:
        print(f"collegium bench: {', '.join(unknown)}: not one of {', '.join(PARTS)}", file=sys.stderr)
        return 2
    report = run(
        Options(
            kill=kill,
            rate=options.rate,
            model_ms=options.model_ms,
            before_seconds=options.before_seconds,
            after_seconds=options.after_seconds,
            keep=options.data.resolve() if options.data is not None else None,
        )
    )
    print(json.dumps(report) if options.json else table(report))
    return 0 if all(kept(one) for one in report["kills"].values()) else 1
