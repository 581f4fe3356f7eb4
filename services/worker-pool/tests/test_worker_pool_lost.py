"""Calls whose worker died: booked from the last checkpoint, charged where the task ended there, once and for all."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from collegium_bus.delivery import Delivery
from collegium_bus.pull import PullRequests
from collegium_contracts import subjects as s
from collegium_contracts.consumers import work_consumer
from collegium_contracts.content import decode_answer
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import (
    AttemptDiscarded,
    AttemptRef,
    AttemptStarted,
    RunAttempt,
    Sampling,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TextCheckpointed,
)
from collegium_contracts.money import Price
from collegium_runtime.platform import unix_ms
from collegium_testing import Behaviour, Rule, eventually
from collegium_testing.platform import RunningPlatform

Platforms = Callable[..., RunningPlatform]
PRICES = {"price": Price(input_picos=1, output_picos=100), "charge": Price(input_picos=2, output_picos=200)}
# "hello" and what a message costs beside its text.
PROMPT_TOKENS = 5


@pytest.fixture
def platform(clean_nats_url: str, tmp_path: Path) -> Platforms:
    def make(*services: str, **fields) -> RunningPlatform:
        return RunningPlatform(clean_nats_url, folder=tmp_path, services=services, **fields)

    return make


def attempt_of(platform: RunningPlatform, *, max_tokens: int = 200, **fields) -> RunAttempt:
    submitted = platform.submission("hello", **fields)
    attempt = AttemptRef(number=1, of=1, model="sim", rank="teacher", pool="general", **PRICES)
    return RunAttempt(
        task=submitted.task,
        attempt=attempt,
        prompt=submitted.prompt,
        sampling=Sampling(max_tokens=max_tokens, stream=True),
        prompt_bytes=submitted.prompt_bytes,
    )


@contextlib.asynccontextmanager
async def workers_that_die(platform: RunningPlatform, run: RunAttempt, *texts: str) -> AsyncIterator[None]:
    """Takes an attempt as often as there are texts, tells each time of the call and of its text, and is gone."""
    await platform.send(s.work("general", "normal"), run, message_id="work", tenant="acme")
    for delivery, text in enumerate(texts, 1):
        taken: asyncio.Queue[Delivery] = asyncio.Queue()
        pulls = PullRequests(
            platform.connection,
            s.WORK,
            work_consumer("general").durable,
            lambda *raw, taken=taken: taken.put_nowait(Delivery(platform.connection, *raw)),
            on_lost=lambda _reason: None,
        )
        pulls.start()
        pulls.want(1)
        async with asyncio.timeout(30):
            message = await taken.get()
        pulls.stop()
        await tell(platform, run, delivery, text)
        if delivery == len(texts):
            yield
        message.nak(0.0)
        await platform.connection.flush()


async def tell(platform: RunningPlatform, run: RunAttempt, delivery: int, text: str) -> None:
    task, now = run.task, unix_ms()
    started = AttemptStarted(task=task, attempt=run.attempt, delivery=delivery, worker="w", at_ms=now)
    subject = s.attempt_started(task.tenant, task.id, 1, delivery)
    await platform.send(subject, started, message_id=f"started-{delivery}", tenant="acme")
    for length in range(1, len(text.split()) + 1):
        kept = TextCheckpointed(
            task=task,
            attempt=run.attempt,
            delivery=delivery,
            chunks=length,
            text=Envelope("identity", b"", " ".join(text.split()[:length]).encode()),
            at_ms=now + 100 * length,
        )
        subject = s.attempt_checkpoint(task.tenant, task.id, 1)
        await platform.send(subject, kept, message_id=f"kept-{delivery}-{length}", tenant="acme")


async def discarded(platform: RunningPlatform, run: RunAttempt) -> list[AttemptDiscarded]:
    return [event for event in await platform.events(run.task) if isinstance(event, AttemptDiscarded)]


async def test_a_canceled_task_whose_worker_died_is_charged_its_last_checkpoint(platform: Platforms):
    async with platform() as running:
        run = attempt_of(running)
        async with workers_that_die(running, run, "one two three"):
            await running.cancel(run.task, "client_disconnected")
        await running.start("worker-pool")
        settled = await running.settled(run.task)
        assert isinstance(settled, TaskCanceled)
        assert settled.stop_reason == "client_disconnected"
        assert settled.partial is not None
        assert decode_answer(running.keyring.open("acme", settled.partial)).choices[0].text == "one two three"
        (call,) = settled.attempts
        assert (call.delivery, call.duration_ms, call.succeeded) == (1, 300, False)
        usage = settled.usage
        assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (PROMPT_TOKENS, 3, True)
        assert usage.charge_usd_picos == 2 * PROMPT_TOKENS + 200 * 3
        assert await discarded(running, run) == []
        assert running.sim.counts().totals.started == 0


async def test_a_call_that_is_made_again_leaves_the_lost_one_to_the_operator(platform: Platforms):
    async with platform() as running:
        running.sim.script(Rule(Behaviour(answer="one two three four")))
        run = attempt_of(running)
        async with workers_that_die(running, run, "one two", "one two three"):
            pass
        await running.start("worker-pool")
        settled = await running.settled(run.task)
        assert isinstance(settled, TaskCompleted)
        assert [call.delivery for call in settled.attempts] == [3]

        async def both() -> bool:
            return len(await discarded(running, run)) == 2

        await eventually(both)
        lost = [one.call for one in await discarded(running, run)]
        assert [(call.delivery, call.wasted, call.usage.output_tokens) for call in lost] == [(1, True, 2), (2, True, 3)]
        assert settled.usage.charge_usd_picos == 2 * settled.usage.input_tokens + 200 * 4


async def test_a_late_task_whose_worker_died_costs_and_charges_nothing(platform: Platforms):
    async with platform() as running:
        run = attempt_of(running, deadline_seconds=0.2)
        async with workers_that_die(running, run, "one two"):
            await eventually(lambda: unix_ms() > run.task.deadline_ms)
        await running.start("worker-pool")
        settled = await running.settled(run.task)
        assert isinstance(settled, TaskFailed)
        assert settled.error.code == "deadline_exceeded"
        assert (settled.usage.output_tokens, settled.usage.charge_usd_picos) == (2, 0)
        assert settled.usage.cost_usd_picos == PROMPT_TOKENS + 200


async def test_without_a_checkpoint_nothing_is_booked_and_the_call_stays_possible_spend(platform: Platforms):
    async with platform() as running:
        run = attempt_of(running)
        async with workers_that_die(running, run, ""):
            await running.cancel(run.task)
        await running.start("worker-pool")
        settled = await running.settled(run.task)
        assert isinstance(settled, TaskCanceled)
        assert (settled.attempts, settled.usage.charge_usd_picos) == ([], 0)
        kinds = [type(event) for event in await running.events(run.task)]
        assert AttemptStarted in kinds


async def test_an_endpoint_that_ignores_max_tokens_is_booked_and_counted(platform: Platforms):
    async with platform("worker-pool") as running:
        running.sim.script(Rule(Behaviour(answer="one two three four five", ignore_max_tokens=True)))
        run = attempt_of(running, max_tokens=2)
        await running.send(s.work("general", "normal"), run, message_id="work", tenant="acme")
        settled = await running.settled(run.task)
        assert settled.usage.output_tokens == 5
        metrics = running.hosted("worker-pool").platform.metrics.render().decode()
        assert 'collegium_over_limit_total{model="sim"} 1.0' in metrics
