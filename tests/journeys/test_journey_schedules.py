"""Work for later on a whole platform: after its time, taken back before it, and again and again by cron."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec
from collegium_testing import eventually
from collegium_testing.simulator import Behaviour, Rule

from tests.conftest import Stage


async def call(session: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> dict[str, Any]:
    async with session.request(method, path, json=body) as response:
        assert response.status < 300, await response.text()
        return await response.json()


async def settled(session: aiohttp.ClientSession, task_id: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        task = await call(session, "GET", f"/v1/tasks/{task_id}")
        return task if task["settled_at"] else None

    return await eventually(look)


async def verb(stage: Stage, *words: str) -> Any:
    """Runs ``collegium schedule`` with the tenant's key, and returns what it printed as JSON."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COLLEGIUM_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "collegium_cli", "schedule", *words, "--json",
        env={**environ, "COLLEGIUM_URL": stage.http, "COLLEGIUM_API_KEY": stage.key},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return msgspec.json.decode(out)


async def test_a_task_runs_after_its_time_and_not_before(stage: Stage):
    stage.simulator.script(Rule(Behaviour(answer="in the evening")))
    async with stage.session() as session:
        not_before = datetime.now(UTC) + timedelta(seconds=2)
        body = {"input": "hello", "not_before": not_before.isoformat(), "deadline_seconds": 8}
        made = await call(session, "POST", "/v1/tasks", body)
        assert made["state"] == "submitted"
        shown = await call(session, "GET", f"/v1/tasks/{made['id']}")
        assert datetime.fromisoformat(shown["not_before"]) == not_before.replace(
            microsecond=not_before.microsecond // 1000 * 1000
        )
        task = await settled(session, made["id"])
    assert (task["state"], task["output"]) == ("completed", "in the evening")
    (asked,) = stage.simulator.counts().requests
    assert asked.started_at >= not_before.timestamp() - 0.001


async def test_a_task_taken_back_before_its_time_never_runs(stage: Stage):
    async with stage.session() as session:
        not_before = datetime.now(UTC) + timedelta(seconds=1)
        made = await call(session, "POST", "/v1/tasks", {"input": "hello", "not_before": not_before.isoformat()})
        other = await call(session, "POST", "/v1/tasks", {"input": "after it", "not_before": not_before.isoformat()})
        canceled = await call(session, "POST", f"/v1/tasks/{made['id']}/cancel")
        assert (canceled["state"], canceled["stop_reason"], canceled["attempts"]) == ("canceled", "canceled", [])
        await settled(session, other["id"])
        assert await call(session, "GET", f"/v1/tasks/{made['id']}") == canceled
    assert [call.messages[-1].text() for call in stage.simulator.counts().requests] == ["after it"]


async def test_a_schedule_lives_over_http_and_on_the_command_line(stage: Stage):
    made = await verb(
        stage, "create", "0 9 * * MON-FRI", "How do we stand?", "--timezone", "Europe/Berlin", "--name", "daily"
    )
    async with stage.session() as session, stage.session(stage.other_key) as stranger:
        assert (await call(session, "GET", "/v1/schedules"))["data"] == [made]
        assert (await call(stranger, "GET", "/v1/schedules"))["data"] == []
        assert await verb(stage, "ls") == [made]
        assert (await verb(stage, "pause", made["id"]))["next_at"] is None
        assert (await call(session, "GET", f"/v1/schedules/{made['id']}"))["state"] == "paused"
        assert (await verb(stage, "resume", made["id"])) == made
        assert (await verb(stage, "rm", made["id"], "--dry-run"))["dry_run"]
        shown = await verb(stage, "show", made["id"])
        assert shown["task"]["input"] == [{"role": "user", "content": "How do we stand?"}]
        assert (await verb(stage, "rm", made["id"]))["deleted"]
        assert (await call(session, "GET", "/v1/schedules"))["data"] == []
