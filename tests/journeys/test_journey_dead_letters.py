"""From a dead letter back to work, over the command line as an operator would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from collegium_bus.connection import connect
from collegium_bus.publisher import Publisher
from collegium_contracts import subjects as s
from collegium_contracts.ids import shard_of
from collegium_testing import eventually
from collegium_testing.simulator import Behaviour, Rule

from tests.conftest import Stage


def collegium(stage: Stage, *words: str, key: str | None = None, code: int = 0) -> Any:
    """Runs one verb in a process of its own and returns the JSON that it prints."""
    environment = {**os.environ, "COLLEGIUM_URL": stage.http, "COLLEGIUM_API_KEY": key or stage.platform.admin_key}
    command = [sys.executable, "-m", "collegium_cli", *words, "--json", "--data", str(stage.platform.folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


async def failed_task(stage: Stage, text: str) -> str:
    """Submits a task that the endpoint refuses, and waits until it has failed."""
    stage.simulator.script(Rule(Behaviour(status=400)))
    async with (
        stage.session() as session,
        session.post("/v1/tasks", json={"input": text, "model": "sim"}, headers={"Prefer": "wait=20"}) as response,
    ):
        task = await response.json()
    assert task["state"] == "failed", task
    stage.simulator.script()
    return task["id"]


async def letter_of(stage: Stage, *wanted: str) -> dict[str, Any]:
    async def find() -> dict[str, Any] | None:
        rows = collegium(stage, "dlq", "ls", *wanted)
        return rows[-1] if rows else None

    return await eventually(find, every_seconds=0.2)


async def completed(stage: Stage, task_id: str) -> dict[str, Any]:
    async with stage.session() as session:

        async def look() -> dict[str, Any] | None:
            async with session.get(f"/v1/tasks/{task_id}") as response:
                task = await response.json()
                return task if task.get("settled_at") else None

        task = await eventually(look)
    assert task["state"] == "completed", task
    return task


async def test_garbage_is_listed_shown_requeued_and_discarded(stage: Stage):
    seed = (stage.platform.folder / "credentials" / "operator.nk").read_text().strip()
    connection = await connect(stage.platform.ready["nats"], "operator", nkey_seed=seed)
    subject = s.task_submitted("low", shard_of("letters"), "letters")
    garbage = b"\xc1 garbage " + os.urandom(6)
    await Publisher(connection).publish(
        subject, garbage, message_id=os.urandom(4).hex(), headers={s.H_TENANT: "letters"}
    )
    await connection.close()
    row = await letter_of(stage, "--tenant", "letters")
    assert (row["service"], row["cause"], row["subject"]) == ("router", "undecodable_message", subject)
    shown = collegium(stage, "dlq", "show", str(row["id"]))
    assert shown["bytes"] == len(garbage)

    assert collegium(stage, "dlq", "requeue", str(row["id"]), "--dry-run")["data"][0]["state"] == "requeued"
    assert collegium(stage, "dlq", "requeue", str(row["id"]))["data"] == [
        {"id": row["id"], "state": "requeued", "to": subject}
    ]

    async def comes_back() -> dict[str, Any] | None:
        rows = collegium(stage, "dlq", "ls", "--tenant", "letters")
        return rows[0] if rows and rows[0]["id"] != row["id"] else None

    again = await eventually(comes_back, every_seconds=0.2)
    discarded = collegium(stage, "dlq", "discard", "--all", "--tenant", "letters")
    assert discarded["data"] == [{"id": again["id"], "state": "discarded"}]
    assert collegium(stage, "dlq", "discard", str(again["id"]))["data"][0]["state"] == "already_done"
    assert collegium(stage, "dlq", "ls", "--tenant", "letters") == []


async def test_a_failed_task_leaves_a_letter_that_runs_it_again_once(stage: Stage):
    task_id = await failed_task(stage, "try me twice")
    row = await letter_of(stage, "--task", task_id, "--cause", "task_failed")
    assert (row["service"], row["tenant"], row["kind"], row["attempt"]) == ("worker-pool", "acme", "RunAttempt", 1)
    assert row["trace_id"]
    before = stage.simulator.counts().totals.completed
    outcome = collegium(stage, "dlq", "requeue", str(row["id"]))["data"][0]
    assert (outcome["state"], outcome["retry_of"]) == ("requeued", task_id)
    task = await completed(stage, outcome["task"])
    assert task["tags"]["retry_of"] == task_id
    assert collegium(stage, "dlq", "requeue", str(row["id"]))["data"][0]["state"] == "already_done"
    assert collegium(stage, "task", "retry", task_id, key=stage.key)["id"] == outcome["task"]
    assert stage.simulator.counts().totals.completed == before + 1


async def test_a_tenant_retries_its_own_failed_task(stage: Stage):
    task_id = await failed_task(stage, "and once more")
    await letter_of(stage, "--task", task_id)
    again = collegium(stage, "task", "retry", task_id, key=stage.key)
    await completed(stage, again["id"])
    assert collegium(stage, "dlq", "ls", "--task", task_id) == []
