"""``bench gates``: how long the bundled rules take on a request, one by one and all at once.

Timed is what a gateway waits for beside the hold: reading the rules' texts, deciding, and the way to the processes of
heavy rules and back. Nothing else runs. One rule: texts differ, so that nothing is answered from what was read before.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from collegium_contracts.gates import GateRule
from collegium_gates.checking import Checking
from collegium_gates.configured import Registry, applying
from collegium_gates.evaluating import evaluate
from collegium_gates.finding import readings
from collegium_gates.units import Unit, of_messages
from collegium_settings.gates import GateSettings

WARM: Final = 30
_TEXT: Final = (
    "the report of last quarter says that sales in the north grew by seven percent while costs of transport fell and"
    " the board asked for a plan how to open two further stores before summer please write a short summary of it for"
    " the team with three points in plain words and name what is still open who decides when it is due"
)
_CONFIGURED: Final = {
    "topics": GateSettings(kind="topics", deny=("operation nightfall", "project bluebird")),
    "regex": GateSettings(kind="regex", patterns=(r"\bACME-\d{6}\b", r"internal\s+use\s+only")),
}
_NAMES: Final = "names_tokenise"
# What is required of a request of 1 kB on two cores with nothing beside it, on the clock.
REQUIRED_MS: Final = {"all but names": 5.0, "all with names": 60.0}


def main(options: argparse.Namespace) -> int:
    """Measures and prints; returns the exit code."""
    found = asyncio.run(_measure(options.requests, options.bytes))
    if options.json:
        print(msgspec.json.encode(found).decode())
        return 0
    print(f"{options.requests} requests of {options.bytes} bytes")
    for name, row in found["rules"].items():
        most = REQUIRED_MS.get(name)
        wanted = "" if most is None else f"   at most {most:g} ms: {'held' if row['p50_ms'] <= most else 'missed'}"
        print(f"  {name:<28} p50 {row['p50_ms']:7.2f} ms   p95 {row['p95_ms']:7.2f} ms{wanted}")
    return 0


async def _measure(requests: int, size: int) -> dict[str, Any]:
    registry = Registry(_CONFIGURED)
    rules = [
        msgspec.structs.replace(rule, timeout_ms=60_000)
        for rule in applying(registry.rules.values(), "request")
        if rule.kind != "age"
    ]
    plain = [rule for rule in rules if rule.name != _NAMES]
    checking = Checking()
    try:
        measured: dict[str, dict[str, float]] = {}
        for rule in plain:
            measured[rule.name] = await _timed(checking, [rule], requests, size)
        measured["all but names"] = await _timed(checking, plain, requests, size)
        measured["all but names, processor"] = _worked(plain, requests, size)
        if await _is_there(checking, rules):
            measured[_NAMES] = await _timed(checking, [rule for rule in rules if rule.name == _NAMES], requests, size)
            measured["all with names"] = await _timed(checking, rules, requests, size)
            measured["all with names, processor"] = _worked(rules, requests, size)
    finally:
        await checking.close()
    return {"requests": requests, "bytes": size, "rules": measured, "required_p50_ms": REQUIRED_MS}


async def _is_there(checking: Checking, rules: list[GateRule]) -> bool:
    names = [rule for rule in rules if rule.name == _NAMES]
    verdict = await checking.check(names, of_messages([{"role": "user", "content": "Where is it?"}]), "request")
    return verdict.block is None


def _texts(rules: list[GateRule], count: int, size: int) -> Iterator[list[Unit]]:
    chance, known = random.Random(len(rules)), _TEXT.split()  # noqa: S311 - texts
    for _ in range(count):
        words = " ".join(chance.choice(known) for _ in range(size // 3))
        yield of_messages([{"role": "user", "content": words[:size]}])


def _worked(rules: list[GateRule], requests: int, size: int) -> dict[str, float]:
    """Measures processor time, which others on the machine do not lengthen, with all rules in this process."""
    took: list[float] = []
    for number, units in enumerate(_texts(rules, WARM + requests, size)):
        began = time.thread_time()
        read = readings(units)
        for rule in rules:
            evaluate(rule, read)
        if number >= WARM:
            took.append((time.thread_time() - began) * 1000)
    return _shown(took)


async def _timed(checking: Checking, rules: list[GateRule], requests: int, size: int) -> dict[str, float]:
    took: list[float] = []
    for number, units in enumerate(_texts(rules, WARM + requests, size)):
        began = time.perf_counter()
        verdict = await checking.check(rules, units, "request")
        if number >= WARM:
            took.append((time.perf_counter() - began) * 1000)
        assert verdict.block is None, "the texts are harmless"
    return _shown(took)


def _shown(took: list[float]) -> dict[str, float]:
    return {"p50_ms": round(statistics.median(took), 3), "p95_ms": round(statistics.quantiles(took, n=20)[18], 3)}
