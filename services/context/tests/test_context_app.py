"""Context on a real broker and a real database: conversations read their own writes, and every turn stands once."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_bus.ask import ask
from collegium_bus.connection import Connection
from collegium_bus.errors import RequestRefusedError
from collegium_context.app import build
from collegium_context.freshness import ConsumerInfo, Freshness
from collegium_context.handlers import HISTORY_BYTES_MAX
from collegium_contracts import codec, consumers
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import DeadLetter, TaskCanceled
from collegium_contracts.money import Usage
from collegium_contracts.requests import TurnsReply, TurnsRequest
from collegium_runtime.platform import Platform
from collegium_telemetry.tracing import setup
from collegium_testing import eventually
from collegium_testing.otlp import OtlpReceiver

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def turns(
    connection: Connection, conversation: str = "c1", *, tenant: str = "acme", traceparent: str = "", **fields: Any
) -> TurnsReply:
    question = TurnsRequest(tenant=tenant, conversation=conversation, **fields)
    return await ask(connection, s.SVC_CONTEXT_TURNS, question, TurnsReply, traceparent=traceparent)


def texts(reply: TurnsReply) -> list[str]:
    if reply.history is None:
        return []
    messages = msgspec.json.decode(reply.history.body)
    assert (len(messages), len(reply.history.body)) == (reply.messages, reply.history_bytes)
    return [message["content"] for message in messages]


async def test_a_conversation_reads_its_own_writes_at_once(platforms: Any, make: Any, settle_task: Any) -> None:
    platform = await platforms()
    app = build(platform)
    await app.start()
    assert await turns(platform.connection) == TurnsReply(history=None, messages=0)
    expected: list[str] = []
    for number in range(20):
        await settle_task(platform, make.completed(make.task(str(number)), f"q{number}", f"a{number}"))
        expected += [f"q{number}", f"a{number}"]
        assert texts(await turns(platform.connection)) == expected
    assert texts(await turns(platform.connection, max_messages=3)) == expected[-2:]
    assert texts(await turns(platform.connection, max_messages=4)) == expected[-4:]
    assert app.readiness() == {"folding": True, "answering": True, "vectors": True}
    await app.stop()


async def test_two_replicas_answer_for_each_others_folds(platforms: Any, make: Any, settle_task: Any) -> None:
    first, second = await platforms(), await platforms()
    apps = [build(first), build(second)]
    for app in apps:
        await app.start()

    async def converse(name: str) -> None:
        expected: list[str] = []
        for number in range(8):
            task = make.task(f"{name}x{number}", conversation=name, tenant=f"tenant-{name}")
            await settle_task(first, make.completed(task, f"q{number}", f"a{number}"))
            expected += [f"q{number}", f"a{number}"]
            assert texts(await turns(second.connection, name, tenant=task.tenant)) == expected

    await asyncio.gather(*(converse(name) for name in "abcd"))
    for app in apps:
        await app.stop()


async def test_tenants_and_conversations_do_not_see_each_other(platforms: Any, make: Any, settle_task: Any) -> None:
    platform = await platforms()
    app = build(platform)
    await app.start()
    for name, tenant, conversation in (("1", "acme", "c1"), ("2", "acme", "c2"), ("3", "other", "c1")):
        task = make.task(name, tenant=tenant, conversation=conversation)
        await settle_task(platform, make.completed(task, f"{tenant}/{conversation}", "ok"))
    for tenant, conversation in (("acme", "c1"), ("acme", "c2"), ("other", "c1")):
        reply = await turns(platform.connection, conversation, tenant=tenant)
        assert texts(reply) == [f"{tenant}/{conversation}", "ok"]
    await app.stop()


async def test_only_completed_tasks_of_conversations_leave_a_turn_and_each_one_once(
    platforms: Any, make: Any, settle_task: Any, database_url: str
) -> None:
    platform = await platforms()
    alone, ended, kept = make.task("1", conversation=""), make.task("2"), make.task("3")
    await settle_task(platform, make.completed(alone, "q", "a"))
    await settle_task(
        platform,
        TaskCanceled(
            task=ended, plan="single", stop_reason="canceled", usage=Usage(), attempts=[], settled_at_ms=make.now_ms
        ),
    )
    await settle_task(platform, make.completed(kept, "q", "a"))
    # The same task under another sequence, as after a broker that was restored from a copy.
    await platform.publisher.publish(
        s.task_settled("acme", "again"), codec.encode(make.completed(kept, "q2", "a2")), message_id="again"
    )
    app = build(platform)
    await app.start()
    assert texts(await turns(platform.connection)) == ["q", "a"]
    await app.stop()
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT task_id, messages, key_id FROM context.turns")
    await connection.close()
    assert [tuple(row) for row in rows] == [(kept.id, 2, "identity")]


async def test_content_that_cannot_be_read_is_dead_lettered_and_the_rest_is_folded(
    platforms: Any, make: Any, settle_task: Any
) -> None:
    platform = await platforms()
    app = build(platform)
    await app.start()
    for number, turn in enumerate((Envelope("lost-key", b"", b"?"), Envelope("identity", b"", b"{no json"))):
        await settle_task(platform, make.completed(make.task(f"bad{number}"), "q", "a", turn=turn))
    await platform.publisher.publish(s.task_settled("acme", "garbage"), b"\xc1", message_id="garbage")
    await settle_task(platform, make.completed(make.task("good"), "q", "a"))
    assert texts(await turns(platform.connection)) == ["q", "a"]
    causes = {await dead_letter_cause(platform, sequence) for sequence in (1, 2, 3)}
    assert causes == {"unknown_envelope_key", "unreadable_content", "undecodable_message"}
    await app.stop()


async def test_a_large_conversation_gives_what_fits_and_a_last_turn_too_large_is_refused(
    platforms: Any, make: Any, settle_task: Any
) -> None:
    platform = await platforms()
    app = build(platform)
    await app.start()
    third = "x" * (HISTORY_BYTES_MAX // 3)
    for number in range(4):
        await settle_task(platform, make.completed(make.task(str(number)), f"q{number}", third))
    assert texts(await turns(platform.connection)) == ["q2", third, "q3", third]
    await settle_task(platform, make.completed(make.task("large"), "q", 3 * third))
    with pytest.raises(RequestRefusedError) as refused:
        await turns(platform.connection)
    assert refused.value.code == "context_length_exceeded"
    await app.stop()


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"tenant": "*"}, "tenant"), ({"conversation": "a b"}, "conversation"), ({"max_messages": 0}, "max_messages")],
)
async def test_a_question_at_fault_is_refused(platforms: Any, fields: dict[str, Any], param: str) -> None:
    platform = await platforms()
    app = build(platform)
    await app.start()
    with pytest.raises(RequestRefusedError) as refused:
        await turns(platform.connection, **({"conversation": "c1"} | fields))
    assert (refused.value.code, refused.value.param) == ("invalid_value", param)
    await app.stop()


async def test_turns_not_folded_in_time_are_refused(platforms: Any, make: Any, settle_task: Any) -> None:
    platform = await platforms()
    await settle_task(platform, make.completed(make.task("1"), "q", "a"))
    consumer = consumers.consumer("turns")
    freshness = Freshness(platform.connection, platform.direct, consumer, lambda: None, wait_seconds=0.1)
    await freshness.wait("another-tenant")
    with pytest.raises(RequestRefusedError) as refused:
        await freshness.wait("acme")
    assert refused.value.code == "context_unavailable"


async def test_a_database_that_is_away_is_told_and_turns_come_back_with_it(
    platforms: Any, make: Any, settle_task: Any, database_url: str
) -> None:
    platform = await platforms()
    app = build(platform)
    await app.start()
    await settle_task(platform, make.completed(make.task("1"), "q", "a"))
    assert texts(await turns(platform.connection)) == ["q", "a"]
    connection = await asyncpg.connect(database_url)
    await connection.execute("ALTER TABLE context.turns RENAME TO hidden")
    await settle_task(platform, make.completed(make.task("2"), "q2", "a2"))
    with pytest.raises(RequestRefusedError):
        await turns(platform.connection)
    await connection.execute("ALTER TABLE context.hidden RENAME TO turns")
    await connection.close()

    async def whole() -> bool:
        try:
            return texts(await turns(platform.connection)) == ["q", "a", "q2", "a2"]
        except RequestRefusedError:
            return False

    await eventually(whole)
    await app.stop()


async def test_sampled_hops_and_questions_are_spans(platforms: Any, make: Any, settle_task: Any) -> None:
    with OtlpReceiver() as receiver:
        tracing = setup("context", otlp_endpoint=receiver.endpoint, sample_ratio=1.0)
        platform = await platforms(tracing)
        app = build(platform)
        await app.start()
        for name, flag in (("1", "01"), ("2", "00")):
            await settle_task(platform, make.completed(make.task(name), "q", "a"), TRACEPARENT[:-2] + flag)
        await turns(platform.connection, traceparent=TRACEPARENT)
        await turns(platform.connection)
        await app.stop()
        assert tracing.flush()
        found = sorted((span.name, span.attributes["messaging.destination.name"]) for span in receiver.spans)
        assert {span.parent_span_id for span in receiver.spans} == {TRACEPARENT.split("-")[2]}
        await tracing.aclose()
    assert found == [
        ("context fold turn", "task.settled.<tenant>.<task>"),
        ("context turns", "svc.context.turns"),
    ]


@pytest.mark.parametrize(
    ("floor", "delivered", "unacknowledged", "folded"),
    [(7, 7, 0, True), (8, 9, 1, True), (6, 7, 1, False), (6, 6, 0, False), (3, 9, 0, True), (0, 0, 0, False)],
)
def test_folded_is_what_is_acknowledged(floor: int, delivered: int, unacknowledged: int, folded: bool) -> None:
    info = msgspec.convert(
        {
            "ack_floor": {"stream_seq": floor},
            "delivered": {"stream_seq": delivered},
            "num_ack_pending": unacknowledged,
        },
        ConsumerInfo,
    )
    assert info.has_folded(7) is folded


async def dead_letter_cause(platform: Platform, sequence: int) -> str:
    body = msgspec.json.encode({"seq": sequence})
    payload, _ = await platform.connection.request_raw(f"$JS.API.DIRECT.GET.{s.DEAD}", body)
    letter = codec.journey.decode(payload)
    assert isinstance(letter, DeadLetter)
    return letter.cause
