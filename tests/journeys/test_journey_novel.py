"""A question unlike anything known goes to a panel, a known one to one model, and both are held for as such."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest
from collegium_bus.connection import Connection, connect
from collegium_bus.direct import DirectReader
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.holds import HoldsJournaled
from collegium_contracts.ids import shard_of
from collegium_contracts.policies import Cell, RoutingPolicy, routing_key
from collegium_testing import Behaviour, Rule, eventually

from tests.conftest import Stage

pytestmark = pytest.mark.timeout(240)

CHAT, MODELS, DOMAIN = "/v1/chat/completions", "/v1/admin/models", "novel-journey"
EXPERIMENTS = "/v1/admin/experiments"
KNOWN, NOVEL = "How many legs has a spider?", "Who may appeal against a ruling of the harbour master?"
STUDENTS = {"novel.small": "1", "novel.little": "2"}
# A policy of its own number, so that nobody takes it for one that was learned.
VERSION = 900_000
USD_PICOS = 10**12


async def sent(session: aiohttp.ClientSession, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    async with session.request(method, path, json=body) as response:
        answer = await response.json()
        assert response.status == status, answer
        return answer


def knows(row: list[float]) -> RoutingPolicy:
    """A policy of a tenant that knows one question, by the embedding of that."""
    known = np.array(row, np.float32)
    scale = float(np.abs(known).max()) / 127
    names = ["sim", *STUDENTS]
    return RoutingPolicy(
        version=VERSION,
        tenant="acme",
        created_at_ms=0,
        models=names,
        everywhere=[Cell(100, 0.9, 0.01) for _ in names],
        family="full",
        embeds=True,
        bank=np.rint(known / scale).astype(np.int8).tobytes(),
        bank_scale=scale,
        bank_rest=np.zeros(len(names), "<f2").tobytes(),
        near_dimensions=len(row),
        projection=np.eye(len(row), dtype="<f4").tobytes(),
        novel_below=0.8,
    )


async def ask(session: aiohttp.ClientSession, text: str, **fields: Any) -> dict[str, Any]:
    body = {
        "model": "auto", "max_tokens": 8, "messages": [{"role": "user", "content": text}],
        "collegium": {"domain": DOMAIN, "answer": "text"}, **fields,
    }  # fmt: skip
    return (await sent(session, "POST", CHAT, body))["collegium"]


def configured(stage: Stage, **routing: Any) -> bytes:
    """Replaces the file's section of routing, as an editor does; returns what stood."""
    file = stage.platform.folder.parent / f"{stage.platform.folder.name}.yaml"
    stood = file.read_bytes()
    changed = msgspec.json.decode(stood)
    changed["routing"] = {**changed.get("routing", {}), **routing}
    write(file, msgspec.json.encode(changed))
    return stood


def write(file: Path, content: bytes) -> None:
    draft = file.with_suffix(".new")
    draft.write_bytes(content)
    draft.replace(file)


@pytest.fixture
async def policy(stage: Stage) -> AsyncIterator[Bucket]:
    seed = (stage.platform.folder / "credentials" / "evolution.nk").read_text().strip()
    connection = await connect(stage.platform.ready["nats"], "evolution", nkey_seed=seed)
    bucket = Bucket(connection, s.KV_POLICY)
    stood = await bucket.get(routing_key("acme"))
    yield bucket
    if stood is not None:
        await bucket.put(routing_key("acme"), stood.value)
    elif (entry := await bucket.get(routing_key("acme"))) is not None:
        await bucket.delete(routing_key("acme"), expected_revision=entry.revision)
    await connection.close()


@pytest.fixture
async def operator(stage: Stage) -> AsyncIterator[aiohttp.ClientSession]:
    """The operator of a stage whose domain has two students, and whose acme's novel questions are for a panel."""
    file = stage.platform.folder.parent / f"{stage.platform.folder.name}.yaml"
    stood = configured(stage, exploration=0.0, novel_tenants={"acme": "panel"})
    async with stage.session(stage.platform.admin_key) as session:
        try:
            for name, usd in STUDENTS.items():
                price = {"input_usd_per_mtok": usd, "output_usd_per_mtok": usd}
                spec = {
                    "name": name, "base_url": stage.simulator.base_url, "key": "sim", "domains": [DOMAIN],
                    "rank": "student", "price": price,
                }  # fmt: skip
                await sent(session, "POST", MODELS, spec, 201)
            yield session
        finally:
            write(file, stood)
            for name in STUDENTS:
                async with session.delete(f"{MODELS}/{name}"):
                    pass


@pytest.fixture
async def keys(stage: Stage, operator: aiohttp.ClientSession) -> AsyncIterator[Any]:
    """Makes keys of acme with budgets of their own, of so many pico-dollars."""
    made: list[str] = []

    async def make(picos: int) -> aiohttp.ClientSession:
        budget = {"usd": f"{picos / USD_PICOS:.6f}", "window": "30d"}
        body = {"tenant": "acme", "scopes": ["chat", "tasks"], "budget": budget}
        key = await sent(operator, "POST", "/v1/admin/keys", body, 201)
        made.append(key["id"])
        session = stage.session(key["key"])

        async def is_let_in() -> bool:
            async with session.get("/v1/models") as response:
                return response.status == 200

        await eventually(is_let_in, deadline_seconds=60)
        return session

    yield make
    for name in made:
        await sent(operator, "POST", f"/v1/admin/keys/{name}/revoke")


class Journal:
    """What billing's journal tells of acme's tasks."""

    def __init__(self, connection: Connection) -> None:
        self._direct = DirectReader(connection)

    async def of(self, task: str) -> tuple[int, int, int]:
        """Returns what was held for a task, what its ended attempts captured, and what its settlement did, once it has
        ended."""

        async def ended() -> tuple[int, int, int] | None:
            placed, captured, settled = 0, 0, -1
            sequence, subject = 0, s.ledger_journal(shard_of("acme"))
            while stored := await self._direct.after(s.LEDGER, sequence, subject):
                sequence = stored.sequence
                record = codec.journey.decode(stored.payload)
                assert isinstance(record, HoldsJournaled)
                placed += sum(one.picos for one in record.placed if one.task == task)
                captured += sum(one.picos for one in record.captured if one.task == task)
                settled = next((one.picos for one in record.ended if one.task == task), settled)
            return (placed, captured, settled) if settled >= 0 else None

        return await eventually(ended, deadline_seconds=60, every_seconds=0.2)


@pytest.fixture
async def journal(stage: Stage) -> AsyncIterator[Journal]:
    seed = (stage.platform.folder / "credentials" / "billing.nk").read_text().strip()
    connection = await connect(stage.platform.ready["nats"], "billing", nkey_seed=seed)
    yield Journal(connection)
    await connection.close()


async def shown(stage: Stage, task: str) -> str:
    command = [sys.executable, "-m", "collegium_cli", "task", "show", task, "--data", str(stage.platform.folder)]
    done = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True)
    return done.stdout


async def streamed(session: aiohttp.ClientSession, text: str) -> dict[str, str]:
    """Asks for a stream, and returns its headers once it has ended."""
    body = {
        "model": "auto", "max_tokens": 8, "stream": True, "messages": [{"role": "user", "content": text}],
        "collegium": {"domain": DOMAIN},
    }  # fmt: skip
    async with session.post(CHAT, json=body) as response:
        assert "[DONE]" in await response.text()
        return {name.lower(): value for name, value in response.headers.items()}


def charged(task: dict[str, Any]) -> int:
    return round(float(task["usage"]["charged_usd"]) * USD_PICOS)


async def test_a_novel_question_is_for_a_panel_and_a_known_one_for_one_model(
    stage: Stage, operator: aiohttp.ClientSession, policy: Bucket, keys: Any, journal: Journal
):
    async with await keys(USD_PICOS) as rich:
        embedded = await sent(rich, "POST", "/v1/embeddings", {"model": "auto", "input": KNOWN})
        knowing = codec.encode(knows(embedded["data"][0]["embedding"]))
        # Nobody agrees with the teacher, and the two who say the same decide.
        says = {"sim": "a teacher", "novel.small": "a student", "novel.little": "a student"}
        stage.simulator.script(*(Rule(Behaviour(answer=text), model=name) for name, text in says.items()))

        async def is_panel() -> dict[str, Any] | None:
            # A round of learning may put another one in its place.
            await policy.put(routing_key("acme"), knowing)
            found = await ask(rich, f"{NOVEL} {time.time_ns()}")
            # Of two, as long as the router does not know the third.
            return found if (found["plan"], found["attempts"]) == ("panel", 3) else None

        panel = await eventually(is_panel, deadline_seconds=60, every_seconds=0.2)
        assert (panel["plan_reason"], panel["model"]) == ("novel", "novel.small")
        told = await shown(stage, panel["task_id"])
        assert "plan panel, 2 of at most 3 attempts at first; chosen by the platform: unlike anything known" in told
        why = "the cheapest that the panel asked least; unlike anything known"
        assert all(f"why {name}: {why}" in told for name in says), told
        # What was held covers all of it, and what was captured is what its members cost.
        task = await sent(rich, "GET", f"/v1/tasks/{panel['task_id']}")
        held, captured, settled = await journal.of(panel["task_id"])
        members = [round(float(one["usage"]["charged_usd"]) * USD_PICOS) for one in task["attempts"]]
        assert (len(members), sum(members)) == (3, settled)
        assert (captured, charged(task)) == (settled, settled)
        assert 0 < settled <= held

        async def is_known() -> dict[str, Any] | None:
            found = await ask(rich, KNOWN)
            return found if found["plan"] == "single" else None

        known = await eventually(is_known, deadline_seconds=60, every_seconds=0.2)
        assert (known["attempts"], "plan_reason" in known) == (1, False)
        # A stream does not wait for a verdict.
        headers = await streamed(rich, f"{NOVEL} {time.time_ns()}")
        quick = await sent(rich, "GET", f"/v1/tasks/{headers['x-collegium-task-id']}")
        assert quick["collegium"]["plan"] == "single"
    # A budget that covers one attempt and not three is no reason to refuse.
    one, _, _ = await journal.of(headers["x-collegium-task-id"])
    assert one < held <= 4 * one
    async with await keys(2 * one) as poor:
        spared = await ask(poor, f"{NOVEL} {time.time_ns()}")
        assert (spared["plan"], spared["model"]) == ("single", "sim")
        assert (await journal.of(spared["task_id"]))[0] < 2 * one


async def test_a_panel_is_tried_against_one_model_and_each_task_counts_once(
    stage: Stage, operator: aiohttp.ClientSession
):
    draft = {
        "name": "panels", "kind": "plan", "tenant": "acme", "domain": DOMAIN, "unit": "task",
        "candidate": {"plan": "panel", "members": 2}, "control": {"plan": "single"}, "guardrails": {"cost": 8},
    }  # fmt: skip
    path = f"{EXPERIMENTS}/{(await sent(operator, 'POST', EXPERIMENTS, draft, 201))['id']}"
    stage.simulator.script(Rule(Behaviour(answer="yes")))
    tasks: dict[str, set[str]] = {"single": set(), "panel": set()}
    async with stage.session() as client:
        try:
            await sent(operator, "POST", f"{path}/start")

            async def both() -> bool:
                found = await ask(client, f"Is it so? {time.time_ns()}")
                tasks[found["plan"]].add(found["task_id"])
                assert found.get("plan_reason", "") == ("experiment" if found["plan"] == "panel" else "")
                return all(tasks.values())

            await eventually(both, deadline_seconds=60, every_seconds=0.1)

            async def arms() -> dict[str, Any] | None:
                look = (await sent(operator, "GET", path))["look"]
                found = {arm["arm"]: arm for arm in look["arms"]} if look is not None else {}
                return found if found.get("candidate") and found.get("control") else None

            looked = await eventually(arms, deadline_seconds=60, every_seconds=0.2)
        finally:
            await sent(operator, "POST", f"{path}/stop", {"reason": "the journey is over"})
    # What was asked before routers knew of the experiment is in none; each other task is in one arm, once.
    counted = {name: looked[name]["tasks"] for name in ("candidate", "control")}
    assert all(counted.values())
    assert sum(counted.values()) <= sum(map(len, tasks.values()))
