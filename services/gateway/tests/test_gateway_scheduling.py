"""Tasks for later and cron schedules over HTTP, on a real broker and a real database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec
import pytest
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.messages import FireSchedule, TaskSubmitted
from collegium_gateway.tasks import cronschedules, scheduling
from collegium_testing import eventually
from collegium_testing.platform import RunningPlatform

CRON: dict[str, Any] = {"cron": "0 9 * * MON-FRI", "timezone": "Europe/Berlin", "task": {"input": "the daily question"}}


def ahead(**time: float) -> str:
    return (datetime.now(UTC) + timedelta(**time)).isoformat()


async def call(
    session: aiohttp.ClientSession, method: str, path: str, body: Any = None, *, status: int = 200
) -> dict[str, Any]:
    async with session.request(method, path, json=body) as response:
        answered = await response.json()
        assert response.status == status, answered
        return answered


async def refusal(session: aiohttp.ClientSession, path: str, body: Any, status: int) -> tuple[str, str | None]:
    error = (await call(session, "POST", path, body, status=status))["error"]
    return error["code"], error["param"]


async def test_a_task_for_later_is_shown_waits_and_runs_after_its_time(platform: RunningPlatform):
    async with platform.session() as session:
        not_before = datetime.now(UTC) + timedelta(seconds=1.2)
        body = {"input": "hello", "not_before": not_before.isoformat(), "deadline_seconds": 7}
        made = await call(session, "POST", "/v1/tasks", body, status=202)
        shown = await call(session, "GET", f"/v1/tasks/{made['id']}")
        assert (shown["state"], shown["settled_at"]) == ("submitted", None)
        assert abs(datetime.fromisoformat(shown["not_before"]) - not_before) < timedelta(milliseconds=1)

        async def listed() -> bool:
            page = await call(session, "GET", "/v1/tasks?state=submitted")
            return made["id"] in [one["id"] for one in page["data"]]

        await eventually(listed)
        assert platform.sim.counts().totals.started == 0

        async def settled() -> dict[str, Any] | None:
            task = await call(session, "GET", f"/v1/tasks/{made['id']}")
            return task if task["settled_at"] else None

        task = await eventually(settled)
        assert (task["state"], task["not_before"]) == ("completed", shown["not_before"])
        assert datetime.fromisoformat(task["settled_at"]) >= not_before
        (asked,) = platform.sim.counts().requests
        assert asked.started_at >= not_before.timestamp() - 0.001


async def test_a_task_for_later_is_canceled_at_once_and_is_nobody_elses(platform: RunningPlatform):
    async with platform.session() as session, platform.session("globex") as stranger:
        made = await call(session, "POST", "/v1/tasks", {"input": "hello", "not_before": ahead(hours=1)}, status=202)
        await call(stranger, "GET", f"/v1/tasks/{made['id']}", status=404)
        await call(stranger, "POST", f"/v1/tasks/{made['id']}/cancel", status=404)
        canceled = await call(session, "POST", f"/v1/tasks/{made['id']}/cancel")
        assert (canceled["state"], canceled["attempts"], canceled["stop_reason"]) == ("canceled", [], "canceled")
        again = await call(session, "POST", f"/v1/tasks/{made['id']}/cancel", status=409)
        assert again["error"]["code"] == "task_terminal"
        await eventually(lambda: nothing_waits(platform))


async def nothing_waits(platform: RunningPlatform) -> bool:
    return await platform.standing(s.SCHEDULE) == 0


async def test_the_past_and_an_open_window_mean_at_once(platform: RunningPlatform):
    async with platform.session() as session:
        for fields in ({"not_before": "2020-01-01T00:00:00Z"}, {"off_peak": False}):
            async with session.post(
                "/v1/tasks", json={"input": "hello", **fields}, headers={"Prefer": "wait=10"}
            ) as response:
                task = await response.json()
                assert (response.status, task["state"], task["not_before"]) == (200, "completed", None)


async def test_off_peak_waits_for_the_configured_window(platform: RunningPlatform):
    # The window of the defaults; a test must not depend on the hour at which it runs.
    hour = datetime.now(UTC).hour
    inside = hour >= 22 or hour < 6
    async with platform.session() as session:
        made = await call(session, "POST", "/v1/tasks", {"input": "hello", "off_peak": True}, status=202)
        assert (made["not_before"] is None) == inside
        assert inside or "T22:00:00.000Z" in made["not_before"]


async def test_a_chat_cannot_wait(platform: RunningPlatform):
    async with platform.session() as session:
        for options in ({"not_before": ahead(hours=1)}, {"off_peak": True}):
            body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}], "collegium": options}
            assert await refusal(session, "/v1/chat/completions", body, 400) == (
                "unsupported_option",
                next(iter(options)),
            )


async def test_the_trace_of_the_request_goes_on_in_the_message_that_waits(platform: RunningPlatform):
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"
    async with platform.session() as session:
        body = {"input": "hello", "not_before": ahead(hours=1)}
        async with session.post("/v1/tasks", json=body, headers={"traceparent": trace}) as response:
            task = await response.json()
    stored = await platform.direct.last(s.SCHEDULE, s.schedule_task("acme", task["id"]))
    assert stored is not None
    assert stored.headers[s.TRACEPARENT].split("-")[1] == "a" * 32
    waiting = codec.journey.decode(stored.payload)
    assert isinstance(waiting, TaskSubmitted)
    assert waiting.task.deadline_ms - waiting.task.not_before_ms == 50_000


async def test_what_a_tenant_may_have_waiting_is_bounded(platform: RunningPlatform, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scheduling, "MAX_WAITING_PER_TENANT", 3)
    async with platform.session() as session, platform.session("globex") as other:
        body = {"input": "hello", "not_before": ahead(hours=1)}
        for _ in range(3):
            await call(session, "POST", "/v1/tasks", body, status=202)
        async with session.post("/v1/tasks", json=body) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "60")
            assert (await response.json())["error"]["code"] == "too_many_scheduled"
        await call(other, "POST", "/v1/tasks", body, status=202)
        assert await platform.standing(s.SCHEDULE) == 4
        monkeypatch.setattr(scheduling, "LOOK_AGAIN_SECONDS", 0.0)
        monkeypatch.setattr(scheduling, "MAX_FILLING", 0.0)
        assert await refusal(other, "/v1/tasks", body, 503) == ("schedules_full", None)


async def test_what_is_large_waits_three_days_at_most(platform: RunningPlatform, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scheduling, "CLAIM_CHECK_BYTES", 1_000)
    async with platform.session() as session:
        body = {"input": "x" * 1_000, "not_before": ahead(days=3, minutes=1)}
        assert await refusal(session, "/v1/tasks", body, 422) == ("schedule_too_large", "not_before")
        await call(session, "POST", "/v1/tasks", {**body, "not_before": ahead(days=2)}, status=202)
        await call(session, "POST", "/v1/tasks", {**body, "input": "x"}, status=202)


async def test_what_people_approve_first_is_bounded_as_what_waits_for_its_time(
    platform: RunningPlatform, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scheduling, "CLAIM_CHECK_BYTES", 1_000)
    monkeypatch.setattr(scheduling, "LOOK_AGAIN_SECONDS", 0.0)
    async with platform.session() as session:
        asks: dict[str, Any] = {"input": "x", "approval": {"before": "client"}}
        later = {**asks, "not_before": ahead(days=10)}
        large = {**later, "input": "x" * 1_000}
        assert await refusal(session, "/v1/tasks", large, 422) == ("schedule_too_large", "not_before")
        waits = await call(session, "POST", "/v1/tasks", later, status=202)
        assert waits["state"] == "input_required"
        monkeypatch.setattr(scheduling, "MAX_WAITING_PER_TENANT", 0)
        assert await refusal(session, "/v1/tasks", later, 429) == ("too_many_scheduled", None)
        monkeypatch.setattr(scheduling, "MAX_WAITING_PER_TENANT", 5)
        monkeypatch.setattr(scheduling, "MAX_FILLING", 0.0)
        assert await refusal(session, "/v1/tasks", later, 503) == ("schedules_full", None)
        # What begins once people agree does not wait for a time.
        await call(session, "POST", "/v1/tasks", {**asks, "input": "x" * 1_000}, status=202)


async def test_a_schedule_is_made_shown_paused_resumed_and_deleted(platform: RunningPlatform):
    async with platform.session() as session:
        body = {**CRON, "name": "daily", "missed": "once"}
        body["task"] = {"input": "the daily question", "priority": "low", "deadline_seconds": 120, "tags": {"a": "b"}}
        made = await call(session, "POST", "/v1/schedules", body, status=201)
        assert (made["state"], made["name"], made["missed"], made["fired"]) == ("active", "daily", "once", 0)
        next_at = datetime.fromisoformat(made["next_at"])
        assert next_at > datetime.now(UTC)
        assert (made["task"]["deadline_seconds"], made["task"]["priority"]) == (120.0, "low")
        assert "input" not in made["task"]
        waiting = await platform.direct.last(s.SCHEDULE, s.schedule_cron("acme", made["id"]))
        assert waiting is not None
        fire = codec.journey.decode(waiting.payload)
        assert isinstance(fire, FireSchedule)
        assert fire.at_ms == int(next_at.timestamp() * 1000)

        path = f"/v1/schedules/{made['id']}"
        shown = await call(session, "GET", path)
        assert shown["task"].pop("input") == [{"role": "user", "content": "the daily question"}]
        assert shown == made
        assert (await call(session, "GET", "/v1/schedules"))["data"] == [made]
        for _ in range(2):
            paused = await call(session, "POST", f"{path}/pause")
            assert (paused["state"], paused["next_at"]) == ("paused", None)
        for _ in range(2):
            assert await call(session, "POST", f"{path}/resume") == made
        assert await call(session, "DELETE", path) == {"id": made["id"], "deleted": True}
        assert (await call(session, "GET", "/v1/schedules"))["data"] == []
        for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")):
            gone = await call(session, method, path + suffix, status=404)
            assert gone["error"]["code"] == "not_found"


async def test_a_schedule_is_its_tenants_alone(platform: RunningPlatform):
    async with platform.session() as session, platform.session("globex") as stranger:
        made = await call(session, "POST", "/v1/schedules", CRON, status=201)
        for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")):
            await call(stranger, method, f"/v1/schedules/{made['id']}{suffix}", status=404)
        assert (await call(stranger, "GET", "/v1/schedules"))["data"] == []
        assert (await call(session, "GET", f"/v1/schedules/{made['id']}"))["state"] == "active"
        async with aiohttp.ClientSession(platform.http) as nobody, nobody.get("/v1/schedules") as response:
            assert response.status == 401


@pytest.mark.parametrize("odd", ["sch_x", "*", "%3E", "sch_" + "A" * 26, "sch_" + "0" * 27])
async def test_what_is_no_id_is_not_there(platform: RunningPlatform, odd: str):
    async with platform.session() as session:
        await call(session, "POST", "/v1/schedules", CRON, status=201)
        await call(session, "GET", f"/v1/schedules/{odd}", status=404)


async def test_what_is_wrong_with_a_schedule_is_told_by_its_path(platform: RunningPlatform):
    wrong: list[tuple[dict[str, Any], int, str, str | None]] = [
        ({"cron": "61 * * * *"}, 400, "invalid_value", "cron"),
        ({"cron": "* * * * * *"}, 400, "invalid_value", "cron"),
        ({"timezone": "Mars/Olympus"}, 400, "invalid_value", "timezone"),
        ({"missed": "perhaps"}, 400, "invalid_value", "missed"),
        ({"name": "x" * 129}, 400, "invalid_value", "name"),
        ({"task": {"input": []}}, 400, "invalid_value", "task.input"),
        ({"task": {"input": "x", "model": "absent"}}, 400, "unknown_model", "task.model"),
        ({"task": {"input": "x", "off_peak": True}}, 400, "unsupported_option", "task.off_peak"),
        ({"task": {"input": "x", "not_before": ahead(hours=1)}}, 400, "unsupported_option", "task.not_before"),
        ({"surprise": 1}, 400, "invalid_value", None),
        ({"task": {"input": "x" * 3_000, "tools": [{"a": "x" * 40_000}]}}, 413, "body_too_large", "task"),
    ]
    async with platform.session() as session:
        for fields, status, code, param in wrong:
            assert await refusal(session, "/v1/schedules", {**CRON, **fields}, status) == (code, param), fields
        assert (await call(session, "GET", "/v1/schedules"))["data"] == []


async def test_how_many_schedules_there_may_be_is_bounded(platform: RunningPlatform, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cronschedules, "MAX_PER_TENANT", 2)
    async with platform.session() as session, platform.session("globex") as other:
        for _ in range(2):
            made = await call(session, "POST", "/v1/schedules", CRON, status=201)
        assert await refusal(session, "/v1/schedules", CRON, 429) == ("too_many_schedules", None)
        await call(other, "POST", "/v1/schedules", CRON, status=201)
        await call(session, "DELETE", f"/v1/schedules/{made['id']}")
        await call(session, "POST", "/v1/schedules", CRON, status=201)
        monkeypatch.setattr(cronschedules, "MAX_FILLING", 0.0)
        assert await refusal(other, "/v1/schedules", CRON, 503) == ("schedules_full", None)


async def test_a_schedule_made_over_http_fires_when_its_time_has_come(platform: RunningPlatform):
    """Its next firing is put into the past, as waiting for a whole minute would take one."""
    async with platform.session() as session:
        made = await call(session, "POST", "/v1/schedules", {**CRON, "missed": "once"}, status=201)
        bucket = Bucket(platform.connection, s.KV_SCHEDULES)
        entry = await bucket.get(s.schedule_key("acme", made["id"]))
        assert entry is not None
        past = msgspec.structs.replace(codec.state.decode(entry.value), next_at_ms=1_000)  # pyright: ignore
        await bucket.put(entry.key, codec.encode(past), expected_revision=entry.revision)
        await platform.app("router")._schedules.reconcile()

        async def fired() -> dict[str, Any] | None:
            shown = await call(session, "GET", f"/v1/schedules/{made['id']}")
            return shown if shown["fired"] else None

        shown = await eventually(fired)
        assert (shown["fired"], shown["next_at"], shown["last_at"]) == (1, made["next_at"], "1970-01-01T00:00:01.000Z")

        async def completed() -> dict[str, Any] | None:
            task = await call(session, "GET", f"/v1/tasks/{shown['last_task']}")
            return task if task["state"] == "completed" else None

        task = await eventually(completed)
        assert task["not_before"] == "1970-01-01T00:00:01.000Z"
        (asked,) = platform.sim.counts().requests
        assert asked.messages[-1].text() == "the daily question"
