"""``collegium bench documents``: how long many short documents take until they are found, and who stood still.

Each is a sentence of its own, made by a seed of common words, added by one request through the gateway and embedded by
the bundled model; another tenant's large documents may be embedded beside them, and a manual is timed first. One rule:
the clock stops when the last of them is served to searches, not when it was accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
import msgspec
from collegium_telemetry import names

from collegium_cli.bench import figures
from collegium_cli.bench.stage import Stage, StageError, StageOptions, stage

TENANT: Final = "bench"
GREEDY: Final = "greedy"
# Some 3.6 MB and 3,300 chunks each.
FLOOD_WORDS: Final = 600_000
MANUAL_PARTS: Final = 24
MANUAL_WORDS: Final = 90
INDEXED_SECONDS_MAX: Final = 1800.0
STOOD_STILL_SECONDS: Final = 0.05
_COMMON: Final = """
the a this that every some people water house work day week city river paper letter music garden window market
road train ship doctor teacher child friend country number question answer morning evening winter summer price
money opens closes carries brings finds keeps sells buys writes reads sends waits grows turns stands moves
asks tells quickly slowly often never early late cold warm old new small large red blue green quiet open empty
heavy light in on under over before after near behind without against between from
"""
WORDS: Final = tuple(_COMMON.split())
_BUCKET: Final = re.compile(r'^(\w+)_bucket\{(?:.*,)?le="([^"]+)"\} (\S+)$')


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure: how many documents, of how many words, by how many clients at a time.

    ``flood``: so many large documents of another tenant are being embedded meanwhile.
    """

    documents: int = 10_000
    words: int = 16
    clients: int = 16
    seed: int = 7
    flood: int = 0


def main(options: argparse.Namespace) -> int:
    """Measures, prints the report, and returns the exit code."""
    measured = run(
        Options(documents=options.documents, words=options.words, clients=options.clients, flood=options.flood)
    )
    print(json.dumps(measured) if options.json else table(measured))
    return 0


def table(report: Mapping[str, Any]) -> str:
    """Returns the figures as a table for people."""
    lines = [
        f"{report['documents']} documents of {report['words']} words: accepted after"
        f" {report['accepted_after_seconds']} s, found after {report['indexed_after_seconds']} s"
        f" (load average {report['load_average']})",
        f"questions meanwhile: {report['questions']['count']}, p50 {report['questions']['p50_ms']} ms,"
        f" p99 {report['questions']['p99_ms']} ms",
        *_flood_lines(report.get("flood")),
        "",
        "event loop of       timers   late > 50 ms   computing > 50 ms",
    ]
    for service, one in report["event_loops"].items():
        lines.append(f"{service:<16}{one['timers']:>10}{one['late']:>15}{one['blocked']:>20}")
    return "\n".join(lines)


def _flood_lines(flood: Mapping[str, Any] | None) -> list[str]:
    if flood is None:
        return []
    return [
        f"beside {flood['documents']} documents of another tenant, {flood['bytes']} bytes in all, a manual of"
        f" {flood['manual_bytes']} bytes: found after {flood['manual_after_seconds']} s,"
        f" when {flood['waiting']} of them were not"
    ]


def run(options: Options) -> dict[str, Any]:
    """Starts a platform with the bundled embedder, measures, and returns the figures."""
    tenants = {TENANT: "enterprise"} | ({GREEDY: "enterprise"} if options.flood else {})
    with stage(StageOptions(tenants=tenants)) as running:
        return asyncio.run(_measured(running, options))


async def _measured(running: Stage, options: Options) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {running.keys[TENANT]}"}
    async with aiohttp.ClientSession(running.http, headers=headers) as session:
        await _add(session, "The embedder is awake.")
        await _indexed(session)
        flood = await _flooded(running, session, options) if options.flood else None
        before = await _loops(running)
        began = time.perf_counter()
        over = asyncio.Event()
        asking = asyncio.create_task(_asked(session, over))
        await _added(session, options)
        accepted = time.perf_counter() - began
        await _indexed(session)
        indexed = time.perf_counter() - began
        over.set()
        taken = await asking
        after = await _loops(running)
    return {
        **({"flood": flood} if flood is not None else {}),
        "documents": options.documents,
        "words": options.words,
        "accepted_after_seconds": round(accepted, 1),
        "indexed_after_seconds": round(indexed, 1),
        "questions": figures.spread(taken),
        "event_loops": {service: _between(before[service], after[service]) for service in after},
        "load_average": round(os.getloadavg()[0], 1),
    }


async def _flooded(running: Stage, session: aiohttp.ClientSession, options: Options) -> dict[str, Any]:
    """Has another tenant's large documents embedded, and measures how long a manual takes beside them."""
    chance = random.Random(options.seed)  # noqa: S311 - words, not secrets
    large = [" ".join(chance.choices(WORDS, k=FLOOD_WORDS)).encode() for _ in range(options.flood)]
    parts = (" ".join(chance.choices(WORDS, k=MANUAL_WORDS)) for _ in range(MANUAL_PARTS))
    manual = "\n\n".join(f"# Part {number}\n\n{part}." for number, part in enumerate(parts)).encode()
    headers = {"Authorization": f"Bearer {running.keys[GREEDY]}"}
    async with aiohttp.ClientSession(running.http, headers=headers) as greedy:
        for number, content in enumerate(large):
            await _put(greedy, f"flood{number}", content, "text/html")
        await _until(greedy, "flood0", lambda shown: bool(shown["progress"]["done"]))
        began = time.perf_counter()
        await _put(session, "manual", manual, "text/markdown")
        await _until(session, "manual", lambda shown: shown["state"] != "accepted")
        after = time.perf_counter() - began
        states = [(await _shown(greedy, f"flood{number}"))["state"] for number in range(options.flood)]
    return {
        "documents": options.flood,
        "bytes": sum(map(len, large)),
        "manual_bytes": len(manual),
        "manual_after_seconds": round(after, 1),
        "waiting": states.count("accepted"),
    }


async def _put(session: aiohttp.ClientSession, name: str, content: bytes, kind: str) -> None:
    url = f"/v1/documents?id={name}"
    async with session.post(url, data=content, headers={"Content-Type": kind}) as response:
        if response.status != 202:
            raise StageError(f"a document was answered with {response.status}: {await response.text()}")


async def _until(session: aiohttp.ClientSession, name: str, is_so: Callable[[dict[str, Any]], bool]) -> None:
    deadline = time.monotonic() + INDEXED_SECONDS_MAX
    while not is_so(await _shown(session, name)):
        if time.monotonic() > deadline:
            raise StageError(f"document {name} is where it was after {INDEXED_SECONDS_MAX:g} s")
        await asyncio.sleep(0.05)


async def _shown(session: aiohttp.ClientSession, name: str) -> dict[str, Any]:
    async with session.get(f"/v1/documents/{name}") as response:
        if response.status != 200:
            raise StageError(f"a document is not shown: {response.status}: {await response.text()}")
        return await response.json()


async def _added(session: aiohttp.ClientSession, options: Options) -> None:
    chance = random.Random(options.seed)  # noqa: S311 - words, not secrets
    sentences = iter([" ".join(chance.choices(WORDS, k=options.words)) + "." for _ in range(options.documents)])

    async def client() -> None:
        for sentence in sentences:
            await _add(session, sentence)

    async with asyncio.TaskGroup() as group:
        for _ in range(options.clients):
            group.create_task(client())


async def _add(session: aiohttp.ClientSession, text: str) -> None:
    async with session.post("/v1/documents", json={"content": text, "type": "text"}) as response:
        if response.status not in (200, 202):
            raise StageError(f"a document was answered with {response.status}: {await response.text()}")


async def _indexed(session: aiohttp.ClientSession) -> None:
    """Waits until no document is accepted that is not found yet."""
    deadline = time.monotonic() + INDEXED_SECONDS_MAX
    while await _count(session, "accepted"):
        if time.monotonic() > deadline:
            raise StageError(f"documents are still not indexed after {INDEXED_SECONDS_MAX:g} s")
        await asyncio.sleep(0.2)
    if failed := await _count(session, "failed"):
        raise StageError(f"{failed} documents or more failed")


async def _count(session: aiohttp.ClientSession, state: str) -> int:
    async with session.get(f"/v1/documents?state={state}&limit=1") as response:
        if response.status != 200:
            raise StageError(f"documents are not listed: {response.status}: {await response.text()}")
        return len((await response.json())["data"])


async def _asked(session: aiohttp.ClientSession, over: asyncio.Event) -> list[float]:
    """Asks one question after another until the end, and returns what they took, in milliseconds."""
    taken: list[float] = []
    while not over.is_set():
        began = time.perf_counter()
        async with session.post("/v1/search", json={"query": f"{WORDS[len(taken) % 60]} water train"}) as response:
            if response.status != 200:
                raise StageError(f"a question was answered with {response.status}: {await response.text()}")
        taken.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.1)
    return taken


async def _loops(running: Stage) -> dict[str, dict[str, int]]:
    """Returns what the event loops of all services have counted, by service."""
    found: dict[str, dict[str, int]] = {}
    async with aiohttp.ClientSession() as session:
        for service, port in running.runtime().admin_ports.items():
            async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
                found[service] = loops_of(await response.text())
    return found


def loops_of(metrics: str) -> dict[str, int]:
    """Reads how many timers an event loop ran, how many of them late, and how many late by its own computing."""
    lag, blocked = (_buckets(metrics, name) for name in (names.METRIC_LOOP_LAG, names.METRIC_LOOP_BLOCKED))
    timers = int(lag["+Inf"])
    limit = str(STOOD_STILL_SECONDS)
    return {"timers": timers, "late": timers - int(lag[limit]), "blocked": timers - int(blocked[limit])}


def _buckets(metrics: str, name: str) -> dict[str, float]:
    matches = (_BUCKET.match(line) for line in metrics.splitlines())
    return {found[2]: float(found[3]) for found in matches if found is not None and found[1] == name}


def _between(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before[name] for name, count in after.items()}
