"""Dead letters: what they say, that failed tasks leave one and never more than their share, reading and removing."""

from __future__ import annotations

import msgspec
import pytest
from collegium_bus import dead
from collegium_bus.dead import DeadLetters, Original, describe
from collegium_bus.events import EventLoop
from collegium_bus.letters import LetterBox, LetterFilter
from collegium_bus.settle import settle, standing_failure
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.consumers import consumer
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import CancelRequested, TaskCanceled, TaskFailed, TaskRef
from collegium_contracts.money import Usage
from collegium_testing import eventually

TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def failed(number: int = 1, tenant: str = "acme", **fields) -> TaskFailed:
    task = TaskRef(id=ids.task_id(number, bytes(10)), tenant=tenant, created_at_ms=1, deadline_ms=9, model="m")
    values = {"task": task, "plan": "single", "usage": Usage(), "attempts": [], "settled_at_ms": 5}
    error = TaskError(code="upstream_error", message="the endpoint answered 500")
    return TaskFailed(**values, stop_reason="failed", error=error, **fields)


def original(payload: bytes = b"odd", subject: str = "work.general.low", **fields) -> Original:
    return Original(subject, payload, {s.H_TENANT: "acme", s.TRACEPARENT: TRACE}, **fields)


async def all_letters(bus, **wanted):
    return (await LetterBox(bus.connection).page(LetterFilter(**wanted))).letters


async def test_a_letter_tells_its_task_attempt_trace_and_consumer(bus):
    task = failed().task
    payload = msgspec.msgpack.encode({"type": "Later", "v": 9, "task": {"id": task.id}, "attempt": {"number": 3}})
    where = original(payload, stream=s.WORK, sequence=7, delivered=2, consumer="pool-general")
    assert await bus.dead_letters.bury(where, "unknown_version", "too new")
    (letter,) = await all_letters(bus)
    content = letter.content
    assert (letter.service, letter.tenant) == ("worker-pool", "acme")
    known = content.known
    assert (known.kind, known.task_id, known.attempt) == ("Later", task.id, 3)
    assert (known.consumer, content.delivery, known.traceparent) == ("pool-general", 2, TRACE)
    assert content.payload == payload


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"\x91" * 50_000, msgspec.msgpack.encode({"task": 3}), msgspec.msgpack.encode([1])]
)
def test_what_cannot_be_read_says_nothing_but_its_subject(payload):
    assert describe("work.general.low", payload) == ("", "", 0)
    task = failed().task
    assert describe(s.attempt_ended("acme", task.id, 2), payload) == ("", task.id, 2)


def test_ids_that_are_no_ids_are_left_out():
    odd = msgspec.msgpack.encode({"type": "x" * 500, "task_id": "*.>", "attempt": {"number": -4}})
    assert describe("x", odd) == ("x" * 64, "", 0)


async def test_a_failed_task_leaves_one_letter_however_often_it_is_kept(bus):
    for _ in range(3):
        assert await bus.dead_letters.keep_failed(failed(), original(b"input"))
    (letter,) = await all_letters(bus, tenant="acme", cause="task_failed")
    assert (letter.content.known.code, letter.content.payload) == ("upstream_error", b"input")
    assert letter.content.known.task_id == failed().task.id


async def test_failed_tasks_leave_room_for_what_could_not_be_handled(bus, monkeypatch):
    monkeypatch.setattr(dead, "FAILED_SHARE", 0.0)
    letters = DeadLetters(bus.publisher, "worker-pool")
    assert not await letters.keep_failed(failed(), original())
    assert await letters.bury(original(), "undecodable_message", "odd")
    assert (letters.kept, letters.lost, letters.buried) == (0, 1, 1)


async def test_without_a_place_for_letters_keeping_fails_and_raises_nothing(bus):
    await bus.connection.api(f"STREAM.DELETE.{s.DEAD}")
    assert not await bus.dead_letters.keep_failed(failed(), original())
    assert bus.dead_letters.lost == 1


async def test_a_page_goes_on_where_the_last_one_ended(bus):
    for number in range(5):
        await bus.dead_letters.keep_failed(failed(number, tenant=f"t{number % 2}"), original(b"%d" % number))
    box = LetterBox(bus.connection)
    seen, after = [], 0
    while after is not None:
        page = await box.page(LetterFilter(), after=after, limit=2)
        seen += [letter.content.payload for letter in page.letters]
        after = page.next_after
    assert seen == [b"0", b"1", b"2", b"3", b"4"]
    assert [one.content.payload for one in await all_letters(bus, tenant="t1")] == [b"1", b"3"]
    assert await all_letters(bus, service="billing") == await all_letters(bus, tenant="t") == []
    task = failed(2).task.id
    assert [one.content.payload for one in await all_letters(bus, task=task)] == [b"2"]
    newest = (await all_letters(bus))[-1].content.at_ms
    assert [one.content.payload for one in await all_letters(bus, since_ms=newest)][-1] == b"4"
    assert await all_letters(bus, since_ms=newest + 1) == []
    assert await all_letters(bus, since_ms=253_402_387_139_000) == [], "a time after the year 9999"


async def test_a_letter_that_cannot_be_read_hides_no_other(bus):
    await bus.publisher.publish(s.dead("billing", ""), b"\xff", message_id="odd")
    await bus.publisher.publish(
        s.dead("billing", ""), b"", message_id="gone", headers={s.H_CLAIM: f"{'0' * 32}:1:{'0' * 64}"}
    )
    await bus.dead_letters.bury(original(), "undecodable_message", "odd")
    letters = await all_letters(bus)
    assert [bool(letter.unreadable) for letter in letters] == [True, True, False]
    assert letters[0].tenant == ""


async def test_a_removed_letter_is_gone_and_was_there(bus):
    await bus.dead_letters.bury(original(), "undecodable_message", "odd")
    box = LetterBox(bus.connection)
    assert await box.remove(1)
    assert not await box.remove(1)
    assert not await box.remove(99)
    assert await box.get(1) is None
    assert (await box.ever_stood(1), await box.ever_stood(2)) == (True, False)


async def test_what_is_sent_again_reaches_one_consumer_and_reads_as_the_first_time(bus):
    seen: dict[str, list] = {"billing": [], "read-model": [], "turns": []}
    loops = []
    for durable, events in seen.items():

        async def handle(batch, events=events) -> None:
            events += [(event.subject, event.message) for event in batch]

        loop = EventLoop(bus.connection, consumer(durable), codec.journey, handle, bus.dead_letters)
        loop.start()
        loops.append(loop)
    task = failed().task
    message = CancelRequested(task_id=task.id, tenant="acme", at_ms=1)
    subject = s.task_settled("acme", task.id)
    await bus.publisher.publish(s.again("read-model", 4, subject), codec.encode(message), message_id="again")
    await bus.publisher.publish(subject, codec.encode(message), message_id="to-all")
    await eventually(lambda: len(seen["read-model"]) == 2 and seen["billing"] and seen["turns"])
    assert seen["read-model"] == [(subject, message)] * 2
    assert seen["billing"] == seen["turns"] == [(subject, message)]
    for loop in loops:
        await loop.stop()


async def test_only_a_task_that_stands_as_failed_has_a_standing_failure(bus):
    settled = failed(1)
    canceled = TaskCanceled(
        task=failed(2).task, plan="single", stop_reason="canceled", usage=Usage(), attempts=[], settled_at_ms=5
    )
    for message in (settled, canceled):
        assert await settle(bus.publisher, message, settler="test", traceparent="")
    assert await standing_failure(bus.direct, settled.task) == settled
    assert await standing_failure(bus.direct, canceled.task) is None
    assert await standing_failure(bus.direct, failed(3).task) is None
