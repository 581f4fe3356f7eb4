"""``collegium bench swaps``: whether tasks are dropped or delayed where a routing policy is swapped under load.

Clients ask ``auto`` all the time; in every second slice of it an operator takes the learned policy back and puts it in
place again, over and over. One rule: a call counts where it was on its way when a swap was asked for, and is compared
with those of the slices beside it in which nothing was.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec

from collegium_cli.bench import figures
from collegium_cli.bench.stage import Running, StageError, child, configured, make_key

TENANT: Final = "bench"
DOMAIN: Final = "bench"
# Names, ranks, and what a million tokens cost.
MODELS: Final = (("small", "student", "1"), ("large", "teacher", "10"))
# Words about each model, more than the caution of a policy asks for.
WORDS: Final = 30
SLICES: Final = 8
WAIT_SECONDS: Final = 120.0


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How long, by how many clients, how often a swap is asked for, and how long the model takes."""

    seconds: float = 40.0
    clients: int = 8
    every_seconds: float = 0.5
    model_ms: float = 20.0


class Call(NamedTuple):
    """One call: when it began and ended (monotonic seconds), who answered (empty: nobody), and the slice."""

    began: float
    ended: float
    model: str
    slice: int


class Swap(NamedTuple):
    """One swap: when it was asked for and when it stood (monotonic seconds), and who answers then."""

    asked: float
    stood: float
    model: str


def main(options: argparse.Namespace) -> int:
    """Measures, prints the report, and returns the exit code: 1 where a call failed."""
    asked = Options(
        seconds=options.seconds, clients=options.clients, every_seconds=options.every, model_ms=options.model_ms
    )
    report = run(asked)
    print(json.dumps(report) if options.json else table(report))
    return 1 if report["failed"] else 0


def table(report: Mapping[str, Any]) -> str:
    """Returns the figures as a table for people."""
    lines = [
        f"{report['calls']} calls by {report['clients']} clients, {report['failed']} failed; {report['swaps']} swaps"
        f" (load average {report['load_average']})",
        f"answered by: {', '.join(f'{name} {count}' for name, count in report['answered_by'].items())}",
        "",
        "calls                     count   p50 ms   p99 ms   max ms",
    ]
    for name in ("undisturbed", "over_a_swap"):
        one = report[name]
        lines.append(f"{name:<22}{one['count']:>9}{one['p50_ms']:>9}{one['p99_ms']:>9}{one['max_ms']:>9}")
    followed = report["followed"]
    lines.append(f"the first answer of the other model after a swap stood: p50 {followed['p50_ms']} ms,"
                 f" p99 {followed['p99_ms']} ms")  # fmt: skip
    return "\n".join(lines)


def run(options: Options) -> dict[str, Any]:
    """Starts a platform, measures, and returns the figures; raises StageError."""
    with running(options.model_ms) as platform:
        calls, swaps = asyncio.run(_measured(platform, options))
    return {"clients": options.clients, **told(calls, swaps), "load_average": round(os.getloadavg()[0], 1)}


def told(calls: Sequence[Call], swaps: Sequence[Swap]) -> dict[str, Any]:
    """Returns the figures of calls in slices of which every second one had swaps. Pure."""
    answered = [one for one in calls if one.model]
    over = [one for one in answered if any(one.began <= swap.stood and swap.asked <= one.ended for swap in swaps)]
    undisturbed = [one for one in answered if not one.slice % 2]
    return {
        "calls": len(calls),
        "failed": len(calls) - len(answered),
        "swaps": len(swaps),
        "answered_by": dict(Counter(one.model for one in answered).most_common()),
        "undisturbed": figures.spread(_milliseconds(undisturbed)),
        "over_a_swap": figures.spread(_milliseconds(over)),
        "followed": figures.spread(followed(answered, swaps)),
    }


def followed(answered: Sequence[Call], swaps: Sequence[Swap]) -> list[float]:
    """Returns for each swap how long after it stood the first call began that its model answered (milliseconds). Pure.

    A swap that the next one overtook before anybody noticed has none.
    """
    found: list[float] = []
    for swap, after in itertools.zip_longest(swaps, swaps[1:]):
        until = after.asked if after is not None else float("inf")
        begun = [one.began for one in answered if one.model == swap.model and swap.asked <= one.began < until]
        if begun:
            found.append(max(0.0, (min(begun) - swap.stood) * 1000))
    return found


def _milliseconds(calls: Sequence[Call]) -> list[float]:
    return [(one.ended - one.began) * 1000 for one in calls]


@contextlib.contextmanager
def running(model_ms: float) -> Generator[Running]:
    """Runs a simulator and a platform that learns when it is told to, for the length of a block."""
    with tempfile.TemporaryDirectory(prefix="collegium-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        names = [word for name, _, _ in MODELS for word in ("--model", name)]
        delayed = (*names, "--delay-ms", str(model_ms))
        simulator = stack.enter_context(child("collegium_testing.simulator", *delayed))
        key = make_key(TENANT)
        yield stack.enter_context(configured(folder, _config(simulator["base_url"], key), key))


def _config(base_url: str, key: str) -> dict[str, Any]:
    return {
        "http": {"port": 0},
        "grpc": {"port": 0},
        "embedded_model": False,
        "evolution": {"interval_queries": 10**12},
        "routing": {"exploration": 0.0, "trial_share": 0.0, "tolerance": 0.06},
        "models": [
            {
                "name": name,
                "base_url": base_url,
                "rank": rank,
                "price": {"input_usd_per_mtok": usd, "output_usd_per_mtok": usd},
            }
            for name, rank, usd in MODELS
        ],
        "tenants": [{"id": TENANT, "tier": "enterprise", "api_key": key}],
    }


async def _measured(platform: Running, options: Options) -> tuple[list[Call], list[Swap]]:
    async with platform.session(platform.key) as http, platform.session(platform.admin_key) as operator:
        version = await _learned(http, operator)
        calls, swaps, at, over = list[Call](), list[Swap](), [0], asyncio.Event()
        asking = [asyncio.create_task(_asking(http, calls, at, over)) for _ in range(options.clients)]
        for number in range(SLICES):
            at[0] = number
            ends = time.monotonic() + options.seconds / SLICES
            while number % 2 and time.monotonic() < ends:
                swaps.append(await _swapped(operator, version, len(swaps)))
                await asyncio.sleep(options.every_seconds)
            await asyncio.sleep(max(0.0, ends - time.monotonic()))
        over.set()
        await asyncio.gather(*asking)
    return calls, swaps


async def _learned(http: aiohttp.ClientSession, operator: aiohttp.ClientSession) -> int:
    """Has it learned that the cheaper model is as good, and returns the version of the policy that says so."""
    for model, _, _ in MODELS:
        for number in range(WORDS):
            status, answer = await _asked(http, model, f"{model} {number}")
            if status != 200:
                raise StageError(f"a question was answered with {status}: {answer}")
            path = f"/v1/tasks/{answer['collegium']['task_id']}/feedback"
            await _called(http, "POST", path, {"score": 1.0})
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        async with operator.post("/v1/admin/evolution/run"):
            pass
        await asyncio.sleep(1)
        found = (await _called(operator, "GET", f"/v1/admin/policies?tenant={TENANT}"))["data"]
        if (
            found
            and found[0]["rows"] >= 2 * WORDS
            and (await _asked(http, "auto", "now"))[1]["collegium"]["model"] == "small"
        ):
            return found[0]["version"]
    raise StageError(f"no policy prefers the cheaper model after {WAIT_SECONDS:g} s")


async def _asking(http: aiohttp.ClientSession, calls: list[Call], at: Sequence[int], over: asyncio.Event) -> None:
    while not over.is_set():
        began, number = time.monotonic(), at[0]
        status, answer = await _asked(http, "auto", f"{len(calls)} {began}")
        calls.append(Call(began, time.monotonic(), answer["collegium"]["model"] if status == 200 else "", number))


async def _swapped(operator: aiohttp.ClientSession, version: int, count: int) -> Swap:
    """Takes the policy back, or puts it in place again."""
    wanted, model = (0, "large") if count % 2 == 0 else (version, "small")
    asked = time.monotonic()
    await _called(operator, "POST", f"/v1/admin/policies/{TENANT}/rollback", {"version": wanted})
    return Swap(asked, time.monotonic(), model)


async def _asked(http: aiohttp.ClientSession, model: str, text: str) -> tuple[int, Any]:
    about = {"cache": "off", "domain": DOMAIN}
    body = {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": text}], "collegium": about}
    async with http.post("/v1/chat/completions", json=body) as response:
        return response.status, await response.json()


async def _called(http: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Any:
    async with http.request(method, path, json=body) as response:
        if response.status >= 300:
            raise StageError(f"{method} {path} was answered with {response.status}: {await response.text()}")
        return await response.json()
