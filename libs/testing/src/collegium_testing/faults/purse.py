"""One budget, a thousand who spend it at once over two gateways and two replicas of billing, and kills meanwhile.

Run as ``python -m collegium_testing.faults.purse --requests 1000 --fits 300 --kills 10 --seed 1``. The budget is for so
many requests as ``--fits`` says, to the cost of one. All ask at once; whoever is refused for want of money asks again
once the holds are released, until a round brings nobody in. It prints one JSON object: what came of them, the books,
and what does not hold. One rule: every figure is taken from outside, and compared over two ways at least.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from collegium_bus.errors import BusError
from collegium_contracts.requests import BudgetStanding

from collegium_testing.eventually import eventually
from collegium_testing.faults.ports import free_ports
from collegium_testing.faults.services import ServiceProcess
from collegium_testing.faults.spending import NO_MONEY, Spenders, Told, standings
from collegium_testing.platforms import PlatformProcess, configuration, make_key, start_platform
from collegium_testing.simulator import Behaviour, ModelSimulator, Rule

TENANT = "purse"
TARGETS = ("gateway", "billing", "second gateway", "second billing")
SETTLE_SECONDS = 240.0
MAX_ROUNDS = 60
ANSWER_TOKENS = 400
_PICOS: Final = Decimal(10**12)
_MAY_COST = re.compile(r"this request may cost up to ([0-9.]+) USD")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How many ask, for how many the budget is, how often somebody is killed, how long a call takes."""

    requests: int = 1000
    fits: int = 300
    kills: int = 0
    pause_seconds: tuple[float, float] = (0.3, 2.0)
    targets: tuple[str, ...] = TARGETS
    delay_ms: float = 100.0
    seed: int = 1


class PurseResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: amounts in pico-dollars.

    ``least`` is ``fits`` − ⌈hold ÷ cost⌉. ``first_round`` counts who was answered of all that asked at once, ``waited``
    what was told to come again, and came again under its key; ``broken`` requests lost their gateway.
    """

    seed: int
    requests: int
    fits: int
    least: int
    completed: int
    first_round: int
    rounds: int
    refused: dict[str, int]
    broken: int
    waited: dict[str, int]
    killed: dict[str, int]
    hold: int
    cost: int
    budget: int
    captured: int
    charged: int
    held_after: int
    model_calls: int
    seconds: float
    violations: list[str]


class Purse:
    """One run on one data folder."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder
        self._plan = plan
        self._chance = random.Random(plan.seed)  # noqa: S311 - faults, not secrets
        self._killed: Counter[str] = Counter()
        self._second: dict[str, ServiceProcess] = {}
        self._second_port, self._second_grpc = free_ports(2)
        self._platform: PlatformProcess | None = None
        self._calls_before = 0
        self._simulator = ModelSimulator(max_logged_calls=100_000)

    async def run(self) -> PurseResult:
        """Plays the plan and returns what came of it."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._simulator)
            answer = " ".join(["word"] * ANSWER_TOKENS)
            self._simulator.script(Rule(Behaviour(answer=answer, delay_ms=self._plan.delay_ms)))
            config = configuration(self._simulator.base_url, tenants={"probe": make_key("probe")})
            config["telemetry"]["sample_ratio"] = 0.0
            environment = {"COLLEGIUM_MAX_RESTARTS": "1000"}
            self._platform = await asyncio.to_thread(
                start_platform, self._folder / "data", config, environment=environment
            )
            stack.push_async_callback(self._stop)
            await asyncio.gather(self._serve("gateway"), self._serve("billing"))
            cost, hold = await self._prices(config["tenants"][0]["api_key"])
            # A rest that is worth half a request, so that exactly so many fit.
            budget = self._plan.fits * cost + cost // 2
            key = await self._introduce(TENANT, budget)
            self._calls_before = self._simulator.counts().totals.started
            return await self._spend(key, cost, hold, budget)

    async def _spend(self, key: str, cost: int, hold: int, budget: int) -> PurseResult:
        began = time.monotonic()
        spenders = Spenders(
            self._doors, key, seed=self._plan.seed, max_tokens=ANSWER_TOKENS, is_patient=self._plan.kills > 0
        )
        killing = asyncio.create_task(self._kill())
        told: dict[int, Told] = {}
        asking: list[int] = list(range(self._plan.requests))
        completed: list[int] = []
        try:
            for number in range(MAX_ROUNDS):
                answers = await spenders.ask(asking, number)
                told.update(zip(asking, answers, strict=True))
                asking = [one for one in asking if (told[one].status, told[one].code) == NO_MONEY]
                completed.append(sum(one.status == 200 for one in told.values()))
                await self._released()
                if not asking or (number and completed[-1] == completed[-2] and killing.done()):
                    break
            await killing
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
        standing = await self._released()
        charged = await self._charged(key, completed[-1])
        return self._result(spenders, list(told.values()), completed, standing, (cost, hold, budget, charged), began)

    def _result(
        self,
        spenders: Spenders,
        told: Sequence[Told],
        completed: Sequence[int],
        standing: BudgetStanding,
        amounts: tuple[int, int, int, int],
        began: float,
    ) -> PurseResult:
        cost, hold, budget, charged = amounts
        refused = Counter(f"{one.status} {one.code}" for one in told if one.status != 200)
        result = PurseResult(
            seed=self._plan.seed,
            requests=self._plan.requests,
            fits=self._plan.fits,
            least=self._plan.fits - -(-hold // cost),
            completed=completed[-1],
            first_round=completed[0],
            rounds=len(completed),
            refused=dict(refused),
            broken=spenders.broken,
            waited=dict(spenders.waited),
            killed=dict(self._killed),
            hold=hold,
            cost=cost,
            budget=budget,
            captured=standing.captured_picos,
            charged=charged,
            held_after=standing.held_picos,
            model_calls=self._simulator.counts().totals.started - self._calls_before,
            seconds=round(time.monotonic() - began, 1),
            violations=[],
        )
        answered = [one for one in told if one.status == 200]
        return msgspec.structs.replace(result, violations=broken_laws(result, answered))

    async def _serve(self, service: str) -> None:
        """Starts the second replica of a service, or starts it again at the same address."""
        assert self._platform is not None
        environment = {"COLLEGIUM_HTTP__PORT": str(self._second_port), "COLLEGIUM_GRPC__PORT": str(self._second_grpc)}
        self._second[service] = await asyncio.to_thread(
            ServiceProcess.start,
            service,
            self._platform.folder,
            self._platform.config_file,
            environment=environment if service == "gateway" else None,
        )

    async def _stop(self) -> None:
        for service in self._second.values():
            await asyncio.to_thread(service.stop)
        if self._platform is not None and self._platform.process.poll() is None:
            await asyncio.to_thread(self._platform.stop)

    def _doors(self) -> list[str]:
        assert self._platform is not None
        return [self._platform.http, f"http://127.0.0.1:{self._second_port}"]

    async def _kill(self) -> None:
        """Kills somebody every now and then; what the supervisor does not start again is started here."""
        assert self._platform is not None
        while sum(self._killed.values()) < self._plan.kills:
            await asyncio.sleep(self._chance.uniform(*self._plan.pause_seconds))
            target = self._chance.choice(self._plan.targets)
            service = target.removeprefix("second ")
            if target != service:
                await asyncio.to_thread(self._second[service].kill)
                self._killed[target] += 1
                await self._serve(service)
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._platform.pids()[service], signal.SIGKILL)
                self._killed[target] += 1

    async def _prices(self, key: str) -> tuple[int, int]:
        """Returns what one request costs, and what is held for it."""
        spenders = Spenders(self._doors, key, max_tokens=ANSWER_TOKENS)
        (answered,) = await spenders.ask([0])
        assert answered.status == 200, answered
        poor = await self._introduce("poor", 1)
        (refused,) = await Spenders(self._doors, poor, max_tokens=ANSWER_TOKENS).ask([0])
        match = _MAY_COST.search(refused.message)
        assert match is not None, refused
        return int(answered.charged * _PICOS), int(Decimal(match[1]) * _PICOS)

    async def _introduce(self, tenant: str, budget_picos: int) -> str:
        """Makes a tenant with a budget, and returns its key once every gateway knows it."""
        assert self._platform is not None
        headers = {"Authorization": f"Bearer {self._platform.admin_key}"}
        async with aiohttp.ClientSession(self._platform.http, headers=headers, raise_for_status=True) as operator:
            await operator.post("/v1/admin/tenants", json={"id": tenant, "tier": "enterprise"})
            usd = f"{budget_picos / _PICOS:f}"
            await operator.put(f"/v1/admin/budgets/{tenant}/purse", json={"usd": usd})
            body = {"tenant": tenant, "scopes": ["chat", "tasks", "usage"]}
            async with operator.post("/v1/admin/keys", json=body) as response:
                key: str = (await response.json())["key"]
        for door in self._doors():
            await eventually(lambda door=door: _lets_in(door, key), deadline_seconds=30)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        return key

    async def _released(self) -> BudgetStanding:
        """Waits until nothing is held any more, and returns the budget as it then stands."""
        assert self._platform is not None
        folder = self._platform.folder

        async def free() -> BudgetStanding | None:
            try:
                (standing,), holds = await standings(folder, TENANT)
            except (BusError, ValueError, OSError):
                return None
            return standing if not holds and not standing.held_picos else None

        found = await eventually(free, deadline_seconds=SETTLE_SECONDS, every_seconds=0.1)
        assert found is not None, "eventually returns what is true"
        return found

    async def _charged(self, key: str, completed: int) -> int:
        """Returns what the ledger charged, once it has booked as many requests as were answered."""
        headers = {"Authorization": f"Bearer {key}"}

        async def booked() -> dict[str, Any] | None:
            try:
                async with (
                    aiohttp.ClientSession(self._doors()[0], headers=headers) as session,
                    session.get("/v1/usage") as response,
                ):
                    totals: dict[str, Any] = (await response.json())["totals"]
            except (aiohttp.ClientError, OSError, KeyError):
                return None
            return totals if totals["requests"] >= completed else None

        totals = await eventually(booked, deadline_seconds=SETTLE_SECONDS)
        assert totals is not None, "eventually returns what is true"
        return int(Decimal(totals["charged_usd"]) * _PICOS)


def broken_laws(result: PurseResult, answered: Sequence[Told]) -> list[str]:
    """Says what does not hold of a run. Pure."""
    others = {name: count for name, count in result.refused.items() if name != "402 insufficient_quota"}
    told = int(sum(one.charged for one in answered) * _PICOS)
    laws = (
        (result.completed <= result.fits, f"{result.completed} completed, {result.fits} fit"),
        (result.completed >= result.least, f"{result.completed} completed, at least {result.least} must"),
        (not others, f"refused otherwise than for want of money: {others}"),
        (result.captured <= result.budget, f"{result.captured} captured of {result.budget}"),
        (
            result.captured == result.charged == told,
            f"captured {result.captured}, charged {result.charged}, told {told}",
        ),
        (result.held_after == 0, f"{result.held_after} still held"),
        (len({one.task_id for one in answered}) == result.completed, "an answer was counted twice"),
        (all(int(one.charged * _PICOS) == result.cost for one in answered), "requests cost differently"),
    )
    return [text for holds, text in laws if not holds]


async def _lets_in(door: str, key: str) -> bool:
    try:
        async with (
            aiohttp.ClientSession(door, headers={"Authorization": f"Bearer {key}"}) as session,
            session.get("/v1/models") as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, OSError):
        return False


def main() -> int:
    """Runs it from the command line; the exit code is 1 where something does not hold."""
    parser = argparse.ArgumentParser(prog="python -m collegium_testing.faults.purse", description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--fits", type=int, default=300, help="for how many of them the budget is")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--targets", default=",".join(TARGETS), help="whom to kill, by comma")
    parser.add_argument("--most-pause-seconds", type=float, default=2.0, help="between two kills")
    parser.add_argument("--delay-ms", type=float, default=100.0, help="how long a call takes")
    options = parser.parse_args()
    plan = Plan(
        requests=options.requests,
        fits=options.fits,
        kills=options.kills,
        pause_seconds=(min(0.3, options.most_pause_seconds / 2), options.most_pause_seconds),
        targets=tuple(options.targets.split(",")),
        delay_ms=options.delay_ms,
        seed=options.seed,
    )
    with tempfile.TemporaryDirectory(prefix="collegium-purse-", ignore_cleanup_errors=True) as folder:
        result = asyncio.run(Purse(Path(folder), plan).run())
    print(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())  # noqa: T201
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
