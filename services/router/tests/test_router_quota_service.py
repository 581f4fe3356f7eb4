"""Quotas on a real broker: never passed, the same over routers and restarts, and graceful where they are used up."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.messages import Sampling, TaskCompleted, TaskFailed
from collegium_contracts.windows import QuotaWindows
from collegium_settings.models import ModelLimits, TokenWindowSettings
from collegium_testing import Behaviour, Rule, eventually
from collegium_testing.platform import RunningPlatform

Platforms = Callable[..., RunningPlatform]
ANSWER = Behaviour(answer="one two three four five")


@pytest.fixture
def platform(clean_nats_url: str, tmp_path: Path) -> Platforms:
    def make(*models: dict, services: tuple[str, ...] = ("router", "worker-pool"), **fields) -> RunningPlatform:
        return RunningPlatform(clean_nats_url, folder=tmp_path, services=services, models=models, **fields)

    return make


def tokens(most: int, seconds: int = 3_600) -> ModelLimits:
    return ModelLimits(tokens=TokenWindowSettings(max=most, window_seconds=seconds))


def used(running: RunningPlatform, model: str = "sim") -> float:
    app = running.app("router")
    return app._resources.quotas.used_ratio(model, app._platform.now_ms())


async def known(running: RunningPlatform) -> None:
    await eventually(lambda: running.app("router")._resources.quotas.book is not None)


async def test_a_full_model_gives_way_then_listeners_are_told_and_tasks_wait(platform: Platforms):
    first = {"name": "first", "limits": tokens(42, 3), "fallbacks": ("second",)}
    async with platform(first, {"name": "second", "limits": tokens(42, 30)}) as running:
        running.sim.script(Rule(ANSWER))
        ask = {"model": "first", "sampling": Sampling(max_tokens=30)}
        settled = [await running.settled(await running.submit("hello", **ask)) for _ in range(2)]
        assert {one.model for one in settled} == {"first", "second"}
        await eventually(lambda: used(running, "second") > 0)
        listens = {"surface": "chat", "reply": "gw1", "deadline_seconds": 60}
        refused = await running.submit("hello", model="second", sampling=ask["sampling"], **listens)
        error = await running.settled(refused)
        assert isinstance(error, TaskFailed)
        assert error.error.code == "model_quota_exceeded"
        assert 20 < (error.error.retry_after_seconds or 0) <= 31
        waited = await running.submit("hello", **ask, surface="tasks", deadline_seconds=15)
        answered = await running.settled(waited)
        assert isinstance(answered, TaskCompleted)
        assert answered.model == "first", "its window of three seconds has freed"


async def test_a_task_whose_deadline_comes_before_the_window_frees_is_refused_at_once(platform: Platforms):
    async with platform({"limits": tokens(42)}) as running:
        running.sim.script(Rule(ANSWER))
        sampling = Sampling(max_tokens=30)
        assert isinstance(await running.settled(await running.submit("hello", sampling=sampling)), TaskCompleted)
        await eventually(lambda: used(running) > 0)
        refused = await running.settled(await running.submit("hello", sampling=sampling, surface="tasks"))
        assert isinstance(refused, TaskFailed)
        assert refused.error.code == "model_quota_exceeded"


async def test_two_routers_together_stay_within_the_window(platform: Platforms):
    async with platform({"limits": tokens(400)}, tenants=[f"t{n}" for n in range(8)]) as running:
        await running.start("router")
        running.sim.script(Rule(ANSWER))
        tasks = [
            await running.submit(f"{n}", tenant=tenant, sampling=Sampling(max_tokens=20), deadline_seconds=4)
            for tenant in running.keys
            for n in range(10)
        ]
        settled = [await running.settled(task) for task in tasks]
        completed = [one for one in settled if isinstance(one, TaskCompleted)]
        spent = sum(one.usage.input_tokens + one.usage.output_tokens for one in completed)
        assert spent <= 400
        assert spent > 300, "what is left is less than a task or two may need"
        codes = {one.error.code for one in settled if isinstance(one, TaskFailed)}
        assert codes <= {"model_quota_exceeded", "deadline_exceeded"}
        await eventually(lambda: used(running) == spent / 400)


async def test_a_router_that_starts_knows_what_was_used(platform: Platforms):
    async with platform({"limits": tokens(1_000)}) as running:
        running.sim.script(Rule(ANSWER))
        for number in range(5):
            await running.settled(await running.submit(f"{number}", sampling=Sampling(max_tokens=20)))
        before = used(running)
        assert before > 0
        await running.stop(running.hosted("router"))
        bucket = Bucket(running.connection, s.KV_QUOTAS)
        entry = await bucket.get(s.WINDOWS_KEY)
        assert entry is not None
        await running.start("router")
        await known(running)
        assert used(running) == before, "from what was kept, and the events after it"
        await running.stop(running.hosted("router"))
        kept = await bucket.get(s.WINDOWS_KEY)
        assert kept is not None
        await bucket.remove(s.WINDOWS_KEY, revision=kept.revision)
        await running.start("router")
        await known(running)
        assert used(running) == before, "from the events alone"


async def test_windows_that_were_kept_of_a_stream_that_is_gone_are_not_gone_on_from(platform: Platforms):
    async with platform({"limits": tokens(1_000)}, services=()) as running:
        await running.start("router")
        await known(running)
        bucket = Bucket(running.connection, s.KV_QUOTAS)

        async def standing() -> QuotaWindows | None:
            entry = await bucket.get(s.WINDOWS_KEY)
            value = codec.state.decode(entry.value) if entry is not None else None
            return value if isinstance(value, QuotaWindows) else None

        kept = await eventually(standing)
        assert kept is not None
        await running.stop(running.hosted("router"))
        await bucket.put(s.WINDOWS_KEY, codec.encode(msgspec.structs.replace(kept, sequence=10**9)))
        await running.start("router")
        await running.start("worker-pool")
        running.sim.script(Rule(ANSWER))
        await running.settled(await running.submit("hello", sampling=Sampling(max_tokens=20)))
        await eventually(lambda: used(running) > 0)


async def test_calls_a_minute_are_counted_whatever_becomes_of_them(platform: Platforms):
    async with platform({"limits": ModelLimits(requests_per_minute=3)}) as running:
        running.sim.script(Rule(Behaviour(status=500), times=2), Rule(ANSWER))
        assert isinstance(await running.settled(await running.submit("hello")), TaskCompleted)
        await eventually(lambda: used(running) == 1.0)
        refused = await running.settled(await running.submit("hello", surface="chat", reply="gw1"))
        assert isinstance(refused, TaskFailed)
        assert refused.error.code == "model_quota_exceeded"
        assert running.sim.counts().totals.started == 3
