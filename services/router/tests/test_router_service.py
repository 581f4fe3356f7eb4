"""The router on a real broker: every accepted task is dispatched once or settled, whoever owns the shard."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import (
    RunAttempt,
    Sampling,
    TaskCanceled,
    TaskCompleted,
    TaskDispatched,
    TaskFailed,
    WorkerCapacity,
)
from collegium_contracts.modelstate import EarnedRank
from collegium_contracts.money import Usage
from collegium_contracts.state import Roster
from collegium_router.dispatching.dispatch import SLOTS
from collegium_router.dispatching.erasing import erase
from collegium_router.dispatching.settlement import failed
from collegium_settings.models import ModelLimits
from collegium_testing import eventually
from collegium_testing.platform import RunningPlatform

FREE_CONCURRENCY = 5
Platforms = Callable[..., RunningPlatform]


@pytest.fixture
def platform(clean_nats_url: str, tmp_path: Path) -> Platforms:
    def make(*services: str, **fields) -> RunningPlatform:
        return RunningPlatform(clean_nats_url, folder=tmp_path, services=services, **fields)

    return make


async def dispatched(platform: RunningPlatform) -> list[RunAttempt]:
    found = [codec.journey.decode(payload) for _, payload in await platform.read(s.WORK, s.WORK_ALL)]
    return [one for one in found if isinstance(one, RunAttempt)]


async def emptied(platform: RunningPlatform, stream: str = s.INGRESS) -> None:
    async def empty() -> bool:
        return await platform.standing(stream) == 0

    await eventually(empty)


async def emptied_to(platform: RunningPlatform, left: int) -> None:
    async def so_many() -> bool:
        return await platform.standing(s.INGRESS) == left

    await eventually(so_many)


async def test_a_task_goes_through_and_leaves_both_queues(platform: Platforms):
    async with platform("router", "worker-pool") as running:
        task = await running.submit("hello", surface="tasks")
        settled = await running.settled(task)
        assert isinstance(settled, TaskCompleted)
        assert (settled.model, settled.task) == ("sim", task)
        await emptied(running)
        await emptied(running, s.WORK)
        kinds = [type(event).__name__ for event in await running.events(task)]
    assert kinds == ["AttemptStarted", "TaskCompleted"]


async def test_an_attempt_carries_the_bound_the_prices_and_the_prompt(platform: Platforms):
    async with platform("router", models=[{"max_output_tokens": 50, "pool": "gpu"}]) as running:
        task = await running.submit("hello", sampling=Sampling(max_tokens=80, stream=True), priority="high")
        await emptied(running)
        ((subject, payload),) = await running.read(s.WORK, s.WORK_ALL)
        run = codec.journey.decode(payload)
        assert isinstance(run, RunAttempt)
        assert subject == "work.gpu.high"
        assert (run.task, run.sampling.max_tokens, run.sampling.stream) == (task, 50, True)
        assert (run.attempt.model, run.attempt.rank, run.attempt.of) == ("sim", "teacher", 1)
        assert b"hello" in running.keyring.open("acme", run.prompt)


async def test_a_panel_begins_with_two_attempts_without_streaming_and_says_what_later_ones_are_made_from(
    platform: Platforms,
):
    async with platform("router") as running:
        task = await running.submit("hello", plan="panel", sampling=Sampling(stream=True, seed=7))
        await emptied(running)
        runs = await dispatched(running)
        (begun,) = await running.events(task)
    assert [(run.attempt.number, run.attempt.of, run.sampling.stream, run.sampling.seed) for run in runs] == [
        (1, 3, False, 7),
        (2, 3, False, 8),
    ]
    assert isinstance(begun, TaskDispatched)
    assert (begun.plan, begun.models, begun.of, begun.ranks) == ("panel", ["sim", "sim"], 3, [])
    assert begun.submitted is not None
    assert begun.submitted.sampling.seed == 7


async def test_a_model_that_leaves_between_plan_and_dispatch_costs_neither_the_task_nor_a_slot(platform: Platforms):
    async with platform("router") as running:
        router = running.app("router")
        lookups = router._dispatcher._lookups
        of, met = lookups.of, list[str]()

        async def leaves(*asked: Any):
            met.append("left")
            assert router._resources.use_roster(codec.encode(Roster(version=99, models=[])))
            return await of(*asked)

        async def fails(*asked: Any):
            met.append("failed")
            lookups.of = of
            raise RuntimeError("what nobody thought of")

        lookups.of = fails
        await running.submit("hello", memory="web/ada")
        await emptied(running)
        lookups.of = leaves
        await running.submit("hello", memory="web/ada")
        await emptied(running)
        runs = await dispatched(running)
        assert router._dispatcher._free_slots == SLOTS
        assert not any(task.done() for task in router._dispatcher._tasks)
    assert met == ["failed", "left"]
    assert [run.attempt.model for run in runs] == ["sim", "sim"]


async def test_what_cannot_be_planned_is_settled_with_the_reason(platform: Platforms):
    async with platform("router") as running:
        settled = await running.settled(await running.submit("hello", model="absent"))
        assert isinstance(settled, TaskFailed)
        assert (settled.error.code, settled.usage) == ("unknown_model", Usage())
        await emptied(running)
        assert await dispatched(running) == []


async def test_the_same_message_twice_is_one_attempt(platform: Platforms):
    async with platform() as running:
        submitted = running.submission("hello")
        for copy in ("a", "b"):
            await running.send("task.submitted.normal.0.acme", submitted, message_id=copy, tenant="acme")
        await running.start("router")
        await emptied(running)
        assert len(await dispatched(running)) == 1


async def test_a_replayed_task_that_has_settled_is_not_dispatched_again(platform: Platforms):
    """As after a takeover whose former owner settled a task and had not removed it yet."""
    async with platform() as running:
        submitted = running.submission("hello")
        task = submitted.task
        settled = failed(submitted, TaskError(code="internal_error", message="settled by the former owner"), 1)
        await running.send(s.task_settled(task.tenant, task.id), settled, message_id="former", tenant=task.tenant)
        await running.send("task.submitted.normal.0.acme", submitted, message_id=task.id, tenant="acme")
        await running.start("router")
        await emptied(running)
        assert await dispatched(running) == []
        assert await running.settled(task) == settled


async def test_a_task_canceled_in_the_queue_is_settled_and_never_dispatched(platform: Platforms):
    """A conversation without anybody who knows conversations waits in the queue."""
    async with platform("router") as running:
        task = await running.submit("hello", conversation="c1")
        await eventually(lambda: running.app("router")._dispatcher.queued == 1)
        await running.cancel(task, "client_disconnected")
        settled = await running.settled(task)
        assert isinstance(settled, TaskCanceled)
        assert (settled.stop_reason, settled.usage, settled.attempts) == ("client_disconnected", Usage(), [])
        await emptied(running)
        assert await dispatched(running) == []


async def test_the_deadline_ends_a_task_in_the_queue(platform: Platforms):
    async with platform("router") as running:
        task = await running.submit("hello", conversation="c1", deadline_seconds=0.3)
        settled = await running.settled(task)
        assert isinstance(settled, TaskFailed)
        assert (settled.stop_reason, settled.error.code) == ("deadline", "deadline_exceeded")
        assert task.deadline_ms <= settled.settled_at_ms < task.deadline_ms + 2_000
        await emptied(running)
        assert await dispatched(running) == []


async def test_a_tenant_has_no_more_attempts_at_work_than_its_tier_allows_and_the_rest_waits(platform: Platforms):
    async with platform("router") as running:
        tasks = [await running.submit("hello") for _ in range(FREE_CONCURRENCY + 2)]
        dispatcher = running.app("router")._dispatcher
        await eventually(lambda: dispatcher.queued == 2)
        other = await running.submit("hello", tenant="globex")
        await eventually(lambda: running.app("router")._permits.by_tenant["globex"] == 1)
        assert Counter(run.task.tenant for run in await dispatched(running)) == {"acme": FREE_CONCURRENCY, "globex": 1}
        await running.start("worker-pool")
        for task in [*tasks, other]:
            assert isinstance(await running.settled(task), TaskCompleted)
        await eventually(lambda: running.app("router")._permits.in_use == 0)


async def test_what_waits_for_a_permit_is_still_canceled_and_expired_in_time(platform: Platforms):
    async with platform("router") as running:
        for _ in range(FREE_CONCURRENCY):
            await running.submit("hello")
        late = await running.submit("hello", deadline_seconds=0.2)
        unwanted = await running.submit("hello")
        await eventually(lambda: running.app("router")._permits.in_use == FREE_CONCURRENCY)
        await running.cancel(unwanted)
        assert (await running.settled(late)).stop_reason == "deadline"
        assert (await running.settled(unwanted)).stop_reason == "canceled"
        assert len(await dispatched(running)) == FREE_CONCURRENCY


@pytest.mark.parametrize("payload", [b"\xff\xfe\x00not a message", b"", b"{}"], ids=["noise", "empty", "json"])
async def test_undecodable_bytes_are_buried_verbatim_and_the_shard_goes_on(platform: Platforms, payload: bytes):
    async with platform("router", "worker-pool") as running:
        subject = "task.submitted.normal.3.acme"
        await running.send(subject, payload, message_id="noise", tenant="acme")
        letters = await eventually(running.dead_letters)
        assert [(one.payload, one.subject, one.service) for one in letters] == [(payload, subject, "router")]
        assert (letters[0].stream, letters[0].cause) == (s.INGRESS, "undecodable_message")
        await emptied(running)
        assert isinstance(await running.settled(await running.submit("hello")), TaskCompleted)


async def test_a_message_of_another_kind_is_buried(platform: Platforms):
    async with platform("router") as running:
        settled = failed(running.submission("x"), TaskError(code="x", message="y"), 1)
        await running.send("task.submitted.normal.3.acme", settled, message_id="alien", tenant="acme")
        (letter,) = await eventually(running.dead_letters)
        assert letter.payload == codec.encode(settled)
        assert "TaskFailed" in letter.detail
        await emptied(running)


async def test_tasks_that_one_router_left_are_completed_once_by_the_next(platform: Platforms):
    async with platform("router") as running:
        waiting = [await running.submit(f"waiting {number}", conversation="c") for number in range(5)]
        await running.submit("dispatched before")
        await eventually(lambda: running.app("router")._dispatcher.queued == len(waiting))
        first = running.hosted("router")
        tasks = [await running.submit(f"question {number}") for number in range(20)]
        await running.stop(first)
        tasks += [await running.submit(f"later {number}") for number in range(20)]
        await running.start("router")
        await running.start("worker-pool")
        settled = [await running.settled(task) for task in tasks]
        assert {type(one) for one in settled} == {TaskCompleted}
        asked = Counter(call.messages[-1].text() for call in running.sim.counts().requests)
        assert set(asked.values()) == {1}
        assert len(asked) == len(tasks) + 1
        assert running.app("router")._dispatcher.queued == len(waiting), "what nobody can answer still waits"


async def test_two_routers_share_the_shards_without_doubling(platform: Platforms):
    async with platform("router", "worker-pool", tenants=["a", "b", "c", "d"]) as running:
        await running.start("router")
        tasks = [await running.submit(f"{tenant} {n}", tenant=tenant) for tenant in running.keys for n in range(5)]
        for task in tasks:
            await running.settled(task)
        assert running.sim.counts().totals.started == len(tasks)


async def test_a_router_starts_with_the_rank_that_a_model_earned(platform: Platforms):
    async with platform("router", models=[{"name": "m", "rank": "student"}]) as running:
        watched = Bucket(running.connection, s.KV_MODELS)
        entry = await watched.get(s.ROSTER_KEY)
        roster = codec.state.decode(entry.value)
        assert isinstance(roster, Roster)
        earned = [msgspec.structs.replace(model, rank="teacher") for model in roster.models]
        promoted = codec.encode(Roster(version=2, models=earned))
        await watched.put(s.ROSTER_KEY, promoted, expected_revision=entry.revision)
        await running.stop(running.hosted("router"))
        await running.start("router")
        await running.start("worker-pool")
        settled = await running.settled(await running.submit("hello"))
        assert settled.rank == "teacher"
        assert (await watched.get(s.ROSTER_KEY)).value == promoted


async def test_an_erased_tenant_leaves_no_rank_in_the_roster(platform: Platforms):
    async with platform("router", models=[{"name": "m", "rank": "student"}]) as running:
        models = Bucket(running.connection, s.KV_MODELS)
        entry = await models.get(s.ROSTER_KEY)
        roster = codec.state.decode(entry.value)
        assert isinstance(roster, Roster)
        ranks = [EarnedRank(domain="d", tenant=tenant, rank="ta") for tenant in ("", "acme", "globex")]
        earned = [msgspec.structs.replace(model, earned=ranks) for model in roster.models]
        standing = msgspec.structs.replace(roster, version=9, models=earned)
        await models.put(s.ROSTER_KEY, codec.encode(standing), expected_revision=entry.revision)
        assert await erase(running.connection, "acme") == len(earned)
        assert await erase(running.connection, "acme") == 0
        left = codec.state.decode((await models.get(s.ROSTER_KEY)).value)
        assert isinstance(left, Roster)
        assert left.version == 10
        assert all([one.tenant for one in model.earned] == ["", "globex"] for model in left.models)


async def test_two_routers_together_dispatch_no_more_than_a_model_allows(platform: Platforms):
    limited = {"limits": ModelLimits(concurrency=3)}
    async with platform("router", models=[limited], tenants=[f"t{n}" for n in range(8)]) as running:
        await running.start("router")
        tasks = [await running.submit(f"{tenant} {n}", tenant=tenant) for tenant in running.keys for n in range(3)]

        async def three_at_work() -> bool:
            return len(await dispatched(running)) == 3

        await eventually(three_at_work)
        await running.start("worker-pool")
        for task in tasks:
            assert isinstance(await running.settled(task), TaskCompleted)
        calls = running.sim.counts().requests
        assert len(calls) == len(tasks)


async def test_a_killed_routers_permits_are_found_again_in_the_work_it_left(platform: Platforms):
    async with platform("router", models=[{"limits": ModelLimits(concurrency=2)}]) as running:
        tasks = [await running.submit(f"q{n}") for n in range(4)]
        await eventually(lambda: running.app("router")._permits.in_use == 2)
        await running.stop(running.hosted("router"))
        await running.start("router")
        await eventually(lambda: running.app("router")._permits.in_use == 2)
        await emptied_to(running, 2)
        assert len(await dispatched(running)) == 2, "what the owner before dispatched counts"
        await running.start("worker-pool")
        for task in tasks:
            assert isinstance(await running.settled(task), TaskCompleted)
        await eventually(lambda: running.app("router")._permits.in_use == 0)


async def test_low_priority_waits_while_a_pool_is_nearly_full(platform: Platforms):
    async with platform("router", models=[{}]) as running:
        capacity = WorkerCapacity(pool="general", worker="w", slots=4, running=0)
        running.connection.publish(s.capacity("general", "w"), codec.encode(capacity))
        await eventually(lambda: running.app("router")._resources.pool_capacity("general") == 5)
        await eventually(lambda: running.app("router")._slices.permits("pool general") == 5)
        for number in range(4):
            await running.submit(f"{number}", tenant="globex")
        await eventually(lambda: running.app("router")._permits.in_use == 4)
        low = await running.submit("low", priority="low")
        await eventually(lambda: running.app("router")._dispatcher.queued == 1)
        normal = await running.submit("normal")
        await eventually(lambda: running.app("router")._permits.in_use == 5)
        assert normal.id in {run.task.id for run in await dispatched(running)}
        assert low.id not in {run.task.id for run in await dispatched(running)}
        assert running.app("router")._low_is_throttled() == 1.0
