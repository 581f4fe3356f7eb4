"""Asking for more on a real broker: each attempt once, whoever is killed, doubled or late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from collegium_bus.direct import Stored, as_delivered
from collegium_bus.errors import GoneError, QueueFullError
from collegium_bus.events import EventOf
from collegium_consensus import members
from collegium_consensus.app import build
from collegium_consensus.asking import Asking, noted
from collegium_consensus.course import Ask, Terms
from collegium_consensus.handlers import Verdicts
from collegium_consensus.members import Member, standing
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import (
    AttemptAsked,
    AttemptRequested,
    Sampling,
    TaskCompleted,
    TaskDispatched,
    TaskFailed,
    TaskRef,
    TaskSubmitted,
)
from collegium_runtime.platform import Platform
from collegium_testing import eventually

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HISTORY, NOTE = Envelope("identity", b"", b"[1]"), Envelope("identity", b"", b"a note")


@asynccontextmanager
async def judging(platform: Platform) -> AsyncIterator[Any]:
    app = build(platform)
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


async def begin(platform: Platform, task: TaskRef, of: int, ranks: Any = ()) -> TaskDispatched:
    """Tells that a plan began, as the router does before it sends its first attempts."""
    submitted = TaskSubmitted(
        task=task, prompt=Envelope("identity", b"", b"[]"), sampling=Sampling(max_tokens=9, seed=3), prompt_bytes=2
    )
    message = TaskDispatched(
        task=task,
        plan=task.plan,
        models=["m1", "m2"],
        at_ms=1,
        submitted=submitted,
        history=HISTORY,
        notes=[NOTE],
        added_bytes=40,
        of=of,
        ranks=list(ranks),
    )
    await platform.publisher.publish(
        s.task_changed(task.tenant, task.id), codec.encode(message), message_id=f"{task.id}.dispatched"
    )
    return message


async def asked_of(platform: Platform, task: TaskRef) -> list[AttemptRequested]:
    """The requests for a task that stand in the router's queue."""
    found: list[AttemptRequested] = []
    sequence = 0
    subject = s.task_more(task.priority, ids.shard_of(task.tenant), task.tenant)
    while stored := await platform.direct.after(s.INGRESS, sequence, subject):
        sequence = stored.sequence
        message = codec.journey.decode(stored.payload)
        if isinstance(message, AttemptRequested) and message.run.task.id == task.id:
            found.append(message)
    return found


async def note_of(platform: Platform, task: TaskRef, number: int) -> AttemptAsked | None:
    stored = await platform.direct.last(s.EVENTS, s.attempt_asked(task.tenant, task.id, number))
    message = codec.journey.decode(stored.payload) if stored is not None else None
    return message if isinstance(message, AttemptAsked) else None


async def settled(platform: Platform, task: TaskRef) -> Any:
    async def standing_now() -> Any:
        return await platform.direct.last(s.EVENTS, s.task_settled(task.tenant, task.id))

    return codec.settled.decode((await eventually(standing_now)).payload)


@pytest.fixture
async def platform(platforms: Any) -> Any:
    return await platforms()


async def test_members_that_differ_have_one_more_asked_for_with_all_that_the_first_were_told(
    platform: Platform, make: Any, end_attempt: Any
) -> None:
    task = make.task(priority="high")
    await begin(platform, task, 3)
    async with judging(platform):
        await end_attempt(platform, make.answered(1, "a", task=task), TRACEPARENT)
        await end_attempt(platform, make.answered(2, "b", task=task), TRACEPARENT)
        (asked,) = await eventually(lambda: asked_of(platform, task))
    run = asked.run
    assert (asked.error, asked.asked, run.try_number) == (None, ["m1", "m2"], 0)
    assert (run.attempt.number, run.attempt.of, run.attempt.plan) == (3, 3, "panel")
    assert (run.task, run.history, run.notes, run.prompt_bytes) == (task, HISTORY, [NOTE], 42)
    assert (run.sampling.max_tokens, run.sampling.seed) == (9, 3)
    note = await note_of(platform, task, 3)
    assert note is not None
    assert (note.reason, note.threshold, note.rank) == ("disagreement", None, "")


async def test_a_cascade_asks_for_the_rank_above_and_says_how_confident_it_was(
    platform: Platform, make: Any, end_attempt: Any
) -> None:
    task = make.task(plan="cascade", quality_min=0.8)
    await begin(platform, task, 4, ("student", "student", "ta", "teacher"))
    async with judging(platform):
        for number, text in ((1, "a"), (2, "b")):
            await end_attempt(platform, make.answered(number, text, of=4, task=task, plan="cascade"))
        (asked,) = await eventually(lambda: asked_of(platform, task))
        await end_attempt(platform, make.answered(3, "b", of=4, task=task, plan="cascade"))
        await eventually(lambda: note_of(platform, task, 4))
        await end_attempt(platform, make.answered(4, "b", of=4, task=task, plan="cascade"))
        done = await settled(platform, task)
    assert (asked.run.attempt.number, asked.run.attempt.rank) == (3, "ta")
    note = await note_of(platform, task, 3)
    assert note is not None
    assert (note.rank, note.reason, note.threshold) == ("ta", "confidence", 0.8)
    assert note.confidence is not None
    assert note.confidence < 0.8
    assert isinstance(done, TaskCompleted)
    assert (done.model, done.plan, len(done.attempts)) == ("m2", "cascade", 4)


async def test_whoever_was_killed_between_note_and_request_is_made_good(
    platform: Platform, make: Any, end_attempt: Any
) -> None:
    task = make.task()
    beginning = await begin(platform, task, 3)
    for number, text in ((1, "a"), (2, "b")):
        await end_attempt(platform, make.answered(number, text, task=task))
    left = noted(task, beginning, 3, Ask((3,), "disagreement", None), Terms("panel", 3, task.deadline_ms), 5)
    await platform.publisher.publish(
        s.attempt_asked(task.tenant, task.id, 3), codec.encode(left), message_id="of the killed one", create_once=True
    )
    async with judging(platform):
        (asked,) = await eventually(lambda: asked_of(platform, task))
    assert asked.run.attempt.number == 3
    assert await note_of(platform, task, 3) == left


async def test_two_replicas_and_an_event_that_comes_again_ask_once(platforms: Any, make: Any, end_attempt: Any) -> None:
    first, second = await platforms(), await platforms()
    tasks = [make.task(str(number)) for number in range(12)]
    for task in tasks:
        await begin(first, task, 3)
    async with judging(first), judging(second):
        ends = [make.answered(number, str(number), task=task) for task in tasks for number in (1, 2)]
        await asyncio.gather(*(end_attempt(first, one) for one in ends))
        for task in tasks:
            await eventually(lambda task=task: asked_of(first, task))
        for letter, one in enumerate(ends, 1):
            ended = s.attempt_ended(one.task.tenant, one.task.id, one.attempt.number)
            await first.publisher.publish(s.again("verdicts", letter, ended), codec.encode(one), message_id="")
        # What comes after them is judged after them.
        last = make.task("last")
        await begin(first, last, 3)
        for number in (1, 2):
            await end_attempt(first, make.answered(number, "same", task=last))
        await settled(first, last)
    for task in tasks:
        assert [one.run.attempt.number for one in await asked_of(first, task)] == [3]


async def test_where_nobody_can_be_asked_the_best_that_there_is_stands(
    platform: Platform, make: Any, end_attempt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten, full = make.task("1"), make.task("2")
    await begin(platform, full, 3)

    async def refuse(*_: Any) -> None:
        raise QueueFullError("no place")

    monkeypatch.setattr(Asking, "ask", refuse)
    async with judging(platform):
        for task in (forgotten, full):
            for number, text in ((1, "a"), (2, "b")):
                await end_attempt(platform, make.answered(number, text, task=task))
            done = await settled(platform, task)
            assert (done.model, done.stop_reason) == ("m1", "no_majority")


async def test_a_plan_whose_attempt_is_lost_is_settled_when_its_time_is_over(
    platforms: Any, make: Any, end_attempt: Any
) -> None:
    now = [make.now_ms]
    platform = await platforms(now_ms=lambda: now[0])
    answered, silent = make.task("1"), make.task("2")
    for task in (answered, silent):
        await begin(platform, task, 3)
    async with judging(platform) as app:
        await end_attempt(platform, make.answered(1, "a", task=answered))
        await end_attempt(platform, make.failed(1, task=silent))
        overdue = app._verdicts.overdue
        await eventually(lambda: len(overdue._watched) == 2)
        now[0] = answered.deadline_ms + 1_000
        done = await settled(platform, answered)
        assert (done.model, done.stop_reason, len(done.attempts)) == ("m1", "deadline", 1)
        # Without an answer the lost attempt's own end is waited for; and what comes late changes nothing.
        await end_attempt(platform, make.answered(2, "b", task=answered))
        for number in (2, 3):
            await end_attempt(platform, make.failed(number, "deadline_exceeded", task=silent))
        assert isinstance(await settled(platform, silent), TaskFailed)
        assert await settled(platform, answered) == done


async def test_a_replica_of_the_broker_that_is_behind_is_not_believed(
    platform: Platform, make: Any, end_attempt: Any
) -> None:
    task = make.task()
    first, second = make.answered(1, "a", task=task), make.answered(2, "b", task=task)
    await end_attempt(platform, first)
    reading = asyncio.create_task(standing(platform, task, 3, [Member(second, 9, "")]))
    await asyncio.sleep(0)
    await end_attempt(platform, second)
    assert [member.number for member in await reading] == [1, 2]


async def test_what_was_erased_meanwhile_is_left_alone_and_holds_up_nobody(
    platform: Platform, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "AGAIN_SECONDS", (0.01,))
    message = make.answered(1, "a")
    task = message.task
    stored = Stored(s.attempt_ended(task.tenant, task.id, 1), 7, codec.encode(message), {})
    delivery = as_delivered(platform.connection, stored, s.EVENTS, "verdicts", 1)
    await Verdicts(platform).handle([EventOf(message, stored.payload, delivery)])
    assert await platform.direct.last(s.DEAD, s.DEAD_ALL) is None
    with pytest.raises(GoneError):
        await standing(platform, task, 3, [Member(message, 7, "")])
