"""What is left behind: usage as billing booked it, the scoreboard, keys that can be revoked, health and metrics."""

from __future__ import annotations

import time

from collegium_testing import eventually
from collegium_testing.simulator import Behaviour, Rule

from tests.conftest import Stage

CHAT = "/v1/chat/completions"
GOOD = {"model": "sim", "messages": [{"role": "user", "content": "hi there"}]}


async def test_usage_is_what_the_endpoint_counted(stage: Stage):
    tag = f"run={time.time_ns()}"
    options = {"tags": dict([tag.split("=")])}
    stage.simulator.script(Rule(Behaviour(answer="one two three")))
    async with stage.session() as session:
        for extra in ({}, {"stream": True}, {"collegium": {"plan": "panel", **options}}):
            body = {**GOOD, "collegium": options, **extra}
            async with session.post(CHAT, json=body) as response:
                assert response.status == 200
                await response.read()
        counted = stage.simulator.counts().totals

        async def booked() -> dict | None:
            async with session.get("/v1/usage", params={"group_by": "tag"}) as response:
                rows = [row for row in (await response.json())["data"] if row["tag"] == tag]
                return rows[0] if rows and rows[0]["requests"] == 3 else None

        row = await eventually(booked)
    assert counted.completed == 4, "of a panel of three, two that agree"
    assert row["input_tokens"] == counted.prompt_tokens
    assert row["output_tokens"] == counted.completion_tokens
    cost = counted.prompt_tokens * 1e-6 + counted.completion_tokens * 2e-6
    assert abs(float(row["cost_usd"]) - cost) < 1e-12
    assert row["charged_usd"] == row["cost_usd"]
    assert row["wasted_usd"] == "0"


async def test_the_scoreboard_shows_calls_and_latency(stage: Stage):
    stage.simulator.script(Rule(Behaviour(delay_ms=20)))
    async with stage.session(stage.platform.admin_key) as operator, stage.session() as session:
        async with session.post(CHAT, json={**GOOD, "collegium": {"domain": "scores"}}) as response:
            assert response.status == 200

        async def scored() -> dict | None:
            async with operator.get("/v1/admin/models") as response:
                models = (await response.json())["data"]
            scores = [score for model in models for score in model["scores"] if score["domain"] == "scores"]
            return scores[0] if scores else None

        score = await eventually(scored)
    assert score["calls"] == score["succeeded"] >= 1
    assert score["duration_ms_p50"] >= 18


async def test_a_new_key_works_and_a_revoked_one_stops_within_a_second(stage: Stage):
    async with stage.session(stage.platform.admin_key) as operator:
        async with operator.post("/v1/admin/keys", json={"tenant": "acme"}) as response:
            assert response.status == 201
            made = await response.json()
        async with stage.session(made["key"]) as session:

            async def let_in() -> bool:
                async with session.get("/v1/models") as response:
                    return response.status == 200

            await eventually(let_in)
            async with operator.post(f"/v1/admin/keys/{made['id']}/revoke") as response:
                assert response.status == 200

            async def locked_out() -> bool:
                async with session.get("/v1/models") as response:
                    return response.status == 401

            await eventually(locked_out, deadline_seconds=1)


async def test_probes_and_metrics_tell_the_state(stage: Stage):
    async with stage.session() as session:
        async with session.get("/health/ready") as response:
            assert response.status == 200
            assert all((await response.json())["checks"].values())
        async with session.post(CHAT, json=GOOD) as response:
            assert response.status == 200

        async def counted() -> bool:
            async with session.get("/metrics") as response:
                text = await response.text()
            return 'collegium_tasks_total{state="completed"}' in text and "collegium_overhead_seconds_bucket" in text

        await eventually(counted)


async def test_the_document_and_its_page_are_served(stage: Stage):
    async with stage.session() as session:
        async with session.get("/openapi.json") as response:
            document = await response.json()
        async with session.get("/docs") as response:
            page = await response.text()
    assert "/v1/chat/completions" in document["paths"]
    assert "/openapi.json" in page


async def test_possible_spend_is_for_operators_and_empty_where_every_call_ended(stage: Stage):
    async with stage.session() as session, session.post(CHAT, json=GOOD) as response:
        assert response.status == 200
        task_id = response.headers["x-collegium-task-id"]
    async with stage.session() as session, session.get("/v1/admin/possible-spend") as response:
        assert response.status == 403
    async with stage.session(stage.platform.admin_key) as operator:

        async def nothing_listed() -> bool:
            async with operator.get("/v1/admin/possible-spend?tenant=acme") as response:
                assert response.status == 200
                listed = await response.json()
            return not listed["is_cut"] and task_id not in {row["task_id"] for row in listed["data"]}

        await eventually(nothing_listed)
