"""``collegium bench cache``: what a reused answer costs through the whole HTTP gateway, keys and usage on.

Exact hits: one question again and again over many connections, by the load tool of ``bench gateway``. Semantic hits:
questions that were asked before in other words, each once, because a question asked twice is an exact hit. One rule:
only answers that say they are hits are counted as such.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import msgspec

from collegium_cli.bench import figures
from collegium_cli.bench.gateway import load, parse_clients
from collegium_cli.bench.processes import memory_mb
from collegium_cli.bench.questions import ALIKE
from collegium_cli.bench.stage import StageError, child

ASK = {"model": "sim", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
KEPT_SECONDS = 6.0
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure: numbers of clients and seconds of exact hits; questions alike, and how many at a time."""

    clients: tuple[int, ...] = (16, 64)
    seconds: float = 5.0
    alike: int = len(ALIKE)
    alike_clients: int = 4


def run(options: Options) -> dict[str, Any]:
    """Measures and returns the figures."""
    key, admin = _key("bench"), _key("admin")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="collegium-bench-")))
        simulator = stack.enter_context(child("collegium_testing.simulator", "--port", "0", "--model", "sim"))
        config = folder / "collegium.yaml"
        config.write_text(json.dumps(_config(simulator["base_url"], key, admin)))
        up = stack.enter_context(
            child("collegium_cli", "up", "--json", "--config", str(config), "--data", str(folder / "data"))
        )
        url = f"{up['http']}/v1/chat/completions"
        asyncio.run(_answered(url, key, ASK))
        exact: dict[str, Any] = {}
        for clients in options.clients:
            _say(f"{clients} clients, exact hits …")
            exact[str(clients)] = load(folder, url, key, "sim", clients, options.seconds, ASK)
        _say(f"{options.alike} questions alike …")
        semantic = asyncio.run(_alike(url, key, admin, options))
        usage = asyncio.run(_usage(up["http"], key))
        return {"exact": exact, "semantic": semantic, "usage": usage, "memory_mb": memory_mb(up["pids"])}


def _config(base_url: str, key: str, admin: str) -> dict[str, Any]:
    return {
        "http": {"port": 0},
        "grpc": {"port": 0},
        "embedded_model": False,
        "models": [
            {
                "name": "sim",
                "base_url": base_url,
                "rank": "teacher",
                "price": {"input_usd_per_mtok": "0.15", "output_usd_per_mtok": "0.60"},
            }
        ],
        "tenants": [
            {
                "id": "bench",
                "tier": "enterprise",
                "api_key": key,
                "keys": [{"name": "admin", "api_key": admin, "scopes": ["admin"]}],
            }
        ],
    }


def _session(key: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"})


async def _answered(url: str, key: str, body: dict[str, Any]) -> None:
    async with _session(key) as session, session.post(url, json=body) as response:
        if response.status != 200:
            raise StageError(f"the first question was answered with {response.status}: {await response.text()}")


async def _alike(url: str, key: str, admin: str, options: Options) -> dict[str, Any]:
    """Asks questions, waits until they are kept, asks them in other words, and reports how that went."""
    pairs = ALIKE[: options.alike]
    results: dict[str, int] = {}
    taken: list[float] = []
    slots = asyncio.Semaphore(options.alike_clients)
    async with _session(key) as session:

        async def ask(text: str) -> tuple[str, float]:
            body = {"model": "sim", "messages": [{"role": "user", "content": text}], "collegium": {"cache": "use"}}
            async with slots:
                began = time.perf_counter()
                async with session.post(url, json=body) as response:
                    await response.read()
                    result = response.headers.get("x-collegium-cache", str(response.status))
                return result, (time.perf_counter() - began) * 1000

        await asyncio.gather(*(ask(first) for first, _ in pairs))
        kept = await _kept(url, admin, len(pairs))
        began = time.perf_counter()
        for result, milliseconds in await asyncio.gather(*(ask(again) for _, again in pairs)):
            results[result] = results.get(result, 0) + 1
            if result == "hit_semantic":
                taken.append(milliseconds)
        seconds = time.perf_counter() - began
    return {
        "asked": len(pairs),
        "kept": kept,
        "results": results,
        "hits_per_second": round(len(taken) / seconds, 1),
        "p50_ms": _part(taken, 0.50),
        "p95_ms": _part(taken, 0.95),
    }


async def _kept(url: str, admin: str, count: int) -> int:
    """Returns how many answers were kept: all, or those that were when no more came for a while.

    An answer is kept a moment after it was given; while looks take too long, none are looked for or kept.
    """
    entries, newest_at = -1, time.monotonic()
    async with _session(admin) as session:
        while entries < count and time.monotonic() < newest_at + KEPT_SECONDS:
            async with session.get(urljoin(url, "/v1/cache")) as response:
                found = (await response.json())["semantic"]["entries"]
            if found > entries:
                entries, newest_at = found, time.monotonic()
            await asyncio.sleep(0.1)
    return entries


def _part(taken: list[float], share: float) -> float | None:
    value = figures.percentile(sorted(taken), share)
    return None if value is None else round(value, 2)


async def _usage(base: str, key: str) -> dict[str, Any]:
    await asyncio.sleep(2)
    async with _session(key) as session, session.get(f"{base}/v1/usage") as response:
        totals: dict[str, Any] = (await response.json())["totals"]
    return {name: totals[name] for name in ("requests", "charged_usd", "saved_usd")}


def _key(name: str) -> str:
    return f"sk-clg-{name}{secrets.token_hex(3)}-" + "".join(secrets.choice(_ALPHABET) for _ in range(48))


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def table(measured: dict[str, Any]) -> str:
    """Returns the figures as a table for people."""
    lines = ["hits      clients      req/s   p50 ms   p95 ms   p99 ms"]
    for clients, report in measured["exact"].items():
        lines.append(
            f"exact     {clients:>7} {report['requests_per_second']:>10.0f} {report['p50_ms']:>8.2f}"
            f" {report['p95_ms']:>8.2f} {report['p99_ms']:>8.2f}"
        )
    alike = measured["semantic"]
    p50, p95 = (f"{alike[name]:>8.2f}" if alike[name] is not None else f"{'–':>8}" for name in ("p50_ms", "p95_ms"))
    lines.append(f"semantic  {'':>7} {alike['hits_per_second']:>10.0f} {p50} {p95}   {alike['results']}")
    return "\n".join(lines)


def main(options: Any) -> int:
    """Runs the verb ``bench cache`` and prints the figures; returns the exit code."""
    measured = run(
        Options(
            clients=tuple(parse_clients(options.clients)),
            seconds=options.seconds,
            alike=options.alike,
            alike_clients=options.alike_clients,
        )
    )
    print(json.dumps(measured) if options.json else table(measured))
    return 0
