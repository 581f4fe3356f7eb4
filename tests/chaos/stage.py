"""What a fault is played on: processes, a simulator, a load, a schedule of what was done, and the check after it.

One rule: whatever goes wrong is told with the seed, the schedule and the journeys of the tasks concerned.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import asyncpg
from collegium_bus.errors import BusError
from collegium_bus.reading import task_events
from collegium_cli.tasks.ladder import table
from collegium_contracts.ladder import ladder
from collegium_runtime import failpoints
from collegium_testing import Behaviour, ModelSimulator, Rule, eventually
from collegium_testing.eventually import NeverTrueError
from collegium_testing.faults import facts
from collegium_testing.faults.checker import Expected, Facts, Violation, violations
from collegium_testing.faults.facts import Sources
from collegium_testing.faults.load import Load
from collegium_testing.faults.services import ServiceProcess
from collegium_testing.platforms import PlatformProcess, configuration, make_key, start_platform

SERVICES = ("gateway", "router", "worker-pool", "context", "consensus", "evolution", "billing")
CALL_MS = 300
# What has not ended, as clients see it.
OPEN = ("submitted", "working", "input_required", "missing")
UNLIKE = "unlike"
CONCURRENCY = 8
SHOWN_JOURNEYS = 5
_NOT_YET = (aiohttp.ClientError, TimeoutError, OSError, BusError, asyncpg.PostgresError, asyncpg.InterfaceError)


class ChaosError(AssertionError):
    """A law that did not hold, with everything that is needed to play it again."""


class Stage:
    """One run of one fault, from ``async with`` to its end; everything that was started is ended."""

    def __init__(self, folder: Path, seed: int, *, failures_are_dead: bool = False) -> None:
        self.folder = folder
        self.seed = seed
        self.chance = random.Random(seed)
        self.simulator = ModelSimulator(max_logged_calls=100_000)
        self.keys = {"chaos": make_key("chaos"), "other": make_key("other")}
        self.data = folder / "data"
        self.failures_are_dead = failures_are_dead
        self.platform: PlatformProcess | None = None
        self.services: list[ServiceProcess] = []
        self.recovery_seconds: float | None = None
        self.remark = ""
        self.stack = AsyncExitStack()
        self.load: Load
        self._began = time.monotonic()
        self._fault_at = self._began
        self._schedule: list[str] = []
        self._nats = ""
        self._http = ""
        self._config: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        await self.stack.enter_async_context(self.simulator)
        # Members of a panel never agree, so that each asks for its third.
        unlike = Rule(Behaviour(answer="done", numbered=True, delay_ms=CALL_MS), match=UNLIKE)
        self.simulator.script(unlike, Rule(Behaviour(answer="done", delay_ms=CALL_MS)))
        self.load = Load(lambda: self.http, self.keys["chaos"], seed=self.seed)
        await self.stack.enter_async_context(self.load)
        self.stack.push_async_callback(self._end)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stack.aclose()

    # starting and ending

    async def up(
        self,
        *,
        without: Collection[str] = (),
        fail: str = "",
        nats: str = "",
        model: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts the platform; ``without`` names services that are started apart, ``fail`` arms failpoints.

        ``more`` are keys of the configuration, in the place of those of the same name.
        """
        self._nats = nats
        config = configuration(self.simulator.base_url, tenants=self.keys)
        config["models"][0] |= {"limits": {"concurrency": CONCURRENCY}, "timeout_seconds": 90, **(model or {})}
        config |= more or {}
        if nats:
            config["nats"] = {"url": nats}
        self._config = config
        only = [service for service in SERVICES if service not in without] if without else ()
        self.platform = await asyncio.to_thread(
            start_platform, self.data, config, only=only, environment={**self._armed(fail), **(environment or {})}
        )
        self._http = self.platform.http
        self.note(f"platform up{f', without {list(without)}' if without else ''}{f', {fail}' if fail else ''}")

    async def up_again(self) -> None:
        """Starts a platform anew on the folder of one that was killed."""
        self.platform = await asyncio.to_thread(start_platform, self.data, self._config)
        self._http = self.platform.http
        self.note("platform up again")

    async def serve(self, services: str, *, fail: str = "", **environment: str) -> ServiceProcess:
        """Starts services in a process of their own beside the platform."""
        assert self.platform is not None, "up() comes first"
        if "gateway" in services:
            environment = {"COLLEGIUM_HTTP__PORT": self._http.rpartition(":")[2], **environment}
        process = await asyncio.to_thread(
            ServiceProcess.start,
            services,
            self.data,
            self.platform.config_file,
            environment={**self._armed(fail), **environment},
        )
        self.services.append(process)
        self.note(f"{services} started as {process.pid} {environment or ''}{fail}")
        return process

    def _armed(self, fail: str) -> dict[str, str]:
        done = self.folder / "failpoints"
        done.mkdir(exist_ok=True)
        return {failpoints.VARIABLE: fail, failpoints.DONE_VARIABLE: str(done)} if fail else {}

    async def _end(self) -> None:
        for service in self.services:
            await asyncio.to_thread(service.stop)
        if self.platform is not None and self.platform.process.poll() is None:
            await asyncio.to_thread(self.platform.stop)

    # what happens

    @property
    def http(self) -> str:
        """The gateway's address."""
        return self._http

    @http.setter
    def http(self, address: str) -> None:
        self._http = address

    def note(self, text: str) -> None:
        """Writes a line of the schedule."""
        self._schedule.append(f"{time.monotonic() - self._began:7.2f} s  {text}")

    def fault(self, text: str) -> None:
        """Notes that the fault happens now; recovery is counted from here."""
        self._fault_at = time.monotonic()
        self.note(f"FAULT: {text}")

    def kill(self, *names: str) -> None:
        """Kills processes of the platform by what they run."""
        assert self.platform is not None
        pids = self.platform.pids()
        self.fault(f"kill -9 {', '.join(f'{name} ({pids[name]})' for name in names)}")
        for pid in {pids[name] for name in names}:
            os.kill(pid, signal.SIGKILL)

    async def happened(self, failpoint: str, *, deadline_seconds: float = 30) -> None:
        """Waits until an armed failpoint did what it was armed for, and notes it as the fault."""
        mark = self.folder / "failpoints" / failpoint
        await eventually(mark.exists, deadline_seconds=deadline_seconds, every_seconds=0.01)
        self.fault(f"failpoint {failpoint}")

    async def until_seconds_after_the_fault(self, seconds: float) -> None:
        """Lets time pass: the fault lasts that long."""
        await asyncio.sleep(max(0.0, self._fault_at + seconds - time.monotonic()))

    async def calls_running(self, least: int = 4, done: int = 2) -> None:
        """Waits until so many calls run and some are done: work is then in hand, waiting and finished."""

        def busy() -> bool:
            totals = self.simulator.counts().totals
            return totals.completed >= done and totals.open >= least

        await eventually(busy, every_seconds=0.005)

    async def work(self, tasks: int = 40, **fields: Any) -> list[str]:
        """Submits a mixture: single tasks, panels of three, turns of one conversation; returns the ids."""
        some = max(1, tasks // 10)
        groups = await asyncio.gather(
            self.load.submit(tasks - 2 * some, **fields),
            self.load.submit(some, plan="panel", panel_size=3, input=f"an {UNLIKE} question", **fields),
            self.load.submit(some, conversation="c1", **fields),
        )
        ids = [task_id for group in groups for task_id in group]
        self.note(f"{len(ids)} tasks accepted")
        return ids

    # what is checked

    def sources(self) -> Sources:
        """Where the checker looks."""
        assert self.platform is not None
        ready = {
            f"{service} ({process.pid})": f"http://127.0.0.1:{process.admin_port(service)}/health/ready"
            for process in self.services
            if process.process.poll() is None
            for service in process.services.split(",")
        }
        return Sources(
            folder=self.data,
            http=self._http,
            key=self.keys["chaos"],
            admin_key=self.platform.admin_key,
            nats=self._nats,
            probes=ready,
        )

    async def recovered(self, ids: Sequence[str] = (), *, deadline_seconds: float = 120) -> float:
        """Waits until tasks (all that were accepted) are terminal and every probe is true; seconds since the fault."""
        wanted = list(ids or self.load.accepted)

        async def ended() -> bool:
            shown = await self._shown(wanted)
            open_tasks = [task for task, state in shown.items() if state in OPEN]
            assert not open_tasks, f"{len(open_tasks)} of {len(wanted)} tasks are open, {open_tasks[0]} among them"
            probes = await facts.probes(self.sources())
            assert all(probes.values()), probes
            return True

        await self._or_tell(ended, deadline_seconds, wanted)
        self.recovery_seconds = time.monotonic() - self._fault_at
        self.note(f"recovered after {self.recovery_seconds:.1f} s")
        return self.recovery_seconds

    async def probes_are(self, *, ready: bool, deadline_seconds: float = 20) -> None:
        """Waits until every service's probe says so."""

        async def all_say() -> bool:
            answers = await facts.probes(self.sources())
            assert set(answers.values()) == {ready}, answers
            return True

        await eventually(all_say, deadline_seconds=deadline_seconds, every_seconds=0.1)
        self.note(f"every probe says {'ready' if ready else 'not ready'}")

    async def checked(self, expected: Expected, *, deadline_seconds: float = 60) -> Facts:
        """Collects facts until every law holds; raises ChaosError with what still does not at the deadline."""
        deadline = time.monotonic() + deadline_seconds
        while True:
            found, collected = await self._look(expected)
            if collected is not None and not found:
                return collected
            if time.monotonic() > deadline:
                raise ChaosError(await self._told([one.task_id for one in found], found))
            await asyncio.sleep(0.5)

    async def _look(self, expected: Expected) -> tuple[list[Violation], Facts | None]:
        try:
            collected = await facts.collect(self.sources(), self.simulator.counts(), list(self.load.accepted))
        except _NOT_YET as error:
            return [Violation("can be asked", "", f"{type(error).__name__}: {error}")], None
        return violations(collected, expected), collected

    async def _shown(self, ids: Collection[str]) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self.keys['chaos']}"}
        async with aiohttp.ClientSession(self._http, headers=headers) as session:
            try:
                return await facts.shown(session, ids)
            except _NOT_YET as error:
                raise AssertionError(f"tasks cannot be read: {error}") from None

    async def _or_tell(
        self, condition: Callable[[], Awaitable[bool]], deadline_seconds: float, ids: Collection[str]
    ) -> None:
        try:
            await eventually(condition, deadline_seconds=deadline_seconds, every_seconds=0.1)
        except NeverTrueError as error:
            shown = await self._shown(ids)
            open_tasks = [task for task, state in shown.items() if state in ("submitted", "working", "missing")]
            raise ChaosError(f"{error}\n{await self._told(open_tasks, ())}") from None

    async def _told(self, ids: Collection[str], found: Collection[Violation]) -> str:
        lines = [f"seed {self.seed}", "schedule:", *self._schedule, "violations:"]
        lines += [f"  {one.law}: {one.task_id} {one.text}" for one in list(found)[:20]]
        concerned = list(dict.fromkeys(task_id for task_id in ids if task_id))[:SHOWN_JOURNEYS]
        try:
            async with facts.operator(self.sources()) as connection:
                for task_id in concerned:
                    events = await task_events(connection, task_id)
                    lines += [f"journey of {task_id}:", table(ladder(events))]
        except _NOT_YET as error:
            lines.append(f"journeys cannot be read: {error}")
        return "\n".join(lines)
