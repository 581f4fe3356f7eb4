"""What a publish promises: stored or refused, once, whatever the size."""

from __future__ import annotations

import hashlib
import time

import msgspec
import pytest
from collegium_bus import publisher
from collegium_bus.claims import ClaimStore
from collegium_bus.connection import connect
from collegium_bus.errors import AlreadyStandsError, BrokerUnavailableError, NoAnswerError, QueueFullError
from collegium_bus.settle import settle
from collegium_bus.wire import decode_headers, encode_headers, header_of
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import UndecodableMessageError
from collegium_contracts.messages import TaskCompleted, TaskRef
from collegium_contracts.money import Usage
from collegium_testing import eventually

TASK = "tsk_" + "1" * 26


async def test_a_message_is_stored_where_it_says(bus):
    ack = await bus.publisher.publish(s.task_changed("acme", TASK), b"x", message_id="a", headers={"k": "v"})
    stored = await bus.direct.last(s.EVENTS, s.task_changed("acme", TASK))
    assert (ack.stream, stored.sequence, stored.payload, stored.headers["k"]) == (s.EVENTS, ack.sequence, b"x", "v")


async def test_the_same_id_is_stored_once(bus):
    first = await bus.publisher.publish(s.work("general", "low"), b"x", message_id="same")
    second = await bus.publisher.publish(s.work("general", "low"), b"x", message_id="same")
    assert (second.sequence, second.duplicate) == (first.sequence, True)


async def test_create_once_refuses_the_second(bus):
    subject = s.task_settled("acme", TASK)
    await bus.publisher.publish(subject, b"first", message_id="a", create_once=True)
    with pytest.raises(AlreadyStandsError):
        await bus.publisher.publish(subject, b"second", message_id="b", create_once=True)
    assert (await bus.direct.last(s.EVENTS, subject)).payload == b"first"


async def test_a_retry_knows_its_own_first_try(bus, monkeypatch):
    """The acknowledgement of the first try is lost; the retry must not take itself for a rival."""
    subject = s.task_settled("acme", TASK)
    ask = bus.connection.request_raw
    lost = 0

    async def losing(to, payload, **more):
        nonlocal lost
        reply = await ask(to, payload, **more)
        if to == subject and not lost:
            lost = 1
            raise NoAnswerError("the acknowledgement was lost")
        return reply

    monkeypatch.setattr(bus.connection, "request_raw", losing)
    ack = await bus.publisher.publish(subject, b"mine", message_id="mine", create_once=True)
    assert (lost, ack.duplicate) == (1, True)
    lost = 0
    with pytest.raises(AlreadyStandsError):
        await bus.publisher.publish(subject, b"rival", message_id="rival", create_once=True)


async def test_a_full_subject_is_told_as_full(bus):
    config = msgspec.json.decode(await bus.connection.api(f"STREAM.INFO.{s.WORK}"))["config"]
    config["max_msgs_per_subject"] = 2
    await bus.connection.api(f"STREAM.UPDATE.{s.WORK}", msgspec.json.encode(config))
    for number in range(2):
        await bus.publisher.publish(s.work("general", "low"), b"x", message_id=f"n{number}")
    with pytest.raises(QueueFullError):
        await bus.publisher.publish(s.work("general", "low"), b"x", message_id="n2")
    await bus.publisher.publish(s.work("general", "high"), b"x", message_id="other subjects are unaffected")


async def test_a_broker_that_does_not_store_is_told_within_the_budget(bus, monkeypatch):
    monkeypatch.setattr(publisher, "TRY_SECONDS", 0.1)
    with pytest.raises(BrokerUnavailableError, match="not stored within"):
        await bus.publisher.publish("nobody.listens.here", b"x", message_id="a", budget_seconds=0.4)


async def test_a_large_payload_goes_by_claim_check_and_comes_back_whole(bus):
    payload = bytes(range(256)) * 2_000
    await bus.publisher.publish(s.task_changed("acme", TASK), payload, message_id="a")
    stored = await bus.direct.last(s.EVENTS, s.task_changed("acme", TASK))
    assert stored.payload == payload
    assert s.H_CLAIM in stored.headers
    assert len(payload) > publisher.CLAIM_CHECK_BYTES


async def test_a_claim_on_other_bytes_or_on_nothing_is_undecodable(bus):
    store = ClaimStore(bus.connection)
    claim = await store.put(b"x" * 10)
    name = claim.partition(":")[0]
    for wrong in (f"{name}:10:{hashlib.sha256(b'y').hexdigest()}", f"{name}:9:{claim.rpartition(':')[2]}"):
        with pytest.raises(UndecodableMessageError, match="other bytes"):
            await store.get(wrong)
    with pytest.raises(UndecodableMessageError, match="gone"):
        await store.get(f"{'0' * 32}:1:{'0' * 64}")


async def test_settling_twice_settles_once_and_notifies_after_storing(bus):
    heard: list[bytes] = []
    bus.connection.client.subscribe_raw(s.done_replica("gw1"), lambda _s, _r, payload, _h: heard.append(payload))
    await bus.connection.flush()
    task = TaskRef(id=TASK, tenant="acme", created_at_ms=1, deadline_ms=2, model="sim", reply="gw1")
    settled = TaskCompleted(
        task=task,
        plan="single",
        stop_reason="completed",
        usage=Usage(),
        attempts=[],
        settled_at_ms=3,
        output=Envelope("identity", b"", b"{}"),
    )
    assert await settle(bus.publisher, settled, settler="1.1", traceparent="")
    assert not await settle(bus.publisher, settled, settler="1.2", traceparent="")
    await eventually(lambda: len(heard) == 1)
    await bus.connection.flush()
    assert [codec.settled.decode(payload) for payload in heard] == [settled]


async def test_a_question_that_nobody_hears_is_told_at_once(bus):
    with pytest.raises(NoAnswerError, match="nobody is listening"):
        await bus.connection.request_raw("svc.nobody", b"", timeout_seconds=30)


async def test_a_question_that_is_not_answered_ends_in_time(bus):
    bus.connection.client.subscribe_raw("svc.silent", lambda *_: None)
    with pytest.raises(NoAnswerError, match="in time"):
        await bus.connection.request_raw("svc.silent", b"", timeout_seconds=0.1)


def test_headers_read_back_and_cannot_be_injected():
    block = encode_headers({"a": "1", "b": "x\r\nInjected: yes", "empty": ""})
    assert decode_headers(block) == {"a": "1", "b": "x  Injected: yes"}
    assert header_of(block, b"b") == "x  Injected: yes"
    assert header_of(block, b"Injected") == ""
    assert header_of(None, b"a") == ""
    assert decode_headers(b"NATS/1.0 404 No Messages\r\n\r\n") == {"Status": "404", "Description": "No Messages"}


async def test_a_first_connection_that_fails_is_an_error_and_no_lost_connection(unused_tcp_port):
    lost: list[bool] = []

    async def on_closed() -> None:
        lost.append(True)

    with pytest.raises(BrokerUnavailableError, match="cannot connect"):
        await connect(f"nats://127.0.0.1:{unused_tcp_port}", "billing", on_closed=on_closed)
    assert lost == []


async def test_a_process_that_stood_still_tries_again_before_it_gives_up(bus, monkeypatch):
    """Stopped with a publish on its way, and continued long after its budget: what became of it must be found out."""
    ask = bus.connection.request_raw

    async def stopped_meanwhile(*arguments, **more):
        monkeypatch.setattr(bus.connection, "request_raw", ask)
        time.sleep(0.2 + publisher.STANDSTILL_SECONDS)  # noqa: ASYNC251 - the whole process stands still
        raise NoAnswerError("no reply in time")

    monkeypatch.setattr(publisher, "TRY_SECONDS", 0.1)
    monkeypatch.setattr(bus.connection, "request_raw", stopped_meanwhile)
    subject = s.task_settled("acme", TASK)
    ack = await bus.publisher.publish(subject, b"x", message_id="a", create_once=True, budget_seconds=2)
    assert (ack.stream, (await bus.direct.last(s.EVENTS, subject)).payload) == (s.EVENTS, b"x")
