"""The audit trail with its processes killed: every act that was answered is sealed, once, and the chains hold."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from collegium_testing import ModelSimulator, eventually
from collegium_testing.platforms import PlatformProcess, configuration, make_key, running_platform

pytestmark = pytest.mark.timeout(240)


def verb(platform: PlatformProcess, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collegium_cli", "audit", *words, "--data", str(platform.folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def records(platform: PlatformProcess, session: aiohttp.ClientSession, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        async with session.get(f"/v1/admin/audit?limit=500&{query}&cursor={cursor}") as response:
            assert response.status == 200, await response.text()
            page = await response.json()
        found += page["data"]
        cursor = page["next_cursor"]
    return found


@pytest.mark.long
async def test_acts_answered_while_billing_is_killed_are_sealed_once(simulator: ModelSimulator, tmp_path: Path) -> None:
    config = configuration(simulator.base_url, tenants={"acme": make_key("acme")})
    environment = {"COLLEGIUM_MAX_RESTARTS": "50"}
    with running_platform(tmp_path / "audit", config, environment=environment) as platform:
        headers = {"Authorization": f"Bearer {platform.admin_key}"}
        answered: dict[str, int] = {}
        done = asyncio.Event()

        async def act(session: aiohttp.ClientSession, worker: int) -> None:
            number = 0
            while not done.is_set():
                number += 1
                tenant = f"t-{worker}-{number}"
                async with session.post("/v1/admin/tenants", json={"id": tenant}) as response:
                    answered[tenant] = response.status

        async with aiohttp.ClientSession(platform.http, headers=headers) as session, asyncio.TaskGroup() as group:
            for worker in range(4):
                group.create_task(act(session, worker))
            for _ in range(3):
                before = len(answered)
                await eventually(lambda: len(answered) > before + 20)  # noqa: B023 - used at once
                killed = platform.pids()["billing"]
                os.kill(killed, signal.SIGKILL)
                await eventually(lambda: platform.pids()["billing"] != killed)  # noqa: B023
            before = len(answered)
            await eventually(lambda: len(answered) > before + 20)
            done.set()

        async with aiohttp.ClientSession(platform.http, headers=headers) as session:

            async def all_sealed() -> bool:
                sealed = await records(platform, session, "tenant=operator&action=tenants")
                ended = {one["details"]["begun"] for one in sealed if one["outcome"] != "begun"}
                return len(sealed) >= 2 * len(answered) and ended == {
                    one["id"] for one in sealed if one["outcome"] == "begun"
                }

            await eventually(all_sealed, every_seconds=0.3)
            sealed = await records(platform, session, "tenant=operator&action=tenants")
            assert len(sealed) == 2 * len(answered)
            assert len({one["id"] for one in sealed}) == len(sealed)
            outcomes = Counter(one["outcome"] for one in sealed)
            assert outcomes["done"] == sum(status == 201 for status in answered.values())
            assert outcomes["failed"] == sum(status >= 500 for status in answered.values())
        checked = verb(platform, "verify")
        assert checked.returncode == 0, checked.stdout
        assert "records of faults" not in checked.stdout
        file = tmp_path / "operator.csv"
        exported = verb(platform, "export", "--tenant", "operator", "--format", "csv", "--out", str(file))
        assert exported.returncode == 0, exported.stderr
        [key] = json.loads(verb(platform, "key", "--json").stdout).values()
        assert verb(platform, "verify", "--file", str(file), "--public-key", key).returncode == 0
        file.write_text(file.read_text().replace("tenants.create", "tenants.delete", 1))
        assert verb(platform, "verify", "--file", str(file), "--public-key", key).returncode == 1
