"""Consensus on a real broker: one settled message a panel, whatever is repeated, killed or broken."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from collegium_bus.direct import Stored
from collegium_bus.letters import LetterBox, LetterFilter
from collegium_bus.wire import header_of
from collegium_consensus.app import build
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import (
    DeadLetter,
    Sampling,
    TaskAccepted,
    TaskCompleted,
    TaskDispatched,
    TaskFailed,
    TaskRef,
    TaskSubmitted,
)
from collegium_runtime.platform import Platform
from collegium_telemetry.tracing import setup
from collegium_testing import eventually
from collegium_testing.otlp import OtlpReceiver

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def settled_of(platform: Platform, task: TaskRef) -> Stored | None:
    return await platform.direct.last(s.EVENTS, s.task_settled(task.tenant, task.id))


async def wait_settled(platform: Platform, task: TaskRef) -> Any:
    return codec.settled.decode((await eventually(lambda: settled_of(platform, task))).payload)


async def test_a_panel_is_settled_once_and_the_waiting_gateway_hears_the_same_bytes(
    platforms: Any, make: Any, end_attempt: Any
) -> None:
    platform = await platforms()
    heard: list[tuple[bytes, bytes | None]] = []
    platform.connection.client.subscribe_raw(
        s.done_replica("gw1"), lambda _subject, _reply, payload, block: heard.append((payload, block))
    )
    app = build(platform)
    await app.start()
    task = make.task(reply="gw1", conversation="c")
    for number, text in ((2, "Paris"), (3, "Rome"), (1, "paris!")):
        await end_attempt(platform, make.answered(number, text, task=task), TRACEPARENT)

    settled = await wait_settled(platform, task)
    assert isinstance(settled, TaskCompleted)
    assert (settled.model, settled.stop_reason) == ("m1", "completed")
    assert settled.turn is not None
    await eventually(lambda: heard)
    stored = await settled_of(platform, task)
    assert stored is not None
    assert [payload for payload, _ in heard] == [stored.payload]
    assert header_of(heard[0][1], s.TRACEPARENT.encode()) == stored.headers[s.TRACEPARENT] == TRACEPARENT
    assert app.readiness() == {"judging": True}
    await app.stop()


async def test_two_replicas_settle_every_panel_once(platforms: Any, make: Any, end_attempt: Any) -> None:
    first, second = await platforms(), await platforms()
    heard: Counter[str] = Counter()
    first.connection.client.subscribe_raw(
        s.done_replica("gw1"), lambda subject, *_: heard.update([subject.decode().rpartition(".")[2]])
    )
    apps = [build(first), build(second)]
    for app in apps:
        await app.start()
    tasks = [make.task(str(number), reply="gw1") for number in range(25)]
    await asyncio.gather(
        *(end_attempt(first, make.answered(number, "yes", task=task)) for task in tasks for number in (1, 2, 3))
    )
    for task in tasks:
        await wait_settled(first, task)
    await eventually(lambda: len(heard) == len(tasks))
    assert set(heard.values()) == {1}
    for app in apps:
        await app.stop()


async def test_a_panel_goes_on_where_a_stopped_replica_left_it(platforms: Any, make: Any, end_attempt: Any) -> None:
    platform = await platforms()
    app = build(platform)
    await app.start()
    task = make.task()
    await end_attempt(platform, make.answered(1, "yes", task=task))
    await end_attempt(platform, make.failed(3, task=task))
    await app.stop()
    assert await settled_of(platform, task) is None
    await end_attempt(platform, make.answered(2, "yes", task=task))
    successor = build(await platforms())
    await successor.start()
    settled = await wait_settled(platform, task)
    assert (settled.stop_reason, len(settled.attempts)) == ("completed", 3)
    await successor.stop()


async def test_what_somebody_else_settled_stays(platforms: Any, make: Any, end_attempt: Any) -> None:
    platform = await platforms()
    heard: list[bytes] = []
    platform.connection.client.subscribe_raw(s.done_replica("gw1"), lambda _s, _r, payload, _h: heard.append(payload))
    task, later = make.task("1", reply="gw1"), make.task("2", reply="gw1")
    await platform.publisher.publish(
        s.task_settled(task.tenant, task.id), b"standing", message_id="other", create_once=True
    )
    for one in (task, later):
        for number in (1, 2, 3):
            await end_attempt(platform, make.answered(number, "yes", task=one))
    app = build(platform)
    await app.start()
    await wait_settled(platform, later)
    await eventually(lambda: heard)
    standing = await settled_of(platform, task)
    assert standing is not None
    assert standing.payload == b"standing"
    assert len(heard) == 1
    await app.stop()


async def test_broken_messages_are_dead_lettered_and_the_next_panel_is_judged(
    platforms: Any, make: Any, end_attempt: Any
) -> None:
    platform = await platforms()
    app = build(platform)
    await app.start()
    wrong = codec.encode(DeadLetter(service="x", subject="x", cause="x", detail="x", payload=b"x", at_ms=1))
    for number, payload in enumerate((b"\xc1garbage", wrong), 1):
        task = make.task(f"bad{number}")
        await platform.publisher.publish(
            s.attempt_ended(task.tenant, task.id, 1), payload, message_id="", headers={s.H_TENANT: task.tenant}
        )
        letter = await eventually(lambda payload=payload: dead_letter(platform, payload))
        assert letter.service == "consensus"
    task = make.task("good")
    unreadable = Envelope("lost-key", b"", b"?")
    for number in (1, 2, 3):
        member = make.answered(number, "yes", task=task)
        await end_attempt(platform, member if number != 2 else type(member)(**{**fields(member), "answer": unreadable}))
    settled = await wait_settled(platform, task)
    assert (settled.stop_reason, settled.model) == ("completed", "m1")
    await app.stop()


async def test_all_members_failed(platforms: Any, make: Any, end_attempt: Any) -> None:
    platform = await platforms()
    app = build(platform)
    await app.start()
    task = make.task()
    for number in (1, 2, 3):
        await end_attempt(platform, make.failed(number, task=task))
    settled = await wait_settled(platform, task)
    assert isinstance(settled, TaskFailed)
    assert settled.error.code == "no_verdict"
    await app.stop()


async def test_a_failed_panel_leaves_the_input_that_it_was_dispatched_with(
    platforms: Any, make: Any, end_attempt: Any
) -> None:
    platform = await platforms()
    app = build(platform)
    await app.start()
    known, unknown = make.task("1"), make.task("2")
    prompt = Envelope("identity", b"", b"[]")
    submitted = TaskSubmitted(task=known, prompt=prompt, sampling=Sampling(), prompt_bytes=2)
    accepted = TaskAccepted(task=known, at_ms=1)
    dispatched = TaskDispatched(task=known, plan="panel", models=["m"], at_ms=1, submitted=submitted)
    # In either order: who is told first, the gateway's acceptance or the router's dispatch, is not said.
    for message in (dispatched, accepted):
        await platform.publisher.publish(
            s.task_changed(known.tenant, known.id), codec.encode(message), message_id=type(message).__name__
        )
    for task in (known, unknown):
        for number in (1, 2, 3):
            await end_attempt(platform, make.failed(number, task=task))

    async def letters() -> list[DeadLetter]:
        page = await LetterBox(platform.connection).page(LetterFilter(cause="task_failed"))
        return [one.content for one in page.letters if one.content is not None] if len(page.letters) == 2 else []

    kept = {letter.known.task_id: letter for letter in await eventually(letters)}
    assert kept[known.id].payload == codec.encode(submitted)
    assert (kept[known.id].known.code, kept[known.id].known.kind) == ("no_verdict", "TaskSubmitted")
    assert kept[unknown.id].known.kind == "AttemptFailed"
    await app.stop()


async def test_a_sampled_verdict_is_a_span_between_the_last_member_and_the_settled_message(
    platforms: Any, make: Any, end_attempt: Any
) -> None:
    with OtlpReceiver() as receiver:
        tracing = setup("consensus", otlp_endpoint=receiver.endpoint, sample_ratio=1.0)
        await check_span(await platforms(tracing), receiver, make, end_attempt)
        await tracing.aclose()


async def check_span(platform: Platform, receiver: OtlpReceiver, make: Any, end_attempt: Any) -> None:
    app = build(platform)
    await app.start()
    sampled, unsampled = make.task("1"), make.task("2")
    for task, traceparent in ((unsampled, TRACEPARENT[:-2] + "00"), (sampled, TRACEPARENT)):
        for number in (1, 2, 3):
            await end_attempt(platform, make.answered(number, "yes", task=task), traceparent)
    await wait_settled(platform, unsampled)
    await wait_settled(platform, sampled)
    stored = await settled_of(platform, sampled)
    assert stored is not None
    await app.stop()
    assert platform.tracing.flush()
    (span,) = receiver.spans
    assert (span.name, span.kind, span.parent_span_id) == ("consensus decide", "consumer", TRACEPARENT.split("-")[2])
    assert span.attributes["messaging.destination.name"] == "attempt.<tenant>.<task>.<n>.ended"
    assert stored.headers[s.TRACEPARENT] == f"00-{span.trace_id}-{span.span_id}-01"


async def dead_letter(platform: Platform, payload: bytes) -> DeadLetter | None:
    stored = await platform.direct.last(s.DEAD, s.DEAD_ALL)
    letter = codec.journey.decode(stored.payload) if stored is not None else None
    return letter if isinstance(letter, DeadLetter) and letter.payload == payload else None


def fields(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__struct_fields__}
