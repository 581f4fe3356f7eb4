"""Failed calls: tried again, elsewhere or not at all; every call booked, nothing charged twice, one terminal state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import (
    AttemptDiscarded,
    AttemptRetried,
    AttemptStarted,
    AttemptUsage,
    RunAttempt,
    Sampling,
    SettledMessage,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
)
from collegium_contracts.money import Usage
from collegium_contracts.state import Breaker
from collegium_testing import Behaviour, Rule, eventually
from collegium_testing.platform import RunningPlatform

Platforms = Callable[..., RunningPlatform]
SERVICES = ("consensus", "router", "worker-pool")
PRICE = {"price": {"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"}}


@pytest.fixture
def platform(clean_nats_url: str, tmp_path: Path) -> Platforms:
    def make(*models: dict, services: tuple[str, ...] = SERVICES) -> RunningPlatform:
        return RunningPlatform(clean_nats_url, folder=tmp_path, services=services, models=models or ({},))

    return make


def text_of(running: RunningPlatform, settled: SettledMessage) -> str:
    assert isinstance(settled, TaskCompleted), settled
    return running.text(settled.task.tenant, settled.output)


async def count(running: RunningPlatform, task, kind: type) -> int:
    return sum(isinstance(event, kind) for event in await running.events(task))


async def test_a_passing_fault_costs_a_retry_and_the_task_completes(platform: Platforms):
    async with platform() as running:
        running.sim.script(Rule(Behaviour(status=503), times=2), Rule(Behaviour(answer="at last")))
        task = await running.submit("hello")
        settled = await running.settled(task)
        assert text_of(running, settled) == "at last"
        assert [(call.delivery, call.succeeded) for call in settled.attempts] == [(1, False), (2, False), (3, True)]
        retried = [event for event in await running.events(task) if isinstance(event, AttemptRetried)]
        assert [event.try_number for event in retried] == [1, 2]
        assert await count(running, task, AttemptStarted) == 3
        await eventually(lambda: running.app("router")._permits.in_use == 0)


async def test_the_budget_of_calls_ends_it_with_the_last_error(platform: Platforms):
    async with platform() as running:
        running.sim.script(Rule(Behaviour(status=500)))
        settled = await running.settled(await running.submit("hello"))
        assert isinstance(settled, TaskFailed)
        assert (settled.error.code, len(settled.attempts)) == ("upstream_error", 4)
        assert running.sim.counts().totals.started == 4


async def test_a_terminal_error_is_not_tried_again(platform: Platforms):
    async with platform() as running:
        running.sim.script(Rule(Behaviour(status=400)))
        settled = await running.settled(await running.submit("hello"))
        assert isinstance(settled, TaskFailed)
        assert len(settled.attempts) == running.sim.counts().totals.started == 1


async def test_a_fallback_answers_at_once_where_a_model_is_rate_limited(platform: Platforms):
    async with platform({"name": "first", "fallbacks": ("second",)}, {"name": "second"}) as running:
        limited = Rule(Behaviour(status=429, retry_after_seconds=15), model="first")
        running.sim.script(limited, Rule(Behaviour(answer="from the second")))
        task = await running.submit("hello", model="first")
        settled = await running.settled(task, deadline_seconds=8)
        assert (text_of(running, settled), settled.model) == ("from the second", "second")
        assert [call.model for call in settled.attempts] == ["first", "second"]


async def test_a_named_model_without_fallbacks_waits_as_long_as_its_endpoint_says(platform: Platforms):
    async with platform({"name": "only"}, {"name": "other", "rank": "teacher"}) as running:
        running.sim.script(Rule(Behaviour(status=429, retry_after_seconds=1), times=1), Rule(Behaviour(answer="yes")))
        task = await running.submit("hello", model="only")
        settled = await running.settled(task)
        assert settled.model == "only"
        assert settled.settled_at_ms - task.created_at_ms >= 1_000


async def test_a_stream_that_broke_is_made_again_for_a_task_and_not_for_a_client_that_listens(platform: Platforms):
    async with platform() as running:
        cut = Rule(Behaviour(answer="one two three four", cut_stream_after=2), times=1)
        running.sim.script(cut, Rule(Behaviour(answer="one two three four")))
        later = await running.submit("hello", surface="tasks", sampling=Sampling(stream=True))
        assert text_of(running, await running.settled(later)) == "one two three four"
        running.sim.script(cut, Rule(Behaviour(answer="one two three four")))
        heard = await running.submit("hello", surface="chat", reply="gw1", sampling=Sampling(stream=True))
        settled = await running.settled(heard)
        assert isinstance(settled, TaskFailed)
        assert (settled.error.code, settled.partial is not None) == ("upstream_cut", True)
        assert settled.usage.charge_usd_picos == 0


async def test_a_panel_keeps_its_members_and_their_retries(platform: Platforms):
    async with platform() as running:
        running.sim.script(Rule(Behaviour(status=500), times=2), Rule(Behaviour(answer="yes")))
        task = await running.submit("hello", plan="panel")
        settled = await running.settled(task)
        assert isinstance(settled, TaskCompleted)
        assert settled.confidence > 0.5
        assert sum(call.succeeded for call in settled.attempts) == 2
        assert len(settled.attempts) == running.sim.counts().totals.started == 4


async def test_a_task_that_waits_for_its_next_try_is_canceled_there(platform: Platforms):
    async with platform() as running:
        running.sim.script(Rule(Behaviour(status=429, retry_after_seconds=10)))
        task = await running.submit("hello")
        await eventually(lambda: running.app("router")._dispatcher.queued == 1)
        await running.cancel(task)
        settled = await running.settled(task, deadline_seconds=5)
        assert isinstance(settled, TaskCanceled)
        assert len(settled.attempts) == 1
        assert running.sim.counts().totals.started == 1


async def test_the_deadline_ends_the_wait_for_a_next_try(platform: Platforms):
    async with platform({}, {"name": "other", "rank": "student"}) as running:
        running.sim.script(Rule(Behaviour(status=429, retry_after_seconds=30), model="sim"), Rule(Behaviour(hang=True)))
        task = await running.submit("hello", model="auto", deadline_seconds=1.5)
        settled = await running.settled(task)
        assert isinstance(settled, TaskFailed)
        assert settled.stop_reason == "deadline"
        assert settled.settled_at_ms < task.deadline_ms + 1_500


async def breaker_of(running: RunningPlatform, model: str) -> Breaker | None:
    entry = await Bucket(running.connection, s.KV_BREAKERS).get(s.state_key(model))
    value = codec.state.decode(entry.value) if entry is not None else None
    return value if isinstance(value, Breaker) else None


async def test_a_failing_endpoint_is_left_alone_and_auto_goes_elsewhere(platform: Platforms):
    async with platform({"name": "ill"}, {"name": "well", "rank": "ta"}) as running:
        running.sim.script(Rule(Behaviour(status=500), model="ill"), Rule(Behaviour(answer="yes")))
        tasks = [await running.submit(f"q{number}") for number in range(8)]
        settled = [await running.settled(task) for task in tasks]
        assert {one.model for one in settled} == {"well"}

        async def is_open() -> bool:
            breaker = await breaker_of(running, "ill")
            return breaker is not None and breaker.open_until_ms > 0

        await eventually(is_open)
        await eventually(lambda: running.app("router")._resources.open_until_ms.get("ill", 0) > 0)
        before = running.sim.counts().models["ill"].started
        task = await running.submit("after it opened")
        assert [call.model for call in (await running.settled(task)).attempts] == ["well"]
        assert running.sim.counts().models["ill"].started == before


async def test_one_probe_closes_a_breaker_whose_time_is_over(platform: Platforms):
    async with platform() as running:
        past = codec.encode(Breaker(model="sim", failures_ms=[1], open_until_ms=2))
        await Bucket(running.connection, s.KV_BREAKERS).put(s.state_key("sim"), past)
        breakers = running.app("worker-pool")._breakers
        await eventually(lambda: "sim" in breakers._known)
        running.sim.script(Rule(Behaviour(answer="yes", delay_ms=300)))
        tasks = [await running.submit(f"q{number}") for number in range(5)]
        await eventually(lambda: running.sim.counts().totals.started >= 1)
        assert running.sim.counts().totals.started == 1, "the others wait for the probe"
        for task in tasks:
            assert isinstance(await running.settled(task), TaskCompleted)

        async def closed() -> bool:
            breaker = await breaker_of(running, "sim")
            return breaker is not None and not breaker.open_until_ms

        await eventually(closed)


async def test_a_worker_that_was_overtaken_while_it_stood_still_settles_nothing(platform: Platforms):
    """As after two ack waits under SIGSTOP: the lease is in doubt, and another delivery has begun."""
    async with platform() as running:
        running.sim.script(Rule(Behaviour(answer="late", delay_ms=400)))
        task = await running.submit("hello")
        await eventually(lambda: running.sim.counts().totals.started == 1)
        (first,) = [event for event in await running.events(task) if isinstance(event, AttemptStarted)]
        second = AttemptStarted(task=task, attempt=first.attempt, delivery=2, worker="another", at_ms=first.at_ms + 1)
        subject = s.attempt_started(task.tenant, task.id, 1, 2)
        await running.send(subject, second, message_id="another", tenant=task.tenant)
        for loop in running.app("worker-pool")._loops.values():
            loop._doubt_all()

        async def discarded() -> bool:
            return await count(running, task, AttemptDiscarded) == 1

        await eventually(discarded)
        assert await count(running, task, TaskCompleted) == 0
        waste = [event for event in await running.events(task) if isinstance(event, AttemptDiscarded)]
        assert waste[0].call.wasted
        assert waste[0].call.usage.output_tokens > 0


async def test_a_worker_killed_between_a_failed_try_and_its_request_is_finished_by_the_next(platform: Platforms):
    async with platform(services=("consensus", "router")) as running:
        running.sim.script(Rule(Behaviour(answer="yes")))
        task = await running.submit("hello")
        ((_, payload),) = await eventually(lambda: running.read(s.WORK, s.WORK_ALL))
        run = codec.journey.decode(payload)
        assert isinstance(run, RunAttempt)
        about = {"task": task, "attempt": run.attempt}
        failed = AttemptUsage(
            number=1, delivery=1, model="sim", rank="teacher", usage=Usage(), duration_ms=3, succeeded=False
        )
        started = AttemptStarted(**about, delivery=1, worker="killed", at_ms=1)
        error = TaskError(code="upstream_error", message="it failed")
        retried = AttemptRetried(**about, try_number=1, error=error, not_before_ms=2, at_ms=2, call=failed)
        for subject, message in (
            (s.attempt_started(task.tenant, task.id, 1, 1), started),
            (s.attempt_retried(task.tenant, task.id, 1, 1), retried),
        ):
            await running.send(subject, message, message_id=subject, tenant=task.tenant)
        await running.start("worker-pool")
        settled = await running.settled(task)
        assert text_of(running, settled) == "yes"
        assert [(call.delivery, call.succeeded) for call in settled.attempts] == [(1, False), (2, True)]
        assert running.sim.counts().totals.started == 1
