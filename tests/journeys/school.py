"""A platform whose models learn, for journeys that watch it from outside: by HTTP, and by the command line.

One rule: whoever uses it sees what a tenant or an operator sees, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from collegium_testing import Behaviour, ModelSimulator, Rule, eventually
from collegium_testing.platforms import PlatformProcess, configuration, make_key, running_platform

CHAT = "/v1/chat/completions"
# Names, ranks, and what a million tokens cost.
MODELS = (("small", "student", "1"), ("large", "teacher", "10"))
AT_ONCE = 8


class School(NamedTuple):
    """The platform, the simulator behind its models, and the keys of its tenants."""

    platform: PlatformProcess
    simulator: ModelSimulator
    keys: Mapping[str, str]

    def says(self, **by_model: str) -> None:
        """Scripts what each model answers."""
        self.simulator.script(*(Rule(Behaviour(answer=text), model=name) for name, text in by_model.items()))

    def session(self, tenant: str = "") -> aiohttp.ClientSession:
        """A session of a tenant, or of the operator."""
        key = self.keys[tenant] if tenant else self.platform.admin_key
        return aiohttp.ClientSession(self.platform.http, headers={"Authorization": f"Bearer {key}"})

    async def call(self, method: str, path: str, body: Any = None, *, tenant: str = "") -> tuple[int, Any]:
        """Calls as a tenant, or as the operator; returns the status and the answer."""
        async with self.session(tenant) as session, session.request(method, path, json=body) as response:
            return response.status, await response.json()

    async def done(self, method: str, path: str, body: Any = None, *, tenant: str = "") -> Any:
        """Calls what is not to be refused, and returns the answer."""
        status, answer = await self.call(method, path, body, tenant=tenant)
        assert status < 300, (path, answer)
        return answer

    async def ask(
        self, tenant: str, texts: Iterable[str], model: str = "auto", *, at_once: int = AT_ONCE, **about: Any
    ) -> list[dict[str, Any]]:
        """Asks so many questions at a time; returns what is told of each answer, with its ``text``, in order."""
        gate = asyncio.Semaphore(at_once)
        async with self.session(tenant) as session:

            async def one(text: str) -> dict[str, Any]:
                messages = [{"role": "user", "content": text}]
                body = {"model": model, "max_tokens": 8, "messages": messages, "collegium": about}
                async with gate, session.post(CHAT, json=body) as response:
                    answer = await response.json()
                    assert response.status == 200, answer
                return {**answer["collegium"], "text": answer["choices"][0]["message"]["content"]}

            return await asyncio.gather(*(one(text) for text in texts))

    async def judge(self, tenant: str, answers: Iterable[Mapping[str, Any]], score: float) -> None:
        """Says what answers were worth."""
        gate = asyncio.Semaphore(AT_ONCE)
        async with self.session(tenant) as session:

            async def one(task: str) -> None:
                path = f"/v1/tasks/{task}/feedback"
                async with gate, session.post(path, json={"score": score}) as response:
                    assert response.status == 201, await response.text()

            await asyncio.gather(*(one(answer["task_id"]) for answer in answers))

    async def round(self) -> dict[str, list[str]]:
        """Has a round of learning done from beginning to end; returns the lines of its steps by their names."""

        async def begun() -> str | None:
            status, cycle = await self.call("POST", "/v1/admin/evolution/run")
            assert status in (202, 409), cycle
            return cycle["id"] if status == 202 else None

        cycle = await eventually(begun, every_seconds=0.1)

        async def over() -> Any:
            found = await self.done("GET", f"/v1/admin/evolution/{cycle}")
            return found if found["state"] != "running" else None

        report: Any = await eventually(over, every_seconds=0.1)
        assert report["state"] == "done", report
        return {step["name"]: step["lines"] for step in report["steps"]}

    async def cli(self, *words: str) -> str:
        """Returns what a verb of the command line prints."""
        command = [sys.executable, "-m", "collegium_cli", *words, "--data", str(self.platform.folder)]
        run = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True, text=True)
        assert run.returncode == 0, (words, run.stdout, run.stderr)
        return run.stdout


@contextlib.contextmanager
def school_of(
    folder: Path,
    simulator: ModelSimulator,
    tenants: Sequence[str],
    *,
    models: Sequence[tuple[str, str, str]] = MODELS,
    routing: Mapping[str, Any] | None = None,
    evolution: Mapping[str, Any] | None = None,
) -> Generator[School]:
    """Runs a platform that learns when it is told to, for the length of a block.

    Models of the simulator may be added to it under the key ``sim``.
    """
    keys = {name: make_key(name) for name in tenants}
    learning = {"interval_queries": 1_000_000, **(evolution or {})}
    config = configuration(simulator.base_url, tenants=keys, evolution=learning)
    config["routing"] = {"exploration": 0.0, "trial_share": 0.0, **(routing or {})}
    config["models"] = [
        {
            "name": name,
            "base_url": simulator.base_url,
            "rank": rank,
            "price": {"input_usd_per_mtok": usd, "output_usd_per_mtok": usd},
        }
        for name, rank, usd in models
    ]
    key = {"api_key": "simulated", "hosts": [simulator.base_url]}
    config["roster"] = {"allow_private_addresses": True, "keys": {"sim": key}}
    simulator.script()
    simulator.reset()
    with running_platform(folder / "data", config) as platform:
        yield School(platform, simulator, keys)
