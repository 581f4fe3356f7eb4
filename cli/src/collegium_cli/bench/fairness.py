"""``collegium bench fairness``: what a tenant waits beside a greedy one, and whether shares follow weights.

Neighbour: tenant B submits at half its fair share, alone and then beside A, which submits many times its own share; a
task's wait is the time from its creation to its terminal message, less the model's own time. Weights: three tenants of
tiers 1:4:16 fill their queues, and what completes while all three are backlogged is counted. One rule: both sides of a
comparison run on one platform, one after the other, with the same model.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from collegium_cli.bench import figures, processes
from collegium_cli.bench.stage import Stage, StageOptions, stage
from collegium_cli.bench.submitting import submitting
from collegium_cli.bench.watching import Outcome, operator_of, outcome

GREEDY, ORDINARY = "greedy", "ordinary"
WEIGHTS = {"light": 1.0, "middle": 4.0, "heavy": 16.0}
_TIERS = {"light": "free", "middle": "pro", "heavy": "enterprise"}
SHARE_ERROR_MAX = 0.10
# Beyond this nothing that is still queued tells anything new; the platform is thrown away with it.
DRAIN_SECONDS = 60.0
WEIGHTS_SECONDS = 120.0
POLL_SECONDS = 0.5
# The gateway's door takes no more than so many a second on two cores; a greedy tenant's excess is cut there.
GREEDY_RATE_MAX = 1500.0


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure: the model's time and how many calls it takes at a time set the platform's capacity."""

    part: str = "both"
    seconds: float = 20.0
    times: float = 100.0
    model_ms: float = 50.0
    concurrency: int = 1
    backlog: int = 1_000
    keep: Path | None = None


def run(options: Options) -> dict[str, Any]:
    """Measures and returns the figures of the parts that were asked for."""
    report: dict[str, Any] = {"model_ms": options.model_ms, "concurrency": options.concurrency}
    if options.part in ("neighbour", "both"):
        print("  neighbour …", file=sys.stderr, flush=True)
        with stage(
            _staged(options, {GREEDY: "pro", ORDINARY: "pro"}, options.model_ms, options.concurrency)
        ) as running:
            report["neighbour"] = asyncio.run(_neighbour(running, options))
    if options.part in ("weights", "both"):
        print("  weights …", file=sys.stderr, flush=True)
        with stage(_staged(options, _TIERS, min(20.0, options.model_ms), max(4, options.concurrency))) as running:
            report["weights"] = asyncio.run(_weights(running, options))
    report["load_average"] = processes.load_average()
    return report


def _staged(options: Options, tenants: dict[str, str], delay_ms: float, concurrency: int) -> StageOptions:
    return StageOptions(tenants=tenants, delay_ms=delay_ms, concurrency=concurrency, keep=options.keep)


async def _neighbour(running: Stage, options: Options) -> dict[str, Any]:
    capacity = options.concurrency * 1000 / options.model_ms
    share = capacity / 2
    ordinary: dict[str, Any] = {"rate": share / 2, "seconds": options.seconds, "clients": 16, "label": "alone"}
    async with operator_of(running) as connection:
        async with submitting(running, ORDINARY, **ordinary) as submission:
            _, alone_ids = await submission.result()
        await _settled(running, alone_ids, ORDINARY)
        greedy: dict[str, Any] = {
            "rate": min(GREEDY_RATE_MAX, options.times * share),
            # Begins earlier and ends later, so that the whole of B's run is beside it.
            "seconds": options.seconds + 4,
            "clients": 64,
        }
        async with submitting(running, GREEDY, **greedy) as neighbour:
            await asyncio.sleep(2)
            async with submitting(running, ORDINARY, **ordinary | {"label": "beside"}) as submission:
                _, beside_ids = await submission.result()
            greedy_report, _ = await neighbour.result()
        await _settled(running, beside_ids, ORDINARY)
        seen = await outcome(connection, with_starts=True)
    alone = _waits(seen, alone_ids, options.model_ms)
    beside = _waits(seen, beside_ids, options.model_ms)
    return _judged(
        {
            "capacity_per_second": capacity,
            "ordinary_rate": ordinary["rate"],
            "greedy_rate_wanted": options.times * share,
            "greedy_rate_sent": round(
                (greedy_report["accepted"] + sum(greedy_report["refused"].values())) / (options.seconds + 4), 1
            ),
            "greedy_accepted": greedy_report["accepted"],
            "greedy_refused": greedy_report["refused"],
            "alone": alone,
            "beside": beside,
        },
        options.model_ms,
    )


def _judged(report: dict[str, Any], model_ms: float) -> dict[str, Any]:
    """Adds the limit and whether it was kept; a task that had not settled when the run ended breaks it."""
    alone, beside = report["alone"]["wait"]["p99_ms"], report["beside"]["wait"]["p99_ms"]
    limit = None if alone is None else round(figures.wait_limit_ms(max(0.0, alone), model_ms), 1)
    kept = beside is not None and limit is not None and beside <= limit and report["beside"]["open"] == 0
    return {**report, "wait_p99_limit_ms": limit, "kept": kept}


def _waits(seen: Outcome, ids: set[str], model_ms: float) -> dict[str, Any]:
    tasks = [seen.tasks[task_id] for task_id in ids if task_id in seen.tasks]
    return {
        "open": len(ids) - len(tasks),
        "to_started": figures.spread(task.started_ms - task.created_ms for task in tasks if task.started_ms),
        "to_settled": figures.spread(task.settled_ms - task.created_ms for task in tasks),
        "wait": figures.spread(max(0.0, task.settled_ms - task.created_ms - model_ms) for task in tasks),
    }


async def _settled(running: Stage, ids: set[str], tenant: str) -> None:
    """Waits until these tasks have settled, but not for ever: a starved tenant is a result too."""
    deadline = asyncio.get_running_loop().time() + DRAIN_SECONDS
    async with operator_of(running) as connection:
        while asyncio.get_running_loop().time() < deadline:
            seen = await outcome(connection)
            if ids <= seen.tasks.keys():
                return
            await asyncio.sleep(POLL_SECONDS)
    print(f"  {tenant}: some tasks have not settled in {DRAIN_SECONDS:g} s", file=sys.stderr)


async def _weights(running: Stage, options: Options) -> dict[str, Any]:
    async def fill(tenant: str) -> float:
        async with submitting(running, tenant, tasks=options.backlog, clients=16) as submission:
            submitted, _ = await submission.result()
            last: float = submitted["last_accepted_ms"]
            return last

    async with operator_of(running) as connection:
        filled_ms = max(await asyncio.gather(*(fill(tenant) for tenant in WEIGHTS)))
        deadline = asyncio.get_running_loop().time() + WEIGHTS_SECONDS
        while True:
            seen = await outcome(connection)
            settled = {tenant: [task.settled_ms for task in seen.of(tenant)] for tenant in WEIGHTS}
            enough = max(len(times) for times in settled.values()) >= 0.95 * options.backlog
            if enough or asyncio.get_running_loop().time() > deadline:
                return judge_weights(filled_ms, settled, options.backlog)
            await asyncio.sleep(POLL_SECONDS)


def judge_weights(filled_ms: float, settled_ms: dict[str, list[float]], backlog: int) -> dict[str, Any]:
    """Returns the shares while all were backlogged, and by how much each misses its weight's promise. Pure."""
    report: dict[str, Any] = {"weights": WEIGHTS, "settled": {tenant: len(one) for tenant, one in settled_ms.items()}}
    window = figures.contended_window(filled_ms, settled_ms, backlog)
    found = figures.shares(settled_ms, window) if window is not None else None
    if window is None or found is None:
        return {**report, "shares": None, "kept": False}
    errors = figures.share_errors(found, WEIGHTS)
    return {
        **report,
        "window_seconds": round((window[1] - window[0]) / 1000, 2),
        "shares": {tenant: round(share, 4) for tenant, share in found.items()},
        "promised": {tenant: round(weight / sum(WEIGHTS.values()), 4) for tenant, weight in WEIGHTS.items()},
        "errors": {tenant: round(error, 4) for tenant, error in errors.items()},
        "kept": all(abs(error) <= SHARE_ERROR_MAX for error in errors.values()),
    }


def table(report: dict[str, Any]) -> str:
    """Returns the figures as lines for people."""
    lines: list[str] = []
    if (one := report.get("neighbour")) is not None:
        lines.append("B's wait         p50 ms   p99 ms   max ms  open")
        for name in ("alone", "beside"):
            wait = one[name]["wait"]
            shown = " ".join(f"{_shown(wait[column]):>8}" for column in ("p50_ms", "p99_ms", "max_ms"))
            lines.append(f"{name:<14}{shown}{one[name]['open']:>6}")
        lines.append(
            f"p99 limit {_shown(one['wait_p99_limit_ms'])} ms: {'kept' if one['kept'] else 'MISSED'}"
            f" (A sent {one['greedy_rate_sent']:.0f}/s of {one['greedy_rate_wanted']:.0f}/s,"
            f" B {one['ordinary_rate']:.1f}/s, the model takes {one['capacity_per_second']:.0f}/s)"
        )
    if (one := report.get("weights")) is not None:
        for tenant in WEIGHTS if one["shares"] else ():
            share, error = one["shares"][tenant], one["errors"][tenant]
            lines.append(f"{tenant:<8} share {share:.3f}, promised {one['promised'][tenant]:.3f}, off by {error:+.1%}")
        lines.append(f"weights 1:4:16 within {SHARE_ERROR_MAX:.0%}: {'kept' if one['kept'] else 'MISSED'}")
    lines.append(f"load average {report['load_average']}")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def main(options: Any) -> int:
    """Runs the verb ``bench fairness`` and prints the figures; returns 1 where a target was missed."""
    report = run(
        Options(
            part=options.part,
            seconds=options.seconds,
            times=options.times,
            model_ms=options.model_ms,
            concurrency=options.concurrency,
            backlog=options.backlog,
            keep=options.data.resolve() if options.data is not None else None,
        )
    )
    print(json.dumps(report) if options.json else table(report))
    return 0 if all(report[part]["kept"] for part in ("neighbour", "weights") if part in report) else 1
