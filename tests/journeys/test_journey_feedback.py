"""What became of an answer: told once or again, read by operators beside the model that gave it."""

from __future__ import annotations

from typing import Any

import aiohttp
from collegium_testing import eventually
from collegium_testing.simulator import Behaviour, Rule

from tests.conftest import Stage


async def answered(session: aiohttp.ClientSession, **options: Any) -> str:
    body = {
        "model": "sim",
        "messages": [{"role": "user", "content": "is it right?"}],
        "collegium": {"cache": "off", "domain": "feedback", **options},
    }
    async with session.post("/v1/chat/completions", json=body) as response:
        assert response.status == 200, await response.text()
        return (await response.json())["collegium"]["task_id"]


async def told(session: aiohttp.ClientSession, task: str, key: str | None = None, **body: Any) -> tuple[int, Any]:
    headers = {"Idempotency-Key": key} if key else None
    async with session.post(f"/v1/tasks/{task}/feedback", json=body, headers=headers) as response:
        return response.status, await response.json()


async def test_words_are_stored_and_the_last_of_a_source_counts(stage: Stage):
    async with stage.session() as session, stage.session(stage.platform.admin_key) as operator:
        tasks = [await answered(session) for _ in range(3)]
        status, word = await told(session, tasks[0], score=0.25, comment="not quite")
        assert (status, word["task_id"], word["score"], word["source"]) == (201, tasks[0], 0.25, "client")
        assert (word["model"], word["rank"]) == ("sim", "teacher")
        once = [await told(session, tasks[1], "once", score=1.0, source="outcome") for _ in range(2)]
        assert once[0] == once[1]
        assert (await told(session, tasks[0], score=0.75))[0] == 201

        async def judged() -> list[dict[str, Any]] | None:
            async with operator.get("/v1/admin/models") as response:
                [model] = [one for one in (await response.json())["data"] if one["name"] == "sim"]
            found = [one for one in model["scores"] if one["domain"] == "feedback"]
            return found if found and (found[0]["judged"], found[0]["score_mean"]) == (2, 0.875) else None

        [score] = await eventually(judged)
        assert score["calls"] == 3


async def test_what_cannot_be_judged_is_refused_and_counts_nothing(stage: Stage):
    stage.simulator.script(Rule(Behaviour(hang=True), match="hang on"))
    async with stage.session() as session, stage.session(stage.other_key) as stranger:
        task = await answered(session)
        faults: list[tuple[dict[str, Any], str | None]] = [
            ({}, "score"),
            ({"score": 1.5}, "score"),
            ({"score": "1"}, "score"),
            ({"score": 1, "x": 1}, None),
        ]
        for body, param in faults:
            status, refusal = await told(session, task, **body)
            assert (status, refusal["error"]["code"]) == (400, "invalid_value"), refusal
            assert param is None or refusal["error"]["param"] == param
        status, refusal = await told(session, task, score=1, comment="x" * 4_001)
        assert (status, refusal["error"]["param"]) == (400, "comment")
        assert (await told(stranger, task, score=1))[0] == 404
        async with session.post("/v1/tasks", json={"model": "sim", "input": "hang on"}) as response:
            running = (await response.json())["id"]
        status, refusal = await told(session, running, score=1)
        assert (status, refusal["error"]["code"]) == (409, "task_not_settled")
        assert running in refusal["error"]["message"]
        async with session.post(f"/v1/tasks/{running}/cancel") as response:
            assert response.status == 200
