"""``collegium bench tasks``: tasks a second from submit to completed, with every guarantee on.

One run starts the simulator and a whole platform, submits the tasks over a door as clients would, and waits until every
accepted one has settled and is booked; then, where asked, the same work goes through peers on the same machine. One
rule: a rate counts only what settled once, and the run says what was lost or doubled.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from collegium_cli.bench import figures, processes, profiles
from collegium_cli.bench.peers import PeerOptions, run_peers
from collegium_cli.bench.stage import Stage, StageOptions, simulator, stage
from collegium_cli.bench.submitting import submitting
from collegium_cli.bench.watching import Outcome, SettledCounter, operator_of, outcome

TENANT = "bench"
POLL_SECONDS = 0.2
# Longer than a lease: what a restarted part had in hand comes again.
STALLED_SECONDS = 45.0
BOOKED_SECONDS = 120.0
SAMPLES_AT_MOST = 200


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure; ``memory`` samples every process's memory along the way, ``profile`` where its time goes."""

    tasks: int = 10_000
    clients: int = 64
    via: str = "http"
    wait_seconds: int = 0
    sample_ratio: float = 0.0
    memory: bool = False
    profile: bool = False
    apart: tuple[str, ...] = ()
    keep: Path | None = None
    peers: PeerOptions = PeerOptions()


class _Watch(msgspec.Struct):
    """What was seen while the tasks ran: when how many had settled, and the memory of each process at those points."""

    settled: int = 0
    samples: list[tuple[int, dict[str, float]]] = []


def run(options: Options) -> dict[str, Any]:
    """Measures and returns the figures: ``collegium``, and one report a peer."""
    report: dict[str, Any] = {"tasks": options.tasks, "clients": options.clients, "via": options.via}
    environment: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        if options.profile:
            environment = stack.enter_context(
                profiles.folder(options.keep / "profile" if options.keep is not None else None)
            )
        chosen = StageOptions(
            tenants={TENANT: "enterprise"},
            sample_ratio=options.sample_ratio,
            apart=options.apart,
            environment=environment,
            keep=options.keep,
        )
        running = stack.enter_context(stage(chosen))
        report["collegium"] = asyncio.run(_measure(running, options, environment))
    if options.peers.names:
        with simulator() as model:
            report["peers"] = run_peers(options.peers, model["base_url"], options.tasks, options.clients)
    return report


async def _measure(running: Stage, options: Options, environment: dict[str, str]) -> dict[str, Any]:
    async with operator_of(running) as connection:
        counter = SettledCounter(connection)
        await counter.start()
        await _warm_up(running, options, counter)
        warmed = await counter.count()
        pids = {**running.pids(), "simulator": running.simulator["pid"]}
        cpu, busy, memory = processes.cpu_seconds(pids), processes.machine_busy_seconds(), processes.memory_mb(pids)
        began = time.monotonic()
        profiles.toggle(environment, running.pids())
        plan: dict[str, object] = {"tasks": options.tasks, "clients": options.clients}
        if options.wait_seconds:
            plan["wait_seconds"] = options.wait_seconds
        async with submitting(running, TENANT, via=options.via, **plan) as submission:
            result = asyncio.ensure_future(submission.result())
            watch = await _until_settled(counter, warmed, result, pids, options)
            submitted, ids = await result
        sampled = profiles.toggle(environment, running.pids())
        took = time.monotonic() - began
        spent = {name: round(after - cpu[name], 2) for name, after in processes.cpu_seconds(pids).items()}
        machine = processes.machine_busy_seconds() - busy
        lag = await _until_booked(running, watch.settled + warmed)
        seen = await outcome(connection)
    report = _report(submitted, ids, seen)
    report["cpu_seconds"] = spent
    report["cpu_us_per_task"] = {name: round(value / max(1, len(ids)) * 1e6) for name, value in spent.items()}
    report["others_busy_share"] = round(max(0.0, machine - sum(spent.values())) / max(took, 1e-9), 2)
    report["memory_mb"] = {"before": memory, "after": processes.memory_mb(pids)}
    report["booked_seconds_after_last_settled"] = lag
    report["load_average"] = processes.load_average()
    if options.memory:
        report["memory"] = _memory(watch)
    if options.profile:
        report["profile"] = profiles.read(environment, sampled, max(1, len(ids)))
    return report


async def _warm_up(running: Stage, options: Options, counter: SettledCounter) -> None:
    """Sends a few hundred tasks first, so that connections and caches are as they are in a running platform."""
    tasks = min(300, options.tasks)
    async with submitting(running, TENANT, via=options.via, tasks=tasks, clients=min(16, options.clients)) as warm:
        _, ids = await warm.result()
    deadline = time.monotonic() + STALLED_SECONDS
    while await counter.count() < len(ids) and time.monotonic() < deadline:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(POLL_SECONDS)


async def _until_settled(
    counter: SettledCounter, warmed: int, result: asyncio.Future[Any], pids: dict[str, int], options: Options
) -> _Watch:
    """Waits until everything that was accepted has settled, or nothing has for a while."""
    watch = _Watch()
    step = max(1, options.tasks // SAMPLES_AT_MOST)
    last_change = time.monotonic()
    while True:
        settled = await counter.count() - warmed
        if settled != watch.settled:
            watch.settled, last_change = settled, time.monotonic()
            if options.memory and (not watch.samples or settled - watch.samples[-1][0] >= step):
                watch.samples.append((settled, processes.memory_mb(pids)))
                print(f"  {settled} settled, {watch.samples[-1][1]}", file=sys.stderr, flush=True)
        if result.done() and (settled >= len(result.result()[1]) or result.exception() is not None):
            return watch
        if time.monotonic() - last_change > STALLED_SECONDS:
            return watch
        await asyncio.sleep(POLL_SECONDS)


async def _until_booked(running: Stage, expected: int) -> float | None:
    """Returns how long after the last task settled the usage report holds them all; none where it never did."""
    began = time.monotonic()
    headers = {"Authorization": f"Bearer {running.keys[TENANT]}"}
    async with aiohttp.ClientSession(running.http, headers=headers) as session:
        while time.monotonic() - began < BOOKED_SECONDS:
            async with session.get("/v1/usage") as response:
                body = await response.json()
            if response.status == 200 and body["totals"]["requests"] >= expected:
                # More than was settled would be a task booked twice.
                return round(time.monotonic() - began, 2) if body["totals"]["requests"] == expected else None
            await asyncio.sleep(POLL_SECONDS)
    return None


def _report(submitted: dict[str, Any], ids: set[str], seen: Outcome) -> dict[str, Any]:
    settled = {task_id: task for task_id, task in seen.tasks.items() if task_id in ids}
    times = sorted(task.settled_ms for task in settled.values())
    began = submitted["first_sent_ms"]
    completed = sum(task.state == "TaskCompleted" for task in settled.values())
    return {
        "accepted": len(ids),
        "accepted_per_second": figures.per_second(len(ids), began, submitted["last_accepted_ms"]),
        "accept_ms": {"p50": submitted["p50_ms"], "p99": submitted["p99_ms"]},
        "refused_for_now": submitted["refused"],
        "unanswered": submitted["unanswered"],
        "completed": completed,
        "completed_per_second": figures.per_second(completed, began, times[-1]) if times else None,
        "steady_per_second": figures.steady_rate(times),
        "submit_to_settled": figures.spread(task.settled_ms - task.created_ms for task in settled.values()),
        "lost": len(ids) - len(settled),
        "doubled": len(seen.doubled),
        "failed": len(settled) - completed,
    }


def _memory(watch: _Watch) -> dict[str, Any]:
    """Returns each process's samples and its slope in MB per 100,000 tasks, without the first third."""
    names = watch.samples[0][1] if watch.samples else {}
    series = {name: [(settled, sample[name]) for settled, sample in watch.samples] for name in names}
    slopes = {name: figures.settled_slope(points) for name, points in series.items()}
    return {
        "mb_per_100k_tasks": {name: None if one is None else round(one * 1e5, 2) for name, one in slopes.items()},
        "samples": series,
    }


def table(report: dict[str, Any]) -> str:
    """Returns the figures as a table for people."""
    own = report["collegium"]
    lines = ["target            accepted/s  completed/s   p50 ms   p99 ms  lost  doubled"]
    for name, one in {"collegium": own, **report.get("peers", {})}.items():
        if "error" in one:
            lines.append(f"{name:<18}{one['error']}")
            continue
        spread = one["submit_to_settled"]
        lines.append(
            f"{name:<18}{one['accepted_per_second'] or 0:>10.0f}{one['completed_per_second'] or 0:>13.0f}"
            f"{spread['p50_ms'] or 0:>9.0f}{spread['p99_ms'] or 0:>9.0f}{one['lost']:>6}{one['doubled']:>9}"
        )
    lines.append("")
    lines.append("process                        CPU s  µs/task  memory MB before  after")
    for name, seconds in own["cpu_seconds"].items():
        before, after = own["memory_mb"]["before"].get(name), own["memory_mb"]["after"].get(name)
        lines.append(f"{name:<28}{seconds:>8.2f}{own['cpu_us_per_task'][name]:>9}{before:>18}{after:>7}")
    booked = own["booked_seconds_after_last_settled"]
    lines.append(f"booked {booked} s after the last task settled; load average {own['load_average']}")
    if "memory" in own:
        lines.append(f"MB per 100,000 tasks: {own['memory']['mb_per_100k_tasks']}")
    if "profile" in own:
        lines.append(profiles.table(own["profile"]))
    return "\n".join(lines)


def main(options: Any) -> int:
    """Runs the verb ``bench tasks`` and prints the figures; returns 1 where a task was lost or doubled."""
    report = run(
        Options(
            tasks=options.tasks,
            clients=options.clients,
            via=options.via,
            wait_seconds=options.wait_seconds,
            sample_ratio=options.sample_ratio,
            memory=options.memory,
            profile=options.profile,
            apart=options.apart,
            keep=options.data.resolve() if options.data is not None else None,
            peers=PeerOptions(names=options.peers, python=options.peer_python, redis=options.redis_server),
        )
    )
    print(json.dumps(report) if options.json else table(report))
    own = report["collegium"]
    return 0 if own["lost"] == own["doubled"] == 0 else 1
