"""The submission tool: what it sends, what it counts, and what it sends again."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from collegium_testing.submit import Plan, Submitter


class Door:
    """A door that accepts tasks, and refuses each ``refusals`` times first."""

    def __init__(self) -> None:
        self.refusals = 0
        self.status = 503
        self.cut = False
        self.seen: Counter[str] = Counter()
        self.keys: set[str] = set()

    async def take(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.keys.add(request.headers["Authorization"])
        self.seen[body["input"]] += 1
        if self.cut and self.seen.total() == 3:
            assert request.transport is not None
            request.transport.abort()
        if self.seen[body["input"]] <= self.refusals:
            return web.Response(status=self.status, headers={"Retry-After": "0.01"})
        return web.Response(status=202, headers={"x-collegium-task-id": f"tsk_{self.seen.total()}"})


@pytest.fixture
async def door() -> AsyncIterator[tuple[Door, str]]:
    door = Door()
    app = web.Application()
    app.router.add_post("/v1/tasks", door.take)
    async with TestServer(app) as server:
        yield door, str(server.make_url("/"))


async def test_every_task_is_submitted_once(door: tuple[Door, str]) -> None:
    submitter = Submitter(Plan(url=door[1], key="sk", clients=8, tasks=100))
    report = await submitter.run()
    assert (report.accepted, len(set(submitter.ids))) == (100, 100)
    assert set(door[0].seen.values()) == {1}
    assert len(door[0].seen) == 100
    assert door[0].keys == {"Bearer sk"}
    assert report.first_sent_ms <= report.last_accepted_ms


async def test_what_is_refused_for_now_is_sent_again(door: tuple[Door, str]) -> None:
    door[0].refusals = 2
    report = await Submitter(Plan(url=door[1], key="sk", clients=4, tasks=10)).run()
    assert (report.accepted, report.refused) == (10, {503: 20})


async def test_what_is_refused_for_good_is_not(door: tuple[Door, str]) -> None:
    door[0].refusals, door[0].status = 1, 422
    report = await Submitter(Plan(url=door[1], key="sk", clients=4, tasks=10)).run()
    assert (report.accepted, report.refused) == (0, {422: 10})


async def test_a_lost_connection_costs_its_submission_only(door: tuple[Door, str]) -> None:
    door[0].cut = True
    report = await Submitter(Plan(url=door[1], key="sk", clients=2, tasks=20)).run()
    assert (report.accepted, report.unanswered) == (19, 1)


async def test_a_rate_is_kept_whatever_is_refused(door: tuple[Door, str]) -> None:
    door[0].refusals = 1
    report = await Submitter(Plan(url=door[1], key="sk", clients=8, rate=100, seconds=0.5)).run()
    sent = report.accepted + sum(report.refused.values()) + report.late
    assert 50 <= sent <= 52
    assert set(door[0].seen.values()) == {1}
