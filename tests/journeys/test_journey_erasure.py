"""Erasure: nothing of an erased tenant is read or found on a disk; another's stays, and so do the books."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest
from collegium_bus.connection import connect
from collegium_bus.direct import DirectReader
from collegium_contracts import belongings
from collegium_contracts import subjects as s
from collegium_testing import Behaviour, ModelSimulator, Rule, eventually
from collegium_testing.platforms import PlatformProcess, configuration, make_key, running_platform, start_platform

pytestmark = pytest.mark.timeout(240)
KEYS = {"gone": make_key("gone"), "killed": make_key("killed"), "stays": make_key("stays")}
CANARY = "erasure-canary-{}-51c9"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator) -> Iterator[PlatformProcess]:
    config = configuration(simulator.base_url, tenants=KEYS, webhooks={"allow_private_addresses": True})
    with running_platform(tmp_path_factory.mktemp("erasure") / "data", config) as platform:
        yield platform


def session(platform: PlatformProcess, key: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(platform.http, headers={"Authorization": f"Bearer {key}"})


async def write_everywhere(platform: PlatformProcess, simulator: ModelSimulator, tenant: str) -> str:
    """Has a tenant leave its canary wherever content is kept, and returns a task of it."""
    canary = CANARY.format(tenant)
    simulator.script(Rule(Behaviour(answer=f"answer {canary}")))
    async with session(platform, KEYS[tenant]) as http:
        chat = {"model": "sim", "messages": [{"role": "user", "content": canary}]}
        for stream in (False, True):
            body = {**chat, "stream": stream, "collegium": {"conversation": "talk", "cache": "off"}}
            async with http.post("/v1/chat/completions", json=body, headers={"Idempotency-Key": f"{stream}"}) as reply:
                assert canary in await reply.text()
        task = {"model": "sim", "input": canary, "callback_url": f"http://127.0.0.1:9/{canary}"}
        async with http.post("/v1/tasks", json=task, headers={"Prefer": "wait=20"}) as reply:
            done = await reply.json()
            assert canary in done["output"], done
        moment = datetime.now(UTC) + timedelta(days=2)
        tool = {"type": "function", "function": {"name": "look_up", "description": canary, "parameters": {}}}
        worded = {
            "model": "sim",
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [tool],
            "stop": [canary],
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "description": canary}},
        }
        async with http.post("/v1/chat/completions", json=worded) as reply:
            assert reply.status == 200, await reply.text()
        later = {"model": "sim", "input": canary, "not_before": moment.isoformat().replace("+00:00", "Z")}
        async with http.post("/v1/tasks", json=later) as reply:
            assert reply.status == 202, await reply.text()
        cron = {"cron": "0 3 1 1 *", "task": {"model": "sim", "input": canary}}
        async with http.post("/v1/schedules", json=cron) as reply:
            assert reply.status == 201, await reply.text()
        async with http.post("/v1/memories", json={"text": canary, "path": "web/ada"}) as reply:
            assert reply.status == 201, await reply.text()
        async with http.put("/v1/contexts/one", json={"fields": {"said": canary}}) as reply:
            assert reply.status == 201, await reply.text()
        await http.post("/v1/webhooks/secret/rotate")
        task_id: str = done["id"]

        async def projected() -> bool:
            async with http.get("/v1/tasks") as reply:
                return task_id in await reply.text()

        await eventually(projected)
    return task_id


def on_disk(folder: Path, text: str) -> list[str]:
    """Every file of the platform that holds a text: tables, their logs, streams, our own logs."""
    needle, found = text.encode(), []
    for file in folder.rglob("*"):
        try:
            if file.is_file() and needle in file.read_bytes():
                found.append(str(file))
        except FileNotFoundError:
            continue
    return found


async def rows(platform: PlatformProcess, tenant: str) -> dict[str, int]:
    runtime: dict[str, Any] = msgspec.json.decode((platform.folder / "runtime.json").read_bytes())
    database = await asyncpg.connect(runtime["database"])
    try:
        tables = (
            "gateway.tasks",
            "gateway.webhooks",
            "gateway.webhook_secrets",
            "context.turns",
            "context.memories",
            "context.shared",
            "billing.tasks",
        )
        return {
            table: await database.fetchval(f"SELECT count(*) FROM {table} WHERE tenant = $1", tenant)
            for table in tables
        }
    finally:
        await database.close()


async def messages(platform: PlatformProcess, tenant: str) -> dict[str, int]:
    """How much stands of a tenant in what an erasure purges."""
    runtime: dict[str, Any] = msgspec.json.decode((platform.folder / "runtime.json").read_bytes())
    seed = Path(runtime["credentials"]["operator"]).read_text().strip()  # noqa: ASYNC240 - a test's own file
    connection = await connect(runtime["nats"], "operator", nkey_seed=seed)
    filters = [
        *((s.INGRESS, one) for one in belongings.ingress_of(tenant)),
        (s.SCHEDULE, belongings.scheduled_of(tenant)),
        (s.SCHEDULE, belongings.crons_of(tenant)),
        belongings.bucket_of(s.KV_SCHEDULES, tenant),
        belongings.bucket_of(s.KV_IDEMPOTENCY, tenant),
        (s.DEAD, s.dead_of(tenant=tenant)),
        *((s.EVENTS, one) for one in belongings.events_of(tenant)),
    ]
    try:
        reader = DirectReader(connection)
        return {subject: len(await reader.headers(stream, subject, limit=100)) for stream, subject in filters}
    finally:
        await connection.close()


async def erase(platform: PlatformProcess, tenant: str) -> None:
    async with session(platform, platform.admin_key) as http:
        async with http.post(f"/v1/admin/tenants/{tenant}/erasure", json={"confirm": "another"}) as reply:
            assert reply.status == 400
        async with http.post(f"/v1/admin/tenants/{tenant}/erasure", json={"confirm": tenant}) as reply:
            assert (reply.status, (await reply.json())["tenant"]) == (202, tenant)


async def until_erased(platform: PlatformProcess, tenant: str) -> dict[str, Any]:
    view: dict[str, Any] = {}

    async def erased() -> bool:
        nonlocal view
        try:
            async with (
                session(platform, platform.admin_key) as http,
                http.get(f"/v1/admin/tenants/{tenant}/erasure") as reply,
            ):
                view = await reply.json()
        except aiohttp.ClientError:
            return False
        return view.get("state") == "erased"

    await eventually(erased)
    return view


async def test_an_erased_tenant_is_neither_read_nor_found(platform: PlatformProcess, simulator: ModelSimulator):
    await write_everywhere(platform, simulator, "gone")
    task = await write_everywhere(platform, simulator, "stays")
    before, waiting = await rows(platform, "gone"), await messages(platform, "gone")
    assert min(before.values()) > 0, before
    assert sum(waiting.values()) >= 4, waiting
    assert on_disk(platform.folder, CANARY.format("gone")) == [], "what is stored is sealed from the first byte on"

    await erase(platform, "gone")
    async with session(platform, KEYS["gone"]) as http, http.get("/v1/tasks") as reply:
        assert reply.status == 401, "from the moment that the erasure was asked for"
    view = await until_erased(platform, "gone")
    assert (view["left"], view["removed"]["data_keys"]) == ([], 1)
    assert view["removed"]["events"] > 0

    after = await rows(platform, "gone")
    assert {table: count for table, count in after.items() if count} == {"billing.tasks": before["billing.tasks"]}
    assert set((await messages(platform, "gone")).values()) == {0}
    assert on_disk(platform.folder, CANARY.format("gone")) == []

    async with session(platform, KEYS["stays"]) as http, http.get(f"/v1/tasks/{task}") as reply:
        assert CANARY.format("stays") in (await reply.json())["output"]
    async with session(platform, platform.admin_key) as http:
        async with http.get("/v1/usage?group_by=tenant") as reply:
            groups = {row["tenant"]: row for row in (await reply.json())["data"]}
            assert groups["gone"]["charged_usd"] == groups["stays"]["charged_usd"] != "0"
        async with http.get("/v1/admin/tenants/gone/data-keys") as reply:
            shown = await reply.json()
            assert (shown["keys"], shown["erased_at"] is None) == ([], False)
        async with http.post("/v1/admin/tenants/gone/data-keys/rotate") as reply:
            assert reply.status == 404, "no key is made again"
        async with http.post("/v1/admin/tenants/operator/erasure", json={"confirm": "operator"}) as reply:
            assert reply.status == 400
        for odd in ("nobody", "..%2Fgone", "GONE", "*"):
            async with http.post(f"/v1/admin/tenants/{odd}/erasure", json={"confirm": odd}) as reply:
                assert reply.status == 404, odd


async def test_an_erasure_survives_the_death_of_everybody_who_does_it(
    platform: PlatformProcess, simulator: ModelSimulator
):
    await write_everywhere(platform, simulator, "killed")
    await erase(platform, "killed")
    for name, pid in platform.pids().items():
        if name not in ("nats", "postgres"):
            # Several services may be one process.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0)
    await until_erased(platform, "killed")
    assert set((await messages(platform, "killed")).values()) == {0}
    after = await rows(platform, "killed")
    assert [table for table, count in after.items() if count] == ["billing.tasks"]
    assert on_disk(platform.folder, CANARY.format("killed")) == []


def test_without_its_envelope_key_the_platform_does_not_start_and_says_what_to_do(
    tmp_path: Path, simulator: ModelSimulator
):
    config = configuration(simulator.base_url, tenants={"gone": KEYS["gone"]})
    with running_platform(tmp_path / "data", config):
        pass
    key = tmp_path / "data" / "encryption.key"
    kept = key.read_text()
    key.unlink()
    with pytest.raises(RuntimeError, match=r"encryption\.key is missing: restore"):
        start_platform(tmp_path / "data", config, environment={"COLLEGIUM_MAX_RESTARTS": "1"})
    assert not key.exists(), "no other key is made in its place"
    key.write_text(kept)
    with running_platform(tmp_path / "data", config):
        pass
