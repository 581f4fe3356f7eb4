"""A worker pool of a tenant's own: its work goes there and nowhere else, and only tiers with the feature have one.

Also what a tenant's ended keys leave behind: work that waits for its time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from collegium_bus.connection import connect
from collegium_bus.direct import DirectReader
from collegium_contracts import subjects as s
from collegium_testing import eventually
from collegium_testing.platforms import PlatformProcess

from tests.journeys.town import KEYS

CHAT = "/v1/chat/completions"
ASK = {"model": "sim", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def platform(town: PlatformProcess) -> PlatformProcess:
    return town


def session(platform: PlatformProcess, key: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(platform.http, headers={"Authorization": f"Bearer {key}"})


async def change(platform: PlatformProcess, tenant: str, **body: Any) -> tuple[int, dict[str, Any]]:
    async with (
        session(platform, platform.admin_key) as http,
        http.patch(f"/v1/admin/tenants/{tenant}", json=body) as reply,
    ):
        return reply.status, await reply.json()


async def in_work(platform: PlatformProcess, pool: str) -> int:
    runtime: dict[str, Any] = msgspec.json.decode((platform.folder / "runtime.json").read_bytes())
    seed = Path(runtime["credentials"]["operator"]).read_text().strip()  # noqa: ASYNC240 - a test's own file
    connection = await connect(runtime["nats"], "operator", nkey_seed=seed)
    try:
        return len(await DirectReader(connection).headers(s.WORK, s.work_pool(pool), limit=10))
    finally:
        await connection.close()


async def test_a_tenants_own_pool_runs_its_work_and_without_a_worker_it_waits(platform: PlatformProcess):
    status, refused = await change(platform, "pooled", pool="mine")
    assert (status, refused["error"]["code"], refused["error"]["param"]) == (403, "feature_not_in_tier", "pool")
    status, refused = await change(platform, "pooled", tier="enterprise", pool="nowhere")
    assert (status, refused["error"]["code"]) == (400, "invalid_value")
    status, changed = await change(platform, "pooled", tier="enterprise", pool="nobodys")
    assert (status, changed["pool"]) == (200, "nobodys")
    status, refused = await change(platform, "pooled", tier="pro")
    assert (status, refused["error"]["code"]) == (403, "feature_not_in_tier")

    async with session(platform, KEYS["pooled"]) as big, session(platform, KEYS["general"]) as small:
        waiting: list[str] = []

        async def waits() -> bool:
            async with big.post("/v1/tasks", json={"model": "sim", "input": "hello"}) as reply:
                assert reply.status == 202, await reply.text()
                waiting.append((await reply.json())["id"])
            return await in_work(platform, "nobodys") > 0

        assert await eventually(waits)
        async with small.post(CHAT, json=ASK) as reply:
            assert reply.status == 200, "others go on"
        async with big.get(f"/v1/tasks/{waiting[-1]}") as reply:
            assert (await reply.json())["settled_at"] is None

        assert (await change(platform, "pooled", pool="mine"))[0] == 200

        async def runs() -> bool:
            async with big.post(CHAT, json={**ASK, "collegium": {"deadline_seconds": 2}}) as reply:
                return reply.status == 200

        assert await eventually(runs)
        assert await in_work(platform, "nobodys") > 0, "what went to the other pool stays there"
        assert (await change(platform, "pooled", pool=""))[1]["pool"] is None


async def test_the_operator_sees_a_pool_without_workers(platform: PlatformProcess):
    runtime: dict[str, Any] = msgspec.json.decode((platform.folder / "runtime.json").read_bytes())
    found: dict[str, float] = {}

    async def seen() -> bool:
        async with aiohttp.ClientSession() as http:
            for port in set(runtime["admin_ports"].values()):
                async with http.get(f"http://127.0.0.1:{port}/metrics") as reply:
                    for line in (await reply.text()).splitlines():
                        if line.startswith("collegium_pool_workers{"):
                            found[line.split('"')[1]] = float(line.rpartition(" ")[2])
        return found.get("general", 0) > 0 and found.get("mine", 0) > 0

    assert await eventually(seen), found
    assert found["nobodys"] == 0


def test_the_verb_sets_a_tenants_cache_and_pool(platform: PlatformProcess):
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "COLLEGIUM_URL": platform.http, "COLLEGIUM_API_KEY": platform.admin_key}
        command = [sys.executable, "-m", "collegium_cli", "tenant", "set", "general", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    for word, is_stale in (("on", True), ("off", False)):
        made = run("--cache-stale", word, "--json")
        assert made.returncode == 0, made.stderr
        assert msgspec.json.decode(made.stdout)[0]["cache"] == {"stale": is_stale}
    refused = run("--pool", "mine")
    assert (refused.returncode, "feature_not_in_tier" in refused.stderr) == (1, True), refused.stderr
    assert run().returncode == 2


async def test_work_that_waits_ends_with_its_key_and_goes_on_where_that_was_rotated(platform: PlatformProcess):
    ends: dict[str, dict[str, Any]] = {}
    async with session(platform, platform.admin_key) as admin, session(platform, KEYS["general"]) as small:
        for fate in ("revoke", "rotate"):
            body = {"tenant": "general", "scopes": ["tasks"]}
            async with admin.post("/v1/admin/keys", json=body) as reply:
                made = await reply.json()
            at = (datetime.now(UTC) + timedelta(seconds=2)).isoformat().replace("+00:00", "Z")

            async def accepted(made: dict[str, Any] = made, at: str = at) -> str:
                async with session(platform, made["key"]) as own:
                    later = {"model": "sim", "input": "later", "not_before": at}
                    async with own.post("/v1/tasks", json=later) as reply:
                        return (await reply.json())["id"] if reply.status == 202 else ""

            task = await eventually(accepted)
            grace = {"grace": "0s"} if fate == "rotate" else None
            async with admin.post(f"/v1/admin/keys/{made['id']}/{fate}", json=grace) as reply:
                assert reply.status in (200, 201), await reply.text()

            async def settled(task: str = task, fate: str = fate) -> bool:
                async with small.get(f"/v1/tasks/{task}") as reply:
                    ends[fate] = await reply.json()
                return bool(ends[fate]["settled_at"])

            await eventually(settled)
    assert (ends["revoke"]["state"], ends["revoke"]["error"]["code"]) == ("failed", "revoked_api_key")
    assert ends["rotate"]["state"] == "completed"
