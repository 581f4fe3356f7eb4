"""Sending a pool's rows as chats, telling what answers were worth, and letting the platform learn between.

A replay sends in seconds what comes in days, so after every so many rows it waits until what they taught has arrived:
shadows were asked, words were heard, a round of learning is done. One rule: a row's label is told of the answer that
was given, after it was given, on the stated share of rows, and nothing else is told.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import aiohttp
from collegium_testing.simulator.pool import PoolRow

from collegium_cli.eval.reading import EvaluationError, tell
from collegium_cli.eval.replaying.platform import Running
from collegium_cli.eval.replaying.pricing import Pool

AT_ONCE: Final = 4
PROBE_TAG: Final = "collegium-probe"
# What was asked again has arrived when no call was made for so long.
QUIET_SECONDS: Final = 2.0
SETTLE_SECONDS: Final = 20.0
ROUND_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 0.25
# Billing's reports are at most so far behind.
BEHIND_SECONDS: Final = 6.0


class Served(NamedTuple):
    """What came of a row: who answered it, its score, what was booked for it, what the teacher would have been, and how
    many models were asked."""

    row: str
    domain: str
    model: str
    score: float
    cost_usd: float
    teacher_score: float
    teacher_cost_usd: float
    asked: int = 1


class Form(NamedTuple):
    """How rows are asked: the plan, and the type of their answers (empty: what the platform takes them for)."""

    plan: str = "auto"
    answer: str = ""


AS_IT_COMES: Final = Form()


class Replayed(NamedTuple):
    """Rows in order; what probes had cost after each stop (rows sent, dollars); words told; rounds; the live policy."""

    served: Sequence[Served]
    probes: Sequence[tuple[int, float]]
    told: int
    rounds: int
    policy: dict[str, Any] | None


class Replay:
    """One replay of rows, in order, through a platform."""

    def __init__(
        self,
        pool: Pool,
        running: Running,
        session: aiohttp.ClientSession,
        *,
        feedback: float,
        seed: int,
        form: Form = AS_IT_COMES,
    ) -> None:
        self._pool = pool
        self._running = running
        self._session = session
        self._feedback = feedback
        self._options = {"cache": "off", "plan": form.plan, **({"answer": form.answer} if form.answer else {})}
        self._drawn = random.Random(seed)  # noqa: S311 - which rows are judged is no secret
        self._told = 0
        self._rounds = 0

    async def run(self, rows: Sequence[PoolRow], interval: int) -> Replayed:
        """Sends all rows; raises EvaluationError where the platform refuses."""
        served: list[Served] = []
        probes: list[tuple[int, float]] = []
        for start in range(0, len(rows), interval):
            some = rows[start : start + interval]
            gate = asyncio.Semaphore(AT_ONCE)
            judged = [self._drawn.random() < self._feedback for _ in some]
            served += await asyncio.gather(
                *(self._one(row, gate, is_judged=one) for row, one in zip(some, judged, strict=True))
            )
            if start + interval < len(rows):
                await self._learn()
            probes.append((len(served), await self._probe_cost()))
            tell(_progress(served, probes[-1][1]))
        await asyncio.sleep(BEHIND_SECONDS)
        probes[-1] = (len(served), await self._probe_cost())
        policies = await self._call("GET", "/v1/admin/policies", key=self._running.admin_key)
        live = next(iter(policies["data"]), None)
        return Replayed(served, probes, self._told, self._rounds, live)

    async def _one(self, row: PoolRow, gate: asyncio.Semaphore, *, is_judged: bool) -> Served:
        body: dict[str, Any] = {
            "model": "auto",
            "messages": [{"role": "user", "content": row.input}],
            "max_tokens": self._pool.answer_tokens_max,
            "collegium": {**self._options, **({"domain": row.domain} if row.domain else {})},
        }
        async with gate:
            answer = await self._call("POST", "/v1/chat/completions", body)
            about = answer["collegium"]
            model = about["model"]
            score = row.outcomes[model].score
            if is_judged:
                await self._call("POST", f"/v1/tasks/{about['task_id']}/feedback", {"score": score})
                self._told += 1
        teacher = self._pool.teacher
        best, cost = row.outcomes[teacher].score, self._pool.cost_usd(row, teacher)
        asked = int(about["attempts"])
        return Served(row.id, row.domain, model, score, float(about["cost_usd"]), best, cost, asked)

    async def _learn(self) -> None:
        """Waits until probes were asked, then for a round of learning that began after them."""
        deadline = time.monotonic() + SETTLE_SECONDS
        calls, since = await self._calls(), time.monotonic()
        while time.monotonic() < min(deadline, since + QUIET_SECONDS):
            await asyncio.sleep(LOOK_SECONDS)
            now = await self._calls()
            if now != calls:
                calls, since = now, time.monotonic()
        deadline = time.monotonic() + ROUND_SECONDS
        begun = await self._begin(deadline)
        while time.monotonic() < deadline:
            cycle = await self._call("GET", f"/v1/admin/evolution/{begun}", key=self._running.admin_key)
            if cycle["state"] != "running":
                self._rounds += 1
                return
            await asyncio.sleep(LOOK_SECONDS)
        raise EvaluationError(f"the round of learning {begun} has not ended in {ROUND_SECONDS:g} s")

    async def _begin(self, deadline: float) -> str:
        """Begins a round as soon as none is running."""
        while True:
            async with self._session.post(
                self._running.http + "/v1/admin/evolution/run", headers=_bearer(self._running.admin_key), json={}
            ) as response:
                content = await response.json()
            if response.status < 300:
                return str(content["id"])
            if content["error"]["code"] != "cycle_running" or time.monotonic() > deadline:
                raise EvaluationError(f"a round of learning was refused: {content['error']['message']}")
            await asyncio.sleep(LOOK_SECONDS)

    async def _calls(self) -> int:
        async with self._session.get(self._running.simulator + "/control/counts?requests=0") as response:
            counts = await response.json()
        return sum(one["started"] for one in counts["models"].values())

    async def _probe_cost(self) -> float:
        report = await self._call("GET", "/v1/usage?group_by=tag", key=self._running.admin_key)
        return sum(float(one["cost_usd"]) for one in report["data"] if str(one["tag"]).startswith(PROBE_TAG + "="))

    async def _call(self, method: str, path: str, body: Any = None, key: str = "") -> Any:
        headers = _bearer(key or self._running.key)
        async with self._session.request(method, self._running.http + path, headers=headers, json=body) as response:
            content = await response.json()
        if response.status >= 400:
            raise EvaluationError(f"{method} {path}: {response.status} {content.get('error', {}).get('message')}")
        return content


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _progress(served: Sequence[Served], probes_usd: float) -> str:
    spent, teacher = sum(one.cost_usd for one in served), sum(one.teacher_cost_usd for one in served)
    gained = sum(one.score - one.teacher_score for one in served) / len(served)
    share, probes = spent / teacher, probes_usd / teacher
    return f"{len(served)} rows: {share:.1%} of the teacher's cost, probes {probes:.1%}, quality {gained:+.1%}"
