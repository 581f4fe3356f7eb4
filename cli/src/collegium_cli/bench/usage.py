"""``collegium bench usage``: how long usage reports and pages of the request log take over so many booked rows.

One run starts a platform, fills its books, and asks over HTTP as tenants and operators do: ranges whole and ragged, by
all kinds of groups. One rule: a report is measured only where it is right: each is compared once with the rows.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from collegium_store import open_connection

from collegium_cli.bench import figures
from collegium_cli.bench.stage import Stage, StageOptions, stage
from collegium_cli.bench.usage_rows import DAYS, TENANTS, fill

_GROUPS = ("", "tenant,model", "day", "day,model", "project,key", "rank,plan", "tag", "tenant,day")
_BY_ROWS = """
SELECT count(*) FILTER (WHERE state = 'completed' OR charge_picos > 0) FROM billing.tasks
WHERE settled_at >= $1 AND settled_at < $2
"""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows, and how often each kind of question is asked."""

    rows: int = 200_000
    questions: int = 200
    seed: int = 1
    keep: Path | None = None


def run(options: Options) -> dict[str, Any]:
    """Measures and returns the figures in milliseconds, by kind of question."""
    with stage(StageOptions(tenants={"bench0": "enterprise"}, keep=options.keep)) as running:
        return asyncio.run(_measure(running, options))


async def _measure(running: Stage, options: Options) -> dict[str, Any]:
    runtime = running.runtime()
    connection = await open_connection(runtime.database, application_name="collegium-bench")
    try:
        began = time.monotonic()
        await fill(connection, options.rows)
        filled_seconds = time.monotonic() - began
        admin = await asyncio.to_thread(Path(runtime.admin_key_file).read_text)
        report: dict[str, Any] = {"rows": options.rows, "tenants": TENANTS, "filled_seconds": round(filled_seconds, 1)}
        report["sums"] = await connection.fetchval("SELECT count(*) FROM billing.usage_sums")
        async with aiohttp.ClientSession(running.http, headers={"Authorization": f"Bearer {admin.strip()}"}) as session:
            report["operator"], wrong = await _reports(session, connection, options)
        async with aiohttp.ClientSession(
            running.http, headers={"Authorization": f"Bearer {running.keys['bench0']}"}
        ) as session:
            report["tenant"], _ = await _reports(session, None, options)
            report["requests"] = await _pages(session, options)
        report["wrong"] = wrong
        return report
    finally:
        await connection.close()


async def _reports(
    session: aiohttp.ClientSession, connection: Any, options: Options
) -> tuple[dict[str, float | None], int]:
    chance = random.Random(options.seed)  # noqa: S311 - the same questions every time
    took: list[float] = []
    wrong = 0
    for number in range(options.questions):
        begin, end = _range(chance)
        query = {"from": begin.isoformat(), "to": end.isoformat(), "group_by": _GROUPS[number % len(_GROUPS)]}
        began = time.perf_counter()
        async with session.get("/v1/usage", params=query) as response:
            body = await response.json()
        took.append((time.perf_counter() - began) * 1000)
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {body}")
        if connection is not None and number < len(_GROUPS):
            wrong += body["totals"]["requests"] != await connection.fetchval(_BY_ROWS, begin, end, timeout=600)
    return _spread(took), wrong


def _range(chance: random.Random) -> tuple[datetime, datetime]:
    """Draws a time: up to now or not, to the second or by days."""
    now = datetime.now(UTC).replace(microsecond=0)
    end = now if chance.random() < 0.5 else now - timedelta(seconds=chance.randrange(20 * 86_400))
    begin = max(end - timedelta(seconds=chance.choice([3600, 86_400, 7 * 86_400, DAYS * 86_400])),
                now - timedelta(days=DAYS))  # fmt: skip
    if chance.random() < 0.3:
        begin = begin.replace(hour=0, minute=0, second=0) + timedelta(days=1)
    return (begin, end) if begin < end else (end - timedelta(hours=1), end)


async def _pages(session: aiohttp.ClientSession, options: Options) -> dict[str, float | None]:
    took: list[float] = []
    cursor = ""
    for _ in range(options.questions):
        began = time.perf_counter()
        async with session.get("/v1/requests", params={"limit": "100", "cursor": cursor}) as response:
            body = await response.json()
        took.append((time.perf_counter() - began) * 1000)
        cursor = body["next_cursor"] or ""
    return _spread(took)


def _spread(took: Sequence[float]) -> dict[str, float | None]:
    p95 = figures.percentile(sorted(took), 0.95)
    return {**figures.spread(took), "p95_ms": None if p95 is None else round(p95, 2)}


def table(report: dict[str, Any]) -> str:
    """Returns the figures as a table for people."""
    lines = [f"{report['rows']} tasks in {report['sums']} sums, filled in {report['filled_seconds']} s", ""]
    lines.append("question             asked    p50 ms    p95 ms    max ms")
    for name in ("operator", "tenant", "requests"):
        one = report[name]
        lines.append(
            f"{name:<18}{one['count']:>8}{one['p50_ms'] or 0:>10}{one['p95_ms'] or 0:>10}{one['max_ms'] or 0:>10}"
        )
    lines.append(f"reports that differ from their rows: {report['wrong']}")
    return "\n".join(lines)


def main(options: Any) -> int:
    """Runs the verb ``bench usage`` and prints the figures; returns 1 where a report was wrong."""
    keep = options.data.resolve() if options.data is not None else None
    report = run(Options(rows=options.rows, questions=options.questions, keep=keep))
    print(json.dumps(report) if options.json else table(report))
    return 1 if report["wrong"] else 0
