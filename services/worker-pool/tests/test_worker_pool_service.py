"""The worker pool on a real broker: at-least-once delivery, one settlement, no call that is not booked."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from collegium_bus.delivery import Delivery
from collegium_bus.errors import BrokerUnavailableError
from collegium_bus.pull import PullRequests
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.consumers import work_consumer
from collegium_contracts.messages import (
    AttemptAnswered,
    AttemptDiscarded,
    AttemptFailed,
    AttemptRef,
    AttemptStarted,
    RunAttempt,
    Sampling,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TokenChunk,
)
from collegium_contracts.money import Price, Usage
from collegium_settings.models import ModelLimits
from collegium_testing import Behaviour, Rule, eventually
from collegium_testing.platform import RunningPlatform
from collegium_worker_pool.calling.outcome import CallEnd
from collegium_worker_pool.calling.outcome import settled as settlement
from collegium_worker_pool.running.attempts import AttemptRunner
from collegium_worker_pool.upstream.counting import MESSAGE_TOKENS

Platforms = Callable[..., RunningPlatform]
# One pico-dollar a token in, a hundred a token out; charged double.
PRICES = {"price": Price(input_picos=1, output_picos=100), "charge": Price(input_picos=2, output_picos=200)}


@pytest.fixture
def platform(clean_nats_url: str, tmp_path: Path) -> Platforms:
    def make(*services: str, **fields) -> RunningPlatform:
        return RunningPlatform(clean_nats_url, folder=tmp_path, services=services, **fields)

    return make


def attempt_of(
    platform: RunningPlatform, text: str = "hello", *, stream: bool = False, number: int = 1, of: int = 1, **fields
) -> RunAttempt:
    submitted = platform.submission(text, **fields)
    attempt = AttemptRef(
        number=number,
        of=of,
        model="sim",
        rank="teacher",
        pool="general",
        plan="panel" if of > 1 else "single",
        **PRICES,
    )
    return RunAttempt(
        task=submitted.task,
        attempt=attempt,
        prompt=submitted.prompt,
        sampling=Sampling(max_tokens=200, stream=stream),
        prompt_bytes=submitted.prompt_bytes,
    )


async def give(platform: RunningPlatform, run: RunAttempt | bytes, message_id: str = "") -> None:
    default = f"{run.task.id}.{run.attempt.number}" if isinstance(run, RunAttempt) else "bytes"
    await platform.send(s.work("general", "normal"), run, message_id=message_id or default, tenant="acme")


async def emptied(platform: RunningPlatform) -> None:
    async def empty() -> bool:
        return await platform.standing(s.WORK) == 0

    await eventually(empty)


@contextlib.asynccontextmanager
async def a_worker_that_dies(platform: RunningPlatform) -> AsyncIterator[Delivery]:
    """Takes one message of the pool as a worker would; in the end it goes back, as after that worker's death."""
    taken: asyncio.Queue[Delivery] = asyncio.Queue()
    pulls = PullRequests(
        platform.connection,
        s.WORK,
        work_consumer("general").durable,
        lambda *raw: taken.put_nowait(Delivery(platform.connection, *raw)),
        on_lost=lambda _reason: None,
    )
    pulls.start()
    pulls.want(1)
    async with asyncio.timeout(30):
        delivery = await taken.get()
    yield delivery
    pulls.stop()
    delivery.nak(0.0)
    await platform.connection.flush()


def kinds(events: list) -> list[str]:
    return [type(event).__name__ for event in events]


async def test_an_attempt_settles_its_task_with_the_endpoints_usage(platform: Platforms):
    async with platform("worker-pool") as running:
        running.sim.script(Rule(Behaviour(answer="one two three")))
        run = attempt_of(running)
        await give(running, run)
        settled = await running.settled(run.task)
        assert isinstance(settled, TaskCompleted)
        assert running.text("acme", settled.output) == "one two three"
        counted = running.sim.counts().totals
        assert (settled.usage.input_tokens, settled.usage.output_tokens) == (
            counted.prompt_tokens,
            counted.completion_tokens,
        )
        assert settled.usage.cost_usd_picos == counted.prompt_tokens + 100 * counted.completion_tokens
        assert settled.usage.charge_usd_picos == 2 * settled.usage.cost_usd_picos
        await emptied(running)
        assert kinds(await running.events(run.task)) == ["AttemptStarted", "TaskCompleted"]
        (call,) = running.sim.counts().requests
        assert (call.request_id, call.attempt) == (run.task.id, f"{run.task.id}.1.1")


async def test_usage_is_estimated_and_marked_where_the_endpoint_counts_nothing(platform: Platforms):
    async with platform("worker-pool") as running:
        running.sim.script(Rule(Behaviour(answer="12345678", no_usage=True)))
        run = attempt_of(running)
        await give(running, run)
        usage = (await running.settled(run.task)).usage
        assert (usage.estimated, usage.output_tokens) == (True, 3)
        assert usage.input_tokens == 1 + MESSAGE_TOKENS


async def test_the_same_work_twice_settles_once(platform: Platforms):
    """The queue forgets what it deduplicated after two minutes; a copy may come later or at the same time."""
    async with platform("worker-pool") as running:
        running.sim.script(Rule(Behaviour(answer="yes", delay_ms=50)))
        run = attempt_of(running)
        await give(running, run, "copy-1")
        await give(running, run, "copy-2")
        settled = await running.settled(run.task)
        await emptied(running)
        await give(running, run, "copy-3")
        await emptied(running)
        events = await running.events(run.task)
        assert kinds(events).count("TaskCompleted") == 1
        assert running.sim.counts().totals.started == 1, "a copy waits for the first, and then calls nobody"
        assert kinds(events).count("AttemptStarted") == 1
        assert await running.settled(run.task) == settled


async def test_a_copy_whose_first_run_came_to_nothing_is_run(platform: Platforms, monkeypatch):
    """A killed broker delivers again what is being run; what that run could not store, the copy does."""
    async with platform("worker-pool") as running:
        running.sim.script(Rule(Behaviour(answer="yes", delay_ms=100)))
        run = attempt_of(running)
        conclude, tries = AttemptRunner._conclude, []

        async def failing_first(self, *args):
            tries.append(1)
            if len(tries) == 1:
                raise BrokerUnavailableError("away")
            await conclude(self, *args)

        monkeypatch.setattr(AttemptRunner, "_conclude", failing_first)
        await give(running, run, "copy-1")
        await give(running, run, "copy-2")
        settled = await running.settled(run.task)
        assert [call.delivery for call in settled.attempts] == [2]
        events = await running.events(run.task)
        assert [event.delivery for event in events if isinstance(event, AttemptStarted)] == [1, 2], "each is listed"


async def test_a_redelivered_attempt_of_a_settled_task_calls_nobody(platform: Platforms):
    async with platform() as running:
        run = attempt_of(running)
        await give(running, run)
        async with a_worker_that_dies(running):
            end = CallEnd(usage=Usage(), duration_ms=1, output=running.submission("the answer").prompt)
            stored = settlement(run, 1, end, 1)
            await running.send(
                s.task_settled("acme", run.task.id), stored, message_id="by the dead worker", tenant="acme"
            )
        await running.start("worker-pool")
        await emptied(running)
        assert running.sim.counts().totals.started == 0
        assert kinds(await running.events(run.task)) == ["TaskCompleted"]


async def test_a_redelivered_attempt_that_nobody_ended_is_run_again_under_its_own_number(platform: Platforms):
    async with platform() as running:
        run = attempt_of(running)
        await give(running, run)
        async with a_worker_that_dies(running) as delivery:
            assert delivery.delivered == 1
            started = AttemptStarted(task=run.task, attempt=run.attempt, delivery=1, worker="dead", at_ms=1)
            await running.send(s.attempt_started("acme", run.task.id, 1, 1), started, message_id="d", tenant="acme")
        await running.start("worker-pool")
        settled = await running.settled(run.task)
        assert isinstance(settled, TaskCompleted)
        assert [call.delivery for call in settled.attempts] == [2]
        events = await running.events(run.task)
        assert [event.delivery for event in events if isinstance(event, AttemptStarted)] == [1, 2]
        assert running.sim.counts().totals.started == 1


async def test_a_copy_of_work_whose_worker_died_is_run_under_the_next_number(platform: Platforms):
    """A copy is delivered for the first time, like the message whose worker died after it had listed its call."""
    async with platform("worker-pool") as running:
        run = attempt_of(running)
        started = AttemptStarted(task=run.task, attempt=run.attempt, delivery=1, worker="dead", at_ms=1)
        await running.send(s.attempt_started("acme", run.task.id, 1, 1), started, message_id="d", tenant="acme")
        await give(running, run, "copy")
        settled = await running.settled(run.task)
        assert isinstance(settled, TaskCompleted)
        assert [call.delivery for call in settled.attempts] == [2]


async def test_a_late_result_settles_nothing_and_is_booked_as_waste(platform: Platforms):
    async with platform("worker-pool") as running:
        running.sim.script(Rule(Behaviour(answer="too late", delay_ms=200)))
        run = attempt_of(running)
        await give(running, run)
        await eventually(lambda: running.sim.counts().totals.started == 1)
        first = settlement(run, 9, CallEnd(usage=Usage(), duration_ms=1, output=run.prompt), 1)
        await running.send(s.task_settled("acme", run.task.id), first, message_id="first", tenant="acme")
        await emptied(running)
        assert await running.settled(run.task) == first
        discarded = [event for event in await running.events(run.task) if isinstance(event, AttemptDiscarded)]
        (waste,) = discarded
        counted = running.sim.counts().totals
        assert (waste.call.wasted, waste.call.usage.output_tokens) == (True, counted.completion_tokens)
        assert waste.call.usage.cost_usd_picos == counted.prompt_tokens + 100 * counted.completion_tokens


async def test_a_call_in_flight_is_ended_upstream_by_a_cancellation_and_its_text_is_billed(platform: Platforms):
    async with platform("worker-pool") as running:
        running.sim.script(Rule(Behaviour(answer="one two three four five six", token_delay_ms=100, no_usage=True)))
        run = attempt_of(running, stream=True)
        await give(running, run)
        await eventually(lambda: running.sim.counts().requests and running.sim.counts().totals.open == 1)
        await _first_token(running, run)
        await running.cancel(run.task)
        settled = await running.settled(run.task)
        assert isinstance(settled, TaskCanceled)
        assert settled.stop_reason == "canceled"
        assert settled.partial is not None
        partial = running.text("acme", settled.partial)
        assert partial.startswith("one")
        assert "six" not in partial
        usage = settled.usage
        assert (usage.estimated, usage.output_tokens) == (True, -(-len(partial) // 4))
        assert usage.charge_usd_picos == 2 * usage.cost_usd_picos > 0
        await eventually(lambda: running.sim.counts().totals.aborted == 1)
        await emptied(running)


async def _first_token(running: RunningPlatform, run: RunAttempt) -> None:
    """Waits until the call has produced text; the simulator counts what it has sent when the call ends."""
    app = running.app("worker-pool")
    await eventually(lambda: run.task.id in app._cancels._running)
    chunks: list[bytes] = []
    sid = running.connection.client.subscribe_raw(
        s.token(run.task.tenant, run.task.id), lambda _s, _r, payload, _b: chunks.append(payload)
    )
    await running.connection.flush()
    await eventually(lambda: chunks)
    running.connection.client.unsubscribe_raw(sid)


async def test_a_cancellation_that_came_first_prevents_the_call(platform: Platforms):
    async with platform() as running:
        run = attempt_of(running)
        await running.cancel(run.task, "client_disconnected")
        await give(running, run)
        await running.start("worker-pool")
        settled = await running.settled(run.task)
        assert isinstance(settled, TaskCanceled)
        assert (settled.stop_reason, settled.usage, settled.partial) == ("client_disconnected", Usage(), None)
        assert running.sim.counts().totals.started == 0
        assert "AttemptStarted" not in kinds(await running.events(run.task))


async def test_a_deadline_that_passed_in_the_queue_prevents_the_call(platform: Platforms):
    async with platform() as running:
        run = attempt_of(running, deadline_seconds=0)
        await give(running, run)
        await running.start("worker-pool")
        settled = await running.settled(run.task)
        assert isinstance(settled, TaskFailed)
        assert (settled.stop_reason, settled.error.code, settled.usage) == ("deadline", "deadline_exceeded", Usage())
        assert running.sim.counts().totals.started == 0
        assert "AttemptStarted" not in kinds(await running.events(run.task))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_the_deadline_ends_a_call_that_hangs(platform: Platforms, stream: bool):
    async with platform("worker-pool") as running:
        running.sim.script(Rule(Behaviour(hang=True)))
        run = attempt_of(running, stream=stream, deadline_seconds=0.4)
        await give(running, run)
        settled = await running.settled(run.task)
        assert isinstance(settled, TaskFailed)
        assert (settled.stop_reason, settled.error.code) == ("deadline", "deadline_exceeded")
        assert settled.settled_at_ms < run.task.deadline_ms + 1_000
        # The endpoint had the prompt, and counts it: the operator's cost, not the tenant's charge.
        usage = settled.usage
        assert (usage.estimated, usage.output_tokens, usage.charge_usd_picos) == (True, 0, 0)
        assert usage.input_tokens > 0
        assert usage.cost_usd_picos > 0
        await eventually(lambda: running.sim.counts().totals.aborted == 1)


@pytest.mark.parametrize(("surface", "told"), [("tasks", ["TaskDispatched"]), ("chat", [])])
async def test_a_task_that_takes_longer_than_a_moment_is_said_to_be_worked_on(platform: Platforms, surface, told):
    async with platform("worker-pool") as running:
        running.sim.script(Rule(Behaviour(hang=True)))
        run = attempt_of(running, surface=surface, deadline_seconds=1)
        await give(running, run)
        assert isinstance(await running.settled(run.task), TaskFailed)
        assert sorted(kinds(await running.events(run.task))) == ["AttemptStarted", *told, "TaskFailed"]


async def test_a_models_own_timeout_is_told_from_the_deadline(platform: Platforms):
    async with platform("worker-pool", models=[{"timeout_seconds": 0.2}]) as running:
        running.sim.script(Rule(Behaviour(hang=True)))
        run = attempt_of(running)
        await give(running, run)
        settled = await running.settled(run.task)
        assert isinstance(settled, TaskFailed)
        assert (settled.stop_reason, settled.error.code) == ("failed", "upstream_timeout")


async def test_a_cut_stream_fails_with_its_partial_text_at_the_operators_cost(platform: Platforms):
    async with platform("worker-pool") as running:
        running.sim.script(Rule(Behaviour(answer="one two three four", cut_stream_after=2)))
        run = attempt_of(running, stream=True)
        await give(running, run)
        settled = await running.settled(run.task)
        assert isinstance(settled, TaskFailed)
        assert settled.error.code == "upstream_cut"
        assert settled.partial is not None
        assert (running.text("acme", settled.partial)).startswith("one")
        assert settled.usage.charge_usd_picos == 0
        assert settled.usage.cost_usd_picos > 0


async def test_tokens_are_numbered_without_gaps_and_are_the_answers_text(platform: Platforms):
    async with platform("worker-pool") as running:
        running.sim.script(Rule(Behaviour(answer="one two three four five six seven", token_delay_ms=8)))
        run = attempt_of(running, stream=True)
        chunks: list[TokenChunk] = []

        def on_token(_subject: bytes, _reply: bytes, payload: bytes, _block: bytes | None) -> None:
            chunk = codec.journey.decode(payload)
            assert isinstance(chunk, TokenChunk)
            chunks.append(chunk)

        running.connection.client.subscribe_raw(s.token("acme", run.task.id), on_token)
        await running.connection.flush()
        await give(running, run)
        settled = await running.settled(run.task)
        assert isinstance(settled, TaskCompleted)
        text = running.text("acme", settled.output)
        await eventually(
            lambda: b"".join(running.keyring.open("acme", chunk.text) for chunk in chunks).decode() == text
        )
        assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
        assert len(chunks) > 1
        assert {(chunk.task_id, chunk.attempt, chunk.delivery) for chunk in chunks} == {(run.task.id, 1, 1)}


@pytest.mark.parametrize("payload", [b"\xff\xfe\x00noise", b"", b"{}"], ids=["noise", "empty", "json"])
async def test_undecodable_bytes_are_buried_verbatim_and_the_pool_goes_on(platform: Platforms, payload: bytes):
    async with platform("worker-pool") as running:
        await give(running, payload)
        (letter,) = await eventually(running.dead_letters)
        assert (letter.payload, letter.subject, letter.service) == (payload, "work.general.normal", "worker-pool")
        assert (letter.cause, letter.delivery) == ("undecodable_message", 1)
        await emptied(running)
        run = attempt_of(running)
        await give(running, run)
        assert isinstance(await running.settled(run.task), TaskCompleted)


async def test_members_of_a_panel_end_their_attempts_and_settle_nothing(platform: Platforms):
    async with platform("worker-pool") as running:
        running.sim.script(Rule(Behaviour(status=500), times=1), Rule(Behaviour(answer="yes")))
        bad = attempt_of(running, number=1, of=2)
        await give(running, bad)
        await emptied(running)
        task = msgspec.structs.replace(bad.task, tests=2)
        good = msgspec.structs.replace(bad, task=task, attempt=msgspec.structs.replace(bad.attempt, number=2))
        await give(running, good)
        await emptied(running)
        ends = [event for event in await running.events(bad.task) if isinstance(event, AttemptAnswered | AttemptFailed)]
        assert kinds(ends) == ["AttemptFailed", "AttemptAnswered"]
        assert [end.call.number for end in ends] == [1, 2]
        assert not any(kind.startswith("Task") for kind in kinds(await running.events(bad.task)))
        stored = await running.direct.headers(s.EVENTS, s.ATTEMPT_ENDED_ALL, limit=10)
        # Of these two only the answer is of a task with tests.
        assert [one.headers.get(s.H_TESTS_UNTIL) for one in stored] == [None, str(task.deadline_ms)]
        charged = [one.headers[s.H_BILLED] for one in stored]
        expected = [0, ends[1].call.usage.charge_usd_picos]
        assert charged == [f"{picos} 0 {bad.task.project} {bad.task.key_id}".strip() for picos in expected]
        assert expected[1] > 0


async def test_a_model_without_an_endpoint_here_is_a_typed_failure(platform: Platforms):
    async with platform("worker-pool", models=[{"name": "other"}]) as running:
        run = attempt_of(running)
        await give(running, run)
        settled = await running.settled(run.task)
        assert isinstance(settled, TaskFailed)
        assert settled.error.code == "endpoint_not_configured"
        assert "configuration" in settled.error.message


async def test_no_more_calls_run_at_a_time_than_the_model_allows(platform: Platforms):
    async with platform("worker-pool", models=[{"limits": ModelLimits(concurrency=2)}]) as running:
        running.sim.script(Rule(Behaviour(answer="ok", delay_ms=40)))
        runs = [attempt_of(running, f"q{number}") for number in range(8)]
        for run in runs:
            await give(running, run)
        for run in runs:
            await running.settled(run.task)
        calls = running.sim.counts().requests
        moments = sorted([(call.started_at, 1) for call in calls] + [(call.ended_at or 0, -1) for call in calls])
        open_now = [sum(step for _, step in moments[: index + 1]) for index in range(len(moments))]
        assert max(open_now) == 2


async def test_draining_waits_for_what_runs_and_takes_nothing_new(platform: Platforms):
    async with platform("worker-pool") as running:
        running.sim.script(Rule(Behaviour(answer="ok", delay_ms=300)))
        run = attempt_of(running)
        await give(running, run)
        await eventually(lambda: running.sim.counts().totals.open == 1)
        await running.stop(running.hosted("worker-pool"))
        assert isinstance(await running.settled(run.task), TaskCompleted)
        late = attempt_of(running, "late")
        await give(running, late)
        assert await running.standing(s.WORK) == 1
        assert running.sim.counts().totals.started == 1
