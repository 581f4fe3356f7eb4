"""What a search may do beside looking: a model's wordings, booked and bounded; and files too large for a message."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from collegium_testing import ModelSimulator, eventually
from collegium_testing.platforms import PlatformProcess, close_breakers
from collegium_testing.simulator import Behaviour, Rule

from tests.conftest import LoopThread
from tests.journeys.conftest import Knowing
from tests.journeys.knowledge import KEYS, UPLOAD_BYTES_MAX

pytestmark = pytest.mark.timeout(240)

KEY, POOR = KEYS["searches"], KEYS["broke"]
WAIT = {"Prefer": "wait=60"}


@pytest.fixture
def platform(knowing: Knowing, loop_thread: LoopThread) -> PlatformProcess:
    loop_thread.run(close_breakers(knowing.platform))
    return knowing.platform


def session(platform: PlatformProcess, key: str = KEY) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(platform.http, headers={"Authorization": f"Bearer {key}"})


async def search(http: aiohttp.ClientSession, query: str, **more: Any) -> Any:
    async with http.post("/v1/search", json={"query": query, **more}) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def add(http: aiohttp.ClientSession, document: str, content: str) -> None:
    async with http.put(f"/v1/documents/{document}", json={"content": content}, headers=WAIT) as response:
        assert (await response.json())["state"] == "indexed", await response.text()


async def test_a_model_puts_a_question_in_other_words_and_is_booked_once(
    platform: PlatformProcess, simulator: ModelSimulator
):
    answer = 'Here are some:\n1. "how does a helicopter hover?"\n2. rotor lift\n3. beyond what was asked for'
    simulator.script(Rule(Behaviour(answer=answer), match="choper"))
    async with session(platform) as http:
        await add(http, "rotors", "Helicopters hover by turning a rotor.")
        assert (await search(http, "choper stay up", mode="words"))["data"] == []
        found = await search(http, "choper stay up", mode="words", rewrite=True, expand=1, explain=True)
        rewriting = found["rewriting"]
        assert (rewriting["state"], rewriting["model"], rewriting["cache"]) == ("done", "sim", "miss")
        assert rewriting["queries"] == ["how does a helicopter hover?", "rotor lift"]
        assert [one["document"] for one in found["data"]] == ["rotors"]
        assert found["data"][0]["explain"]["queries"] == [None, 1, 1]
        (call,) = simulator.counts().requests
        assert call.messages[-1].content == "choper stay up"
        again = (await search(http, "choper stay up", mode="words", rewrite=True, expand=1))["rewriting"]
        assert (again["queries"], again["cache"]) == (rewriting["queries"], "hit_exact")
        assert simulator.counts().totals.started == 1

        async def booked() -> bool:
            async with http.get("/v1/usage?group_by=tag") as response:
                rows = [row for row in (await response.json())["data"] if row["tag"] == "search=rewording"]
            return [row["requests"] for row in rows] == [2] and rows[0]["cost_usd"] == rewriting["cost_usd"]

        await eventually(booked)
        async with http.get(f"/v1/tasks/{rewriting['task_id']}") as response:
            assert (await response.json())["state"] == "completed"


async def test_without_a_model_the_plain_question_is_searched_and_that_is_said(
    platform: PlatformProcess, simulator: ModelSimulator
):
    async with session(platform, POOR) as http:
        await add(http, "bread", "Yeast makes bread rise.")
        found = await search(http, "yeast", rewrite=True)
        assert found["rewriting"]["state"] == "plain"
        assert found["rewriting"]["reason"] == "insufficient_quota"
        assert [one["document"] for one in found["data"]] == ["bread"]
        assert simulator.counts().totals.started == 0
    async with session(platform) as http:
        await add(http, "bread", "Yeast makes bread rise.")
        for behaviour, query, reason in (
            (Behaviour(hang=True), "yeast that hangs", "deadline_exceeded"),
            (Behaviour(answer="yeast that nothing"), "yeast that nothing", "unusable_answer"),
        ):
            simulator.script(Rule(behaviour, match=query))
            found = await search(http, query, rewrite=True, mode="words")
            assert (found["rewriting"]["state"], found["rewriting"]["reason"]) == ("plain", reason)
            assert [one["document"] for one in found["data"]] == ["bread"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"rewrite": True, "model": "nobody"}, (400, "unknown_model", "model")),
        ({"model": "sim"}, (400, "invalid_value", "model")),
        ({"expand": 6}, (400, "invalid_value", "expand")),
        ({"rerank": True}, (400, "unsupported_option", "rerank")),
        ({"filters": {"fields": {"n": {"gte": 2, "lt": 1}}}}, (400, "invalid_value", "filters")),
        ({"filters": {"fields": {"n": {"between": 2}}}}, (400, "invalid_value", "filters.fields[...]")),
        ({"query": " ", "rewrite": True}, (400, "invalid_value", "query")),
    ],
)
async def test_steps_that_cannot_be_done_are_refused_and_cost_nothing(
    platform: PlatformProcess, simulator: ModelSimulator, body: dict[str, Any], expected: Any
):
    async with session(platform) as http, http.post("/v1/search", json={"query": "x", **body}) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["param"]) == expected
        assert simulator.counts().totals.started == 0


def large(words: str, size: int) -> bytes:
    """A page with little text and much beside it."""
    return f"<html><body><p>{words}</p><!--".encode() + b"0123456789abcdef" * (size // 16) + b"--></body></html>"


async def test_a_file_of_many_megabytes_is_taken_in_piece_by_piece(platform: PlatformProcess):
    page = large("Zeppelins float on hydrogen.", 12_000_000)
    other = io.BytesIO(large("Blimps.", 5_000_000))
    form = aiohttp.FormData()
    form.add_field("id", "airship")
    form.add_field("tags", "air,large")
    form.add_field("fields", '{"year": 1936}')
    form.add_field("file", io.BytesIO(page), filename="airship.html", content_type="text/html")
    events: list[Any] = []
    async with session(platform) as http:
        async with http.post("/v1/documents", data=form) as response:
            made = await response.json()
            assert (response.status, made["state"], made["bytes"]) == (202, "accepted", len(page)), made
        async with http.get("/v1/documents/airship/events") as response:
            async for line in response.content:
                if line.startswith(b"data:") and (data := line[5:].strip()):
                    events.append(msgspec.json.decode(data))
        assert (events[-1]["state"], events[-1]["progress"]) == ("indexed", {"done": 1, "total": 1})
        asked = {"fields": {"year": {"gte": 1900, "lt": 1950}}}
        found = await search(http, "zeppelins", mode="words", filters=asked)
        assert [(one["document"], one["tags"]) for one in found["data"]] == [("airship", ["air", "large"])]
        headers = {**WAIT, "Content-Type": "text/html"}
        async with http.put("/v1/documents/airship", data=other, headers=headers) as response:
            assert (await response.json())["state"] == "indexed"

        async def too_large() -> AsyncIterator[bytes]:
            for _ in range(UPLOAD_BYTES_MAX // 1_000_000 + 1):
                yield b"x" * 1_000_000

        async with http.post("/v1/documents", data=too_large(), headers={"Content-Type": "text/plain"}) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (413, "body_too_large")
        wrong = aiohttp.FormData()
        wrong.add_field("document", b"x", filename="a.md")
        async with http.post("/v1/documents", data=wrong) as response:
            error = (await response.json())["error"]
            assert (response.status, error["code"], error["param"]) == (400, "invalid_value", "file")


async def test_the_command_line_sends_files_and_shows_steps(
    platform: PlatformProcess, simulator: ModelSimulator, tmp_path: Path
):
    simulator.script(Rule(Behaviour(answer="gannets"), match="solan goose"))
    file = tmp_path / "a strange name ü.md"
    file.write_text("# Gannets\n\nGannets dive for fish.\n")

    async def run(*arguments: str) -> tuple[int, Any, str]:
        environment = {**os.environ, "COLLEGIUM_URL": platform.http, "COLLEGIUM_API_KEY": KEY}
        command = [sys.executable, "-m", "collegium_cli", *arguments, "--json"]
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, msgspec.json.decode(done.stdout) if done.stdout else None, done.stderr

    code, made, said = await run("doc", "add", str(file), "--tag", "bird", "--fields", '{"page": 3}')
    assert (code, made["type"], made["fields"], made["tags"]) == (0, "markdown", {"page": 3}, ["bird"]), said
    filters = '{"fields": {"page": {"lte": 3}}}'
    code, found, said = await run("doc", "search", "solan goose", "--rewrite", "--filter", filters, "--mode", "words")
    assert (code, [one["document"] for one in found["data"]]) == (0, [made["id"]]), said
    assert found["rewriting"]["queries"] == ["gannets"]
    assert (await run("doc", "search", "x", "--filter", "[]"))[0] == 2


async def test_a_key_that_may_not_ask_models_gets_no_wordings(platform: PlatformProcess, simulator: ModelSimulator):
    async with session(platform, platform.admin_key) as operator:
        body = {"tenant": "searches", "scopes": ["knowledge"]}
        async with operator.post("/v1/admin/keys", json=body) as response:
            key: str = (await response.json())["key"]

    async def answered() -> bool:
        async with session(platform, key) as http, http.post("/v1/search", json={"query": "x"}) as response:
            return response.status == 200

    await eventually(answered)
    body = {"query": "x", "rewrite": True}
    async with session(platform, key) as http, http.post("/v1/search", json=body) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (403, "insufficient_scope")
    assert simulator.counts().totals.started == 0


async def test_operators_see_the_index(platform: PlatformProcess):
    async with session(platform) as http:
        await add(http, "bread", "Yeast makes bread rise.")
    async with session(platform, platform.admin_key) as http, http.get("/v1/admin/search-index") as response:
        (serving,) = (await response.json())["data"]
    assert (serving["model"], serving["dimensions"], serving["state"]) == ("all-minilm-l6-v2", 384, "serving")
    assert serving["documents"]["done"] == serving["documents"]["total"] > 0
