"""The soak: tasks and chats all the time, and a process of the platform killed at random every few seconds.

Run as ``python -m collegium_testing.faults.soak --injections 100``. It starts a platform of its own, loads it, kills
(``kill -9``, or with ``--zombies`` also stops and continues), and after the last injection waits until all is quiet and
checks every law. It prints one JSON object: what was injected, accepted, lost, doubled and double-billed, and how long
the load stood still at most. One rule: the kills overlap; nobody waits until the platform is well again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
from collegium_bus.errors import BusError

from collegium_testing.faults import facts
from collegium_testing.faults.checker import Expected, Facts, Violation, violations
from collegium_testing.faults.facts import Sources
from collegium_testing.faults.load import Load
from collegium_testing.platforms import PlatformProcess, configuration, make_key, start_platform
from collegium_testing.simulator import Behaviour, ModelSimulator, Rule

TARGETS = ("nats", "postgres", "gateway", "router", "worker-pool", "billing")
SETTLE_SECONDS = 180.0
ANSWER_MS = (50, 1_000)
CONCURRENCY = 64
LOAD_PAUSE_SECONDS = 0.2
# More than it can come to: the soak, not the supervisor, decides when to stop.
MAX_RESTARTS = 1_000
SHOWN_VIOLATIONS = 20
_NOT_YET = (aiohttp.ClientError, TimeoutError, OSError, BusError, asyncpg.PostgresError, asyncpg.InterfaceError)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do: how often to kill, how far apart, whom, from which seed, under how much load."""

    injections: int = 100
    pause_seconds: tuple[float, float] = (3.0, 5.0)
    targets: tuple[str, ...] = TARGETS
    supervisor_share: float = 0.0
    seed: int = 1
    tasks: int = 4
    chats: int = 6


class SoakResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. ``double_billed`` counts tasks with more than one charge, or one that is not its message's;
    ``unclaimed`` counts tasks that nobody was told of, though every question was asked until it was answered;
    ``stood_still_seconds`` is the longest time without anything being accepted, ``longest_task_seconds`` the age of the
    task that ended last after its creation."""

    seed: int
    injections: int
    killed: dict[str, int]
    seconds: float
    accepted: int
    completed: int
    failed: int
    uncertain: int
    refused: dict[str, int]
    lost: int
    unclaimed: int
    doubled: int
    double_billed: int
    calls: int
    calls_booked: int
    calls_possible: int
    stood_still_seconds: float
    longest_task_seconds: float
    settled_after_seconds: float
    violations: list[str]


class Soak:
    """One soak on one data folder."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder
        self._plan = plan
        self._chance = random.Random(plan.seed)  # noqa: S311 - faults, not secrets
        self._killed: Counter[str] = Counter()
        self._key = make_key("soak")
        self._schedule: list[str] = []
        self._all_told = False
        self._config: dict[str, Any] = {}
        self._platform: PlatformProcess | None = None

    async def run(self) -> SoakResult:
        """Plays the plan and returns what came of it."""
        began = time.monotonic()
        async with ModelSimulator(max_logged_calls=1_000_000) as simulator:
            quick, slow = (Behaviour(answer="done", delay_ms=delay_ms) for delay_ms in ANSWER_MS)
            # The questions are numbered: those with a 7 in their number are the slow ones.
            simulator.script(Rule(slow, match="7"), Rule(quick))
            self._config = configuration(simulator.base_url, tenants={"soak": self._key})
            self._config["models"][0] |= {"limits": {"concurrency": CONCURRENCY}}
            self._config["telemetry"]["sample_ratio"] = 0.0
            await self._start()
            try:
                async with Load(self._http, self._key, seed=self._plan.seed) as load:
                    load.keep_going(tasks=self._plan.tasks, chats=self._plan.chats, pause_seconds=LOAD_PAUSE_SECONDS)
                    await self._inject()
                    self._all_told = await load.finish(deadline_seconds=SETTLE_SECONDS)
                    quiet_since = time.monotonic()
                    collected, found = await self._settled(load, simulator)
                    settled = time.monotonic() - quiet_since
                    return self._result(load, collected, found, time.monotonic() - began, settled)
            finally:
                await self._stop()

    async def _start(self) -> None:
        environment = {"COLLEGIUM_MAX_RESTARTS": str(MAX_RESTARTS)}
        self._platform = await asyncio.to_thread(
            start_platform, self._folder / "data", self._config, environment=environment
        )

    async def _stop(self) -> None:
        assert self._platform is not None
        if self._platform.process.poll() is None:
            await asyncio.to_thread(self._platform.stop)

    def _http(self) -> str:
        assert self._platform is not None
        return self._platform.http

    async def _inject(self) -> None:
        began = time.monotonic()
        while sum(self._killed.values()) < self._plan.injections:
            await asyncio.sleep(self._chance.uniform(*self._plan.pause_seconds))
            name = "supervisor" if self._chance.random() < self._plan.supervisor_share else self._target()
            self._schedule.append(f"{time.monotonic() - began:.2f} s {name}")
            await self._kill(name)
            print(f"{sum(self._killed.values())}: {self._schedule[-1]}", file=sys.stderr, flush=True)  # noqa: T201

    def _target(self) -> str:
        return self._chance.choice(self._plan.targets)

    async def _kill(self, name: str) -> None:
        assert self._platform is not None
        if self._platform.process.poll() is not None:
            raise RuntimeError(f"the supervisor ended by itself; schedule: {self._schedule}")
        if name == "supervisor":
            await asyncio.to_thread(self._platform.kill_everything)
            self._killed[name] += 1
            # Its ports are free ports, and the gateway's address is asked anew for every request.
            await self._start()
            return
        pid = self._platform.pids().get(name)
        with contextlib.suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                self._killed[name] += 1

    async def _settled(self, load: Load, simulator: ModelSimulator) -> tuple[Facts, list[Violation]]:
        """Waits until every law holds, or as long as it may take."""
        deadline = time.monotonic() + SETTLE_SECONDS
        # Under so many kills a deadline may pass; that is an end too, and is counted apart.
        expected = Expected(states=frozenset(("completed", "failed", "canceled")), killed_in_flight=True)
        collected: Facts | None = None
        found: list[Violation] = []
        while time.monotonic() < deadline:
            try:
                collected = await facts.collect(self._sources(), simulator.counts(), list(load.accepted))
            except _NOT_YET as error:
                print(f"cannot be asked yet: {error}", file=sys.stderr)  # noqa: T201
            else:
                found = [*violations(collected, expected), *self._unclaimed(collected, load)]
                if not found:
                    break
                print(f"{len(found)} not settled yet: {found[0]}", file=sys.stderr, flush=True)  # noqa: T201
            await asyncio.sleep(1.0)
        if collected is None:
            raise RuntimeError(f"the platform cannot be asked after the soak; schedule: {self._schedule}")
        return collected, found

    def _unclaimed(self, collected: Facts, load: Load) -> list[Violation]:
        """A question that was asked several times under one key makes one task, and its asker is told of that one."""
        if not self._all_told:
            return [Violation("every question is answered", "", f"within {SETTLE_SECONDS:g} s of the last kill")]
        refused = sum(count for name, count in load.refused.items() if not name.startswith(("429", "503")))
        unclaimed = sorted(collected.terminal.keys() - collected.accepted)
        if len(unclaimed) <= refused:
            return []
        return [
            Violation("one task a question", task_id, "stands, and no asker was told of it") for task_id in unclaimed
        ]

    def _sources(self) -> Sources:
        assert self._platform is not None
        return Sources(
            folder=self._folder / "data", http=self._http(), key=self._key, admin_key=self._platform.admin_key
        )

    def _result(
        self, load: Load, collected: Facts, found: Sequence[Violation], seconds: float, settled: float
    ) -> SoakResult:
        states = Counter(collected.shown.values())
        times = sorted(load.accepted.values())
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        ages = [message.age_ms for messages in collected.terminal.values() for message in messages]
        worth = {key for key, called in collected.calls.items() if any(call.picos for call in called)}
        booked = {key for key, row in collected.booked.items() if row.picos}
        laws = Counter(law for law, _ in {(one.law, one.task_id) for one in found})
        return SoakResult(
            seed=self._plan.seed,
            injections=sum(self._killed.values()),
            killed=dict(self._killed),
            seconds=round(seconds, 1),
            accepted=len(collected.accepted),
            completed=states["completed"],
            failed=states["failed"],
            uncertain=load.uncertain,
            refused=load.refused,
            unclaimed=len(collected.terminal.keys() - collected.accepted),
            lost=laws["no accepted task is missing"],
            doubled=laws["exactly one terminal state"],
            double_billed=laws["one charge a task"] + laws["charged ≤ booked"],
            calls=len(worth),
            calls_booked=len(booked),
            calls_possible=len(worth - booked),
            stood_still_seconds=round(max(gaps, default=0.0), 1),
            longest_task_seconds=round(max(ages, default=0) / 1000, 1),
            settled_after_seconds=round(settled, 1),
            violations=[f"{one.law}: {one.task_id} {one.text}" for one in found[:SHOWN_VIOLATIONS]],
        )


def main() -> int:
    """Runs a soak from the command line; the exit code is 1 where a law does not hold."""
    parser = argparse.ArgumentParser(prog="python -m collegium_testing.faults.soak", description=__doc__)
    parser.add_argument("--injections", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--least-pause-seconds", type=float, default=3.0)
    parser.add_argument("--most-pause-seconds", type=float, default=5.0)
    parser.add_argument("--targets", default=",".join(TARGETS), help="whom to kill, by comma")
    parser.add_argument("--supervisor-share", type=float, default=0.0, help="share of kills that take everything")
    parser.add_argument("--tasks", type=int, default=4, help="clients that submit tasks")
    parser.add_argument("--chats", type=int, default=6, help="clients that ask chats")
    parser.add_argument("--result", type=Path, help="where to write the result too")
    options = parser.parse_args()
    plan = Plan(
        injections=options.injections,
        pause_seconds=(options.least_pause_seconds, options.most_pause_seconds),
        targets=tuple(options.targets.split(",")),
        supervisor_share=options.supervisor_share,
        seed=options.seed,
        tasks=options.tasks,
        chats=options.chats,
    )
    with tempfile.TemporaryDirectory(prefix="collegium-soak-", ignore_cleanup_errors=True) as folder:
        result = asyncio.run(Soak(Path(folder), plan).run())
    text = msgspec.json.format(msgspec.json.encode(result), indent=2).decode()
    print(text)  # noqa: T201
    if options.result is not None:
        options.result.write_text(text + "\n")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
