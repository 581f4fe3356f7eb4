"""Pauses and what comes for them on a real broker: nothing old stops the rest, and no cancellation is lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from collegium_bus import pauses
from collegium_bus.direct import DirectReader, Stored, as_delivered
from collegium_bus.events import EventOf
from collegium_consensus.people.inputs import Inputs
from collegium_consensus.people.pausing import Pausing
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.content import Answer, Choice, encode_content
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import CancelRequested, DeadLetter, TaskCanceled, TaskCompleted, TaskInput, TaskRef
from collegium_contracts.money import Usage
from collegium_contracts.people import People, Question, numbered
from collegium_runtime.platform import Platform
from collegium_testing import eventually

ASKED = numbered("answer", [Question(id="", of="client")])


@pytest.fixture
async def platform(platforms: Any) -> Platform:
    return await platforms()


def verdict(make: Any, name: str = "1", **fields: Any) -> TaskCompleted:
    task = make.task(name, people=People(after=[Question(id="", of="client")]), **fields)
    output = Envelope("identity", b"", encode_content(Answer([Choice("green")])))
    return TaskCompleted(
        task=task, plan="panel", stop_reason="completed", usage=Usage(), attempts=[], settled_at_ms=1, output=output
    )


def event(platform: Platform, message: TaskInput | CancelRequested, subject: str) -> EventOf[Any]:
    stored = Stored(subject, 7, codec.encode(message), {s.H_TENANT: "acme"})
    return EventOf(message, stored.payload, as_delivered(platform.connection, stored, s.EVENTS, "inputs", 1))


def cancel_of(task: TaskRef) -> CancelRequested:
    return CancelRequested(task_id=task.id, tenant=task.tenant, at_ms=1)


async def publish_cancel(platform: Platform, task: TaskRef) -> None:
    await platform.publisher.publish(s.cancel(task.tenant, task.id), codec.encode(cancel_of(task)), message_id="")


async def settled(platform: Platform, task: TaskRef) -> Any:
    stored = await platform.direct.last(s.EVENTS, s.task_settled(task.tenant, task.id))
    return codec.settled.decode(stored.payload) if stored is not None else None


def approval(task: TaskRef) -> TaskInput:
    return TaskInput(
        tenant=task.tenant, task_id=task.id, question="answer-1", decision="approve", source="client", at_ms=5
    )


async def test_an_answer_that_stands_no_more_is_buried_and_the_next_is_carried_out(
    platform: Platform, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pauses, "AGAIN_SECONDS", (0.01,))
    old, here = verdict(make, "old"), verdict(make)
    await Pausing(platform, "x").pause(here, ASKED, "")
    subject = s.task_input("acme", here.task.id, "answer-1")
    await platform.publisher.publish(subject, codec.encode(approval(here.task)), message_id="")
    again = s.again("inputs", 3, s.task_input("acme", old.task.id, "answer-1"))
    batch = [event(platform, approval(old.task), again), event(platform, approval(here.task), subject)]
    await Inputs(platform).handle(batch)
    assert isinstance(await settled(platform, here.task), TaskCompleted)
    stored = await platform.direct.last(s.DEAD, s.DEAD_ALL)
    letter = codec.journey.decode(stored.payload) if stored is not None else None
    assert isinstance(letter, DeadLetter)
    assert (letter.cause, letter.payload) == ("event_gone", codec.encode(approval(old.task)))


async def test_a_cancellation_is_found_by_whoever_finds_that_the_pause_stands(platform: Platform, make: Any) -> None:
    asked = verdict(make)
    pausing = Pausing(platform, "x")
    await pausing.pause(asked, ASKED, "")
    assert await settled(platform, asked.task) is None
    await publish_cancel(platform, asked.task)
    await pausing.pause(asked, ASKED, "")
    assert isinstance(await settled(platform, asked.task), TaskCanceled)


async def test_whoever_waits_is_told_again_of_a_pause_that_stands(platform: Platform, make: Any) -> None:
    heard: list[bytes] = []
    platform.connection.client.subscribe_raw(s.done_replica("gw1"), lambda _s, _r, payload, _h: heard.append(payload))
    asked = verdict(make, reply="gw1")
    for _ in range(2):
        await Pausing(platform, "x").pause(asked, ASKED, "")
    await eventually(lambda: len(heard) == 2)
    assert heard[0] == heard[1]


class Behind(DirectReader):
    """Reads as of a replica that has not seen an event for its first look."""

    def __init__(self, platform: Platform, *unseen: str) -> None:
        super().__init__(platform.connection)
        self._unseen = set(unseen)

    async def last(self, stream: str, subject: str, *, timeout_seconds: float = 5.0) -> Stored | None:
        if subject in self._unseen:
            return None
        return await super().last(stream, subject, timeout_seconds=timeout_seconds)

    async def newest(self, stream: str, subjects: Sequence[str]) -> dict[str, Stored]:
        found = await super().newest(stream, subjects)
        unseen, self._unseen = self._unseen, set[str]()
        return {subject: stored for subject, stored in found.items() if subject not in unseen}


async def test_a_replica_of_the_broker_that_is_behind_hides_no_cancellation(platform: Platform, make: Any) -> None:
    """It knows neither the pause nor the cancellation at first, whichever of them is in hand."""
    first, second = verdict(make, "1"), verdict(make, "2")
    names = [
        (s.cancel(one.task.tenant, one.task.id), s.task_paused(one.task.tenant, one.task.id, "answer"))
        for one in (first, second)
    ]
    await publish_cancel(platform, first.task)
    platform.direct = Behind(platform, *names[0])
    await Pausing(platform, "x").pause(first, ASKED, "")
    assert isinstance(await settled(platform, first.task), TaskCanceled)

    await Pausing(platform, "x").pause(second, ASKED, "")
    await publish_cancel(platform, second.task)
    platform.direct = Behind(platform, *names[1])
    await Inputs(platform).handle([event(platform, cancel_of(second.task), names[1][0])])
    assert isinstance(await settled(platform, second.task), TaskCanceled)
