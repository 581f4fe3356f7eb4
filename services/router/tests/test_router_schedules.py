"""Schedules on a real broker: nothing comes early, twice or never, whoever is killed and whatever is canceled."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from collegium_bus import cancels
from collegium_bus.kv import Bucket
from collegium_bus.schedules import MAX_WAIT_MS, ScheduleStream
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.messages import (
    FireSchedule,
    Sampling,
    TaskAccepted,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TaskRef,
    TaskSubmitted,
)
from collegium_contracts.money import Usage
from collegium_contracts.state import CronSchedule
from collegium_router.schedules import schedules
from collegium_runtime.platform import unix_ms
from collegium_servers import nats
from collegium_testing import eventually
from collegium_testing.platform import RunningPlatform

Platforms = Callable[..., RunningPlatform]
MINUTE_MS = 60_000
SCHEDULE = "sch_" + "0" * 26


@pytest.fixture
def platform(clean_nats_url: str, tmp_path: Path) -> Platforms:
    def make(*services: str, **fields: Any) -> RunningPlatform:
        return RunningPlatform(clean_nats_url, folder=tmp_path, services=services, **fields)

    return make


def waiting(
    running: RunningPlatform, text: str, in_ms: int, *, deadline_seconds: float = 20, **task: Any
) -> TaskSubmitted:
    at_ms = unix_ms() + in_ms
    submitted = running.submission(text, surface="tasks", not_before_ms=at_ms, **task)
    ref = msgspec.structs.replace(submitted.task, deadline_ms=at_ms + int(deadline_seconds * 1000))
    return msgspec.structs.replace(submitted, task=ref)


async def schedule(running: RunningPlatform, submitted: TaskSubmitted, *, at_ms: int | None = None) -> TaskRef:
    """Stores a task for later as a gateway does."""
    task = submitted.task
    await ScheduleStream(running.connection, running.publisher).put(
        s.schedule_task(task.tenant, task.id),
        codec.encode(submitted),
        at_ms=task.not_before_ms if at_ms is None else at_ms,
        shard=ids.shard_of(task.tenant),
        headers={s.H_TENANT: task.tenant},
        message_id=task.id,
    )
    accepted = TaskAccepted(task=task, at_ms=unix_ms())
    await running.send(s.task_changed(task.tenant, task.id), accepted, message_id=f"{task.id}.a", tenant=task.tenant)
    return task


async def emptied(running: RunningPlatform, stream: str = s.SCHEDULE) -> None:
    async def empty() -> bool:
        return await running.standing(stream) == 0

    await eventually(empty)


def cron(running: RunningPlatform, next_at_ms: int, **fields: Any) -> CronSchedule:
    """A schedule for New Year's Day, whose next firing was put where the test wants it."""
    pattern = running.submission("from cron", surface="tasks")
    task = TaskRef(
        id="", tenant="acme", created_at_ms=0, deadline_ms=20_000, model="auto", plan="single", surface="tasks"
    )
    values: dict[str, Any] = {
        "id": SCHEDULE,
        "tenant": "acme",
        "cron": "0 0 1 1 *",
        "timezone": "UTC",
        "task": msgspec.structs.replace(pattern, task=task, sampling=Sampling()),
        "created_at_ms": 1,
        "next_at_ms": next_at_ms,
    }
    return CronSchedule(**(values | fields))


async def define(running: RunningPlatform, definition: CronSchedule, *, armed: bool = True) -> Bucket:
    bucket = Bucket(running.connection, s.KV_SCHEDULES)
    await bucket.put(s.schedule_key(definition.tenant, definition.id), codec.encode(definition), expected_revision=0)
    if armed:
        await arm(running, definition.next_at_ms)
    return bucket


async def arm(running: RunningPlatform, at_ms: int) -> None:
    fire = FireSchedule(tenant="acme", schedule=SCHEDULE, at_ms=at_ms)
    await ScheduleStream(running.connection, running.publisher).put(
        s.schedule_cron("acme", SCHEDULE), codec.encode(fire), at_ms=at_ms, shard=0, headers={}
    )


async def standing_definition(bucket: Bucket) -> CronSchedule:
    entry = await bucket.get(s.schedule_key("acme", SCHEDULE))
    assert entry is not None
    value = codec.state.decode(entry.value)
    assert isinstance(value, CronSchedule)
    return value


def firing(at_ms: int) -> TaskRef:
    task_id = ids.task_id_of_firing("acme", SCHEDULE, at_ms)
    return TaskRef(id=task_id, tenant="acme", created_at_ms=0, deadline_ms=0, model="auto")


async def test_a_task_begins_after_its_time_and_has_its_whole_deadline(platform: Platforms):
    async with platform("router", "worker-pool") as running:
        task = await schedule(running, waiting(running, "later", 700, deadline_seconds=9))
        settled = await running.settled(task)
        assert isinstance(settled, TaskCompleted)
        assert settled.settled_at_ms >= task.not_before_ms
        began_ms = settled.task.deadline_ms - 9_000
        assert task.not_before_ms <= began_ms < settled.settled_at_ms + 1
        assert settled.task.not_before_ms == task.not_before_ms
        await emptied(running)
        kinds = [type(event).__name__ for event in await running.events(task)]
    assert kinds == ["TaskAccepted", "TaskDispatched", "AttemptStarted", "TaskCompleted"]


async def test_a_task_that_fell_due_without_a_router_is_released_by_the_next_with_a_new_deadline(platform: Platforms):
    async with platform("worker-pool") as running:
        task = await schedule(running, waiting(running, "later", -3_600_000))
        await eventually(lambda: due_stands(running))
        await running.start("router")
        settled = await running.settled(task)
        assert isinstance(settled, TaskCompleted)
        assert settled.task.deadline_ms > unix_ms()


async def due_stands(running: RunningPlatform) -> bool:
    return bool(await running.read(s.SCHEDULE, s.SCHEDULE_DUE_ALL))


async def test_two_routers_release_every_task_once(platform: Platforms):
    async with platform("router", "worker-pool", tenants=["a", "b", "c", "d"]) as running:
        await running.start("router")
        tasks = []
        for number in range(40):
            submitted = waiting(running, f"question {number}", 300, tenant="abcd"[number % 4])
            tasks.append(await schedule(running, submitted))
        for task in tasks:
            assert isinstance(await running.settled(task), TaskCompleted)
        asked = Counter(call.messages[-1].text() for call in running.sim.counts().requests)
        assert (len(asked), set(asked.values())) == (40, {1})
        await emptied(running)


async def test_a_large_task_is_kept_beside_its_message_and_released(platform: Platforms):
    async with platform("router", "worker-pool", models=[{"context_tokens": 1_000_000}]) as running:
        task = await schedule(running, waiting(running, "x" * 400_000, 300))
        assert isinstance(await running.settled(task), TaskCompleted)


async def test_canceled_before_its_time_it_is_settled_once_and_never_begins(platform: Platforms):
    async with platform("router", "worker-pool") as running:
        await running.start("router")
        task = await schedule(running, waiting(running, "never", 60_000))
        await running.cancel(task)
        settled = await running.settled(task)
        assert isinstance(settled, TaskCanceled)
        assert (settled.stop_reason, settled.attempts) == ("canceled", [])
        await emptied(running)
        assert running.sim.counts().totals.started == 0


async def test_canceled_while_no_router_ran_it_is_settled_when_due(
    platform: Platforms, monkeypatch: pytest.MonkeyPatch
):
    """Longer ago than a router looks back for cancellations."""
    monkeypatch.setattr(cancels, "LOOK_BACK", timedelta(seconds=-60))
    async with platform() as running:
        task = await schedule(running, waiting(running, "never", -1_000))
        await running.cancel(task)
        await running.start("router")
        assert isinstance(await running.settled(task), TaskCanceled)
        await emptied(running)
        assert await running.standing(s.WORK) == 0


async def test_settled_and_not_taken_back_it_is_dropped_when_due(platform: Platforms):
    """As after a router that was killed between the two."""
    async with platform("router", "worker-pool") as running:
        submitted = waiting(running, "never", 400)
        task = submitted.task
        settled = TaskCanceled(
            task=task, plan="single", stop_reason="canceled", usage=Usage(), attempts=[],
            settled_at_ms=1,
        )  # fmt: skip
        await running.send(s.task_settled("acme", task.id), settled, message_id="killed", tenant="acme")
        await schedule(running, submitted)
        await emptied(running)
        assert running.sim.counts().totals.started == 0
        assert await running.settled(task) == settled


async def test_cancellations_racing_their_times_give_one_terminal_state_each(platform: Platforms):
    async with platform("router", "worker-pool") as running:
        await running.start("router")
        tasks = [await schedule(running, waiting(running, f"race {number}", 500 + 5 * number)) for number in range(40)]

        async def cancel_when_due(task: TaskRef) -> None:
            await asyncio.sleep(max(0, (task.not_before_ms - unix_ms()) / 1000))
            await running.cancel(task)

        await asyncio.gather(*(cancel_when_due(task) for task in tasks))
        settled = [await running.settled(task) for task in tasks]
        await emptied(running)
        await emptied(running, s.INGRESS)
        await emptied(running, s.WORK)
        for task, first in zip(tasks, settled, strict=True):
            terminal = await running.read(s.EVENTS, s.task_settled(task.tenant, task.id))
            assert [codec.settled.decode(payload) for _, payload in terminal] == [first]
        asked = Counter(call.messages[-1].text() for call in running.sim.counts().requests)
        assert set(asked.values()) <= {1}


async def test_a_message_that_comes_again_after_its_task_began_is_dropped(platform: Platforms):
    async with platform("router", "worker-pool") as running:
        submitted = waiting(running, "once", 100)
        task = await schedule(running, submitted)
        await running.settled(task)
        await emptied(running)
        again = ScheduleStream(running.connection, running.publisher)
        await again.put(s.schedule_task("acme", task.id), codec.encode(submitted), at_ms=unix_ms(), shard=0, headers={})
        await emptied(running)
        assert running.sim.counts().totals.started == 1


async def test_where_the_queue_is_full_a_task_waits_a_little_longer(
    platform: Platforms, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(schedules, "POSTPONED_SECONDS", (0.2, 0.4))
    async with platform() as running:
        info = msgspec.json.decode(await running.connection.api(f"STREAM.INFO.{s.INGRESS}"))
        narrow = msgspec.json.encode({**info["config"], "max_msgs_per_subject": 1})
        reply = msgspec.json.decode(await running.connection.api(f"STREAM.UPDATE.{s.INGRESS}", narrow))
        assert "error" not in reply
        await running.start("router")
        first = await running.submit("stands in the way", conversation="nobody-answers", deadline_seconds=1.5)
        task = await schedule(running, waiting(running, "later", 0))
        await running.settled(first)
        await running.start("worker-pool")
        assert isinstance(await running.settled(task), TaskCompleted)


async def test_what_is_no_scheduled_message_is_buried_and_the_rest_goes_on(platform: Platforms):
    async with platform("router", "worker-pool") as running:
        await running.send(s.schedule_due(1), b"\xff\x00", message_id="noise", tenant="acme")
        accepted = TaskAccepted(task=running.submission("x").task, at_ms=1)
        await running.send(s.schedule_due(1), accepted, message_id="alien", tenant="acme")
        task = await schedule(running, waiting(running, "later", 50))
        assert isinstance(await running.settled(task), TaskCompleted)
        await eventually(lambda: two_letters(running))
        assert {letter.stream for letter in await running.dead_letters()} == {s.SCHEDULE}


async def two_letters(running: RunningPlatform) -> bool:
    return len(await running.dead_letters()) == 2


async def test_a_cron_schedule_fires_once_over_two_routers_and_waits_for_the_next(platform: Platforms):
    async with platform("router", "worker-pool") as running:
        await running.start("router")
        at_ms = unix_ms() + 500
        bucket = await define(running, cron(running, at_ms))
        settled = await running.settled(firing(at_ms))
        assert isinstance(settled, TaskCompleted)
        assert (settled.task.not_before_ms, settled.task.surface) == (at_ms, "tasks")
        assert 0 <= settled.task.deadline_ms - at_ms - 20_000 < 5_000

        async def moved_on() -> CronSchedule | None:
            found = await standing_definition(bucket)
            return found if found.fired else None

        definition = await eventually(moved_on)
        assert (definition.fired, definition.last_at_ms, definition.last_task) == (1, at_ms, settled.task.id)
        assert definition.next_at_ms > unix_ms()
        ((_, payload),) = await eventually(lambda: running.read(s.SCHEDULE, s.SCHEDULE_CRON_ALL))
        tick = codec.journey.decode(payload)
        assert isinstance(tick, FireSchedule)
        assert unix_ms() < tick.at_ms <= min(definition.next_at_ms, unix_ms() + MAX_WAIT_MS)
        assert running.sim.counts().totals.started == 1


async def test_the_same_firing_handed_over_again_and_again_submits_one_task(platform: Platforms):
    """As after routers that were killed at any point: before the note of the next firing, after it, before the ack."""
    async with platform("router", "worker-pool") as running:
        await forget_duplicates(running, s.INGRESS)
        await forget_duplicates(running, s.WORK)
        at_ms = unix_ms() - 1_000
        definition = cron(running, at_ms)
        bucket = await define(running, definition)
        await running.settled(firing(at_ms))
        for _ in range(5):
            entry = await bucket.get(s.schedule_key("acme", SCHEDULE))
            assert entry is not None
            await bucket.put(entry.key, codec.encode(definition), expected_revision=entry.revision)
            await arm(running, at_ms)

            async def noted() -> bool:
                return (await standing_definition(bucket)).next_at_ms > unix_ms()

            await eventually(noted)
        await emptied(running, s.INGRESS)
        assert running.sim.counts().totals.started == 1


async def forget_duplicates(running: RunningPlatform, stream: str) -> None:
    """Lets the broker forget message ids at once, as it does after two minutes."""
    info = msgspec.json.decode(await running.connection.api(f"STREAM.INFO.{stream}"))
    forgetful = msgspec.json.encode({**info["config"], "duplicate_window": 100_000_000})
    reply = msgspec.json.decode(await running.connection.api(f"STREAM.UPDATE.{stream}", forgetful))
    assert "error" not in reply


@pytest.mark.parametrize(("missed", "runs"), [("skip", 0), ("once", 1), ("all", 3)])
async def test_firings_that_were_missed_follow_the_policy(platform: Platforms, missed: str, runs: int):
    async with platform("worker-pool") as running:
        # The last of three firings, five minutes apart, was over a minute ago.
        now_ms = unix_ms()
        minute = now_ms // MINUTE_MS - 2
        first_ms = (minute - 10) * MINUTE_MS
        expression = f"{','.join(str((minute - back) % 60) for back in (10, 5, 0))} * * * *"
        bucket = await define(running, cron(running, first_ms, cron=expression, missed=missed))
        await running.start("router")

        async def noted() -> bool:
            return (await standing_definition(bucket)).next_at_ms > now_ms

        await eventually(noted)
        await emptied(running, s.INGRESS)
        definition = await standing_definition(bucket)
        assert definition.fired == runs
        for at_ms in [first_ms, first_ms + 5 * MINUTE_MS, first_ms + 10 * MINUTE_MS][:runs]:
            assert isinstance(await running.settled(firing(at_ms)), TaskCompleted)
        assert running.sim.counts().totals.started == runs


@pytest.mark.parametrize("state", ["paused", "deleted"])
async def test_a_paused_or_deleted_schedule_lets_its_message_pass(platform: Platforms, state: str):
    async with platform("router", "worker-pool") as running:
        at_ms = unix_ms() + 300
        if state == "paused":
            await define(running, cron(running, at_ms, paused=True))
        else:
            await arm(running, at_ms)
        await eventually(lambda: due_passed(running, at_ms))
        assert running.sim.counts().totals.started == 0


async def due_passed(running: RunningPlatform, at_ms: int) -> bool:
    return unix_ms() > at_ms and await running.standing(s.SCHEDULE) == 0


async def test_a_schedule_whose_message_is_missing_or_late_gets_it_back(platform: Platforms):
    async with platform("router", "worker-pool") as running:
        at_ms = unix_ms() + 2_000
        await define(running, cron(running, at_ms), armed=False)
        await arm(running, at_ms + 3_600_000)
        await running.app("router")._schedules.reconcile()
        assert isinstance(await running.settled(firing(at_ms)), TaskCompleted)


async def test_what_is_left_of_deleted_schedules_is_cleared(platform: Platforms):
    async with platform("router") as running:
        bucket = await define(running, cron(running, unix_ms() + 3_600_000))
        entry = await bucket.get(s.schedule_key("acme", SCHEDULE))
        assert entry is not None
        await bucket.delete(entry.key, expected_revision=entry.revision)
        await running.app("router")._schedules.reconcile()
        assert [one async for one in bucket.entries()] == []


async def test_a_schedule_that_cannot_fire_is_buried_and_others_go_on(platform: Platforms):
    async with platform("router", "worker-pool") as running:
        await define(running, cron(running, unix_ms(), timezone="Mars/Olympus"))
        await eventually(running.dead_letters)
        task = await schedule(running, waiting(running, "later", 0))
        assert isinstance(await running.settled(task), TaskCompleted)


async def test_a_routers_own_clock_decides_nothing(platform: Platforms):
    """Ten minutes behind the broker, a router would take a firing for one of the future, for ever."""
    async with platform("router", "worker-pool") as running:
        app = running.app("router")._schedules
        app._platform = msgspec.structs.replace(app._platform, now_ms=lambda: unix_ms() - 600_000)
        at_ms = unix_ms() + 300
        bucket = await define(running, cron(running, at_ms))

        async def noted() -> bool:
            return (await standing_definition(bucket)).fired == 1

        await eventually(noted)

        async def only_the_next_waits() -> bool:
            return await running.standing(s.SCHEDULE) == 1

        await eventually(only_the_next_waits)


@pytest.mark.chaos
async def test_what_fell_due_while_the_broker_was_dead_is_done_once(tmp_path: Path):
    server = await nats.start(tmp_path / "nats")
    async with RunningPlatform(server.url, folder=tmp_path, services=("router", "worker-pool")) as running:
        await running.start("router")
        tasks = [await schedule(running, waiting(running, f"question {number}", 1_000)) for number in range(10)]
        at_ms = unix_ms() + 1_000
        await define(running, cron(running, at_ms))
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()
        await server.stop()
        await eventually(lambda: unix_ms() > at_ms + 500)
        server = await nats.start(tmp_path / "nats", port=server.port)
        for task in [*tasks, firing(at_ms)]:
            assert isinstance(await running.settled(task, deadline_seconds=40), TaskCompleted)
        asked = Counter(call.messages[-1].text() for call in running.sim.counts().requests)
        assert asked == {"from cron": 1} | {f"question {number}": 1 for number in range(10)}
    await server.stop()


async def test_a_schedule_whose_key_has_ended_fires_no_more_and_says_why(platform: Platforms):
    async with platform("router") as running:
        running.holds.ended.add("gone0001")
        at_ms = unix_ms() + 200
        definition = cron(running, at_ms)
        task = msgspec.structs.replace(definition.task.task, key_id="gone0001")
        definition = msgspec.structs.replace(definition, task=msgspec.structs.replace(definition.task, task=task))
        bucket = await define(running, definition)

        async def was_stopped() -> bool:
            return (await standing_definition(bucket)).stopped == "revoked_api_key"

        await eventually(was_stopped)
        stopped = await standing_definition(bucket)
        assert (stopped.paused, stopped.last_task) == (True, firing(at_ms).id)
        events = [event for event in await running.events(firing(at_ms)) if isinstance(event, TaskFailed)]
        assert [(event.task.id, event.error.code) for event in events] == [(firing(at_ms).id, "revoked_api_key")]
        assert await running.standing(s.INGRESS) == 0
        waited = await schedule(running, waiting(running, "by another key", 100, key_id="lives001"))
        await eventually(lambda: waited.id in running.holds.asked)
