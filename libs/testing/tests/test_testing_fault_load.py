"""The load asks a question under one key until its outcome is certain, and forgets nothing that was accepted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from aiohttp import web
from collegium_testing import eventually
from collegium_testing.faults.load import Load


class Door:
    """A gateway's door that answers what it is told: a status a request, or a broken connection (0)."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.keys: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        self.keys.append(key)
        status = self.statuses.pop(0) if self.statuses else 202
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
        if status < 400:
            good = 200 if request.path.endswith("completions") else status
            return web.json_response({}, status=good, headers={"x-collegium-task-id": f"tsk_{key}"})
        return web.json_response({"error": {"code": f"code_{status}"}}, status=status)


@pytest_asyncio.fixture
async def door() -> AsyncIterator[Door]:
    door = Door()
    app = web.Application()
    app.router.add_post("/v1/{path:.*}", door.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    door.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield door
    await runner.cleanup()


async def test_what_broke_or_was_put_off_is_asked_again_under_its_key(door: Door):
    door.statuses = [0, 503, 429, 202]
    async with Load(lambda: door.url, "key") as load:
        assert await load.submit(1) == ["tsk_load-1"]
    assert door.keys == ["load-1"] * 4
    assert (load.uncertain, load.refused) == (1, {"503 code_503": 1, "429 code_429": 1})
    assert set(load.accepted) == {"tsk_load-1"}


async def test_what_was_refused_for_good_is_another_question(door: Door):
    door.statuses = [504, 202]
    async with Load(lambda: door.url, "key") as load:
        assert await load.ask(1) == ["tsk_load-2"]
    assert door.keys == ["load-1", "load-2"]


async def test_finishing_tells_of_every_question(door: Door):
    async with Load(lambda: door.url, "key") as load:
        load.keep_going(tasks=2, chats=2, pause_seconds=0.0)
        await eventually(lambda: load.asked >= 4)
        assert await load.finish(deadline_seconds=5)
        assert load.asked == len(load.accepted) == len(set(door.keys)) >= 4
