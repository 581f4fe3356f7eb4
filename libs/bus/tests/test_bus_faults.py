"""What is odd, broken or hostile costs its own message and nothing else."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from collegium_bus.claims import ClaimStore
from collegium_bus.delivery import Delivery
from collegium_bus.errors import BrokerUnavailableError, NoAnswerError, RefusedError
from collegium_bus.events import EventLoop
from collegium_bus.ingress import IngressShard
from collegium_bus.ordered import OrderedReader
from collegium_bus.pull import PullRequests
from collegium_bus.wire import publish_command
from collegium_bus.work import WorkLoop
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.consumers import consumer, work_consumer
from collegium_contracts.errors import UndecodableMessageError
from collegium_contracts.messages import CancelRequested
from collegium_testing import eventually

WORK = s.work("general", "normal")


async def in_stream(bus, stream: str) -> int:
    return msgspec.json.decode(await bus.connection.api(f"STREAM.INFO.{stream}"))["state"]["messages"]


@pytest.mark.parametrize(
    ("sequence", "tenant"), list(enumerate(["a b", "a.b", "*", ">", "Upper", "x" * 41, "a\tb"], 7))
)
async def test_a_letter_reaches_its_subject_whatever_the_tenant_header_says(bus, sequence, tenant):
    # A sequence each: a repeated letter of the test before may arrive after its stream was made anew.
    block = f"NATS/1.0\r\n{s.H_TENANT}: {tenant}\r\n\r\n".encode()
    about = f"$JS.ACK.EVENTS.billing.1.{sequence}.1.1.0".encode()
    odd = Delivery(bus.connection, b"task.settled.x.y", about, b"\xff", block)
    assert await bus.dead_letters.bury(odd, "undecodable_message", "odd")
    stored = await bus.direct.last(s.DEAD, s.DEAD_ALL)
    assert stored.subject == s.dead("worker-pool", "")
    letter = codec.journey.decode(stored.payload)
    assert (letter.payload, letter.headers[s.H_TENANT]) == (b"\xff", tenant.strip())


async def test_a_letter_goes_to_its_tenant_once(bus):
    block = f"NATS/1.0\r\n{s.H_TENANT}: acme\r\n\r\n".encode()
    original = Delivery(bus.connection, b"task.settled.x.y", b"$JS.ACK.EVENTS.billing.1.7.1.1.0", b"\xff", block)
    for _ in range(2):
        assert await bus.dead_letters.bury(original, "undecodable_message", "odd")
    assert (await bus.direct.last(s.DEAD, s.DEAD_ALL)).subject == s.dead("worker-pool", "acme")
    assert await in_stream(bus, s.DEAD) == 1


@pytest.mark.parametrize("claim", ["", "x", "::", "a b:1:x", "../x:0:", "*:1:00", "x" * 32 + ":1:00", "é:1:00"])
async def test_what_is_no_claim_is_undecodable(bus, claim):
    with pytest.raises(UndecodableMessageError):
        await ClaimStore(bus.connection).get(claim)


async def test_a_claimed_object_whose_bytes_were_changed_is_undecodable(bus):
    store = ClaimStore(bus.connection)
    claim = await store.put(b"x" * 300_000)
    chunks = f"$O.{s.CLAIMS_BUCKET}.C.>"
    subject = (await bus.direct.last(f"OBJ_{s.CLAIMS_BUCKET}", chunks)).subject
    body = msgspec.json.encode({"filter": chunks})
    await bus.connection.api(f"STREAM.PURGE.OBJ_{s.CLAIMS_BUCKET}", body)
    await bus.publisher.publish(subject, b"y" * 200_000, message_id="forged")
    with pytest.raises(UndecodableMessageError, match="other bytes"):
        await store.get(claim)


async def test_an_object_that_does_not_come_is_told_in_time(bus, monkeypatch):
    monkeypatch.setattr("collegium_bus.claims.REDEEM_SECONDS", 0.3)
    store = ClaimStore(bus.connection)
    claim = await store.put(b"x" * 300_000)
    body = msgspec.json.encode({"filter": f"$O.{s.CLAIMS_BUCKET}.C.>"})
    await bus.connection.api(f"STREAM.PURGE.OBJ_{s.CLAIMS_BUCKET}", body)
    async with asyncio.timeout(30):
        with pytest.raises(BrokerUnavailableError, match="cannot be redeemed now"):
            await store.get(claim)


async def test_events_with_claims_on_nothing_are_buried_and_the_rest_goes_on(bus):
    handled: list[int] = []

    async def handle(batch) -> None:
        handled.extend(event.message.at_ms for event in batch)

    loop = EventLoop(bus.connection, consumer("billing"), codec.journey, handle, bus.dead_letters)
    loop.start()
    for number, claim in enumerate(["nonsense", f"{'0' * 32}:1:{'0' * 64}"]):
        await bus.publisher.publish(
            s.task_settled("acme", f"t{number}"), b"", message_id=f"c{number}", headers={s.H_CLAIM: claim}
        )
    good = CancelRequested(task_id="t", tenant="acme", at_ms=5)
    await bus.publisher.publish(s.cancel("acme", "t"), codec.encode(good), message_id="good")
    await eventually(lambda: handled == [5])
    await loop.stop()
    assert await in_stream(bus, s.DEAD) == 2


async def test_a_large_publish_is_tried_again_like_a_small_one(bus, monkeypatch):
    put = ClaimStore.put
    failed = 0

    async def failing(store, payload):
        nonlocal failed
        if failed < 2:
            failed += 1
            raise BrokerUnavailableError("no leader now")
        return await put(store, payload)

    monkeypatch.setattr(ClaimStore, "put", failing)
    await bus.publisher.publish(s.task_settled("acme", "t"), b"x" * 300_000, message_id="a")
    assert (await bus.direct.last(s.EVENTS, s.task_settled("acme", "t"))).payload == b"x" * 300_000


async def test_a_subject_without_a_stream_is_no_success(bus):
    with pytest.raises((RefusedError, BrokerUnavailableError)):
        await bus.publisher.publish("nobody.keeps.this", b"x", message_id="a", budget_seconds=0.3)


async def test_whoever_waits_when_the_connection_closes_is_told(bus):
    bus.connection.client.subscribe_raw("svc.silent", lambda *_: None)
    waiting = asyncio.create_task(bus.connection.request_raw("svc.silent", b"", timeout_seconds=60))
    await bus.connection.flush()
    await bus.connection.close()
    async with asyncio.timeout(30):
        with pytest.raises(NoAnswerError, match="closed"):
            await waiting
    with pytest.raises(BrokerUnavailableError):
        bus.connection.publish("svc.silent", b"")


async def test_a_slot_outlives_a_give_up_that_fails(bus):
    declared = msgspec.structs.replace(work_consumer("general"), max_deliver=1)
    handled: list[bytes] = []

    async def handle(delivery) -> None:
        if delivery.payload == b"bad":
            raise ValueError("broken")
        handled.append(delivery.payload)
        delivery.ack()

    async def give_up(_delivery, _error) -> None:
        raise RuntimeError("broken too")

    loop = WorkLoop(bus.connection, declared, handle, bus.dead_letters, slots=1, give_up=give_up)
    loop.start()
    await bus.publisher.publish(WORK, b"bad", message_id="bad")
    await bus.publisher.publish(WORK, b"good", message_id="good")
    await eventually(lambda: handled == [b"good"])

    async def empty() -> bool:
        return await in_stream(bus, s.WORK) == 0

    await eventually(empty)
    assert await in_stream(bus, s.DEAD) == 1
    await loop.drain(timeout_seconds=1)


async def test_the_last_delivery_is_kept_until_its_dead_letter_stands(bus, monkeypatch):
    """Given back instead, it would stay in the queue and never be delivered again."""
    declared = msgspec.structs.replace(work_consumer("general"), max_deliver=1)
    bury, tries = bus.dead_letters.bury, 0

    async def failing(*arguments) -> bool:
        nonlocal tries
        tries += 1
        return tries > 1 and await bury(*arguments)

    monkeypatch.setattr(bus.dead_letters, "bury", failing)

    async def broken(_delivery) -> None:
        raise ValueError("broken")

    loop = WorkLoop(bus.connection, declared, broken, bus.dead_letters, slots=1)
    loop.start()
    await bus.publisher.publish(WORK, b"bad", message_id="bad")

    async def buried() -> bool:
        return (await in_stream(bus, s.WORK), await in_stream(bus, s.DEAD)) == (0, 1)

    await eventually(buried)
    assert tries == 2
    await loop.drain(timeout_seconds=1)


async def test_a_purge_that_the_broker_refuses_is_tried_again(bus, monkeypatch):
    subject = s.task_submitted("normal", 3, "acme")
    await bus.publisher.publish(subject, b"x", message_id="t")
    ask, refused = bus.connection.api, 0

    async def refusing(to, body=b"", **more):
        nonlocal refused
        if to.startswith("STREAM.PURGE") and not refused:
            refused = 1
            return b'{"error":{"code":503,"err_code":10008,"description":"system temporarily unavailable"}}'
        return await ask(to, body, **more)

    monkeypatch.setattr(bus.connection, "api", refusing)
    shard = IngressShard(bus.connection, 3, lambda one: shard.finish(one.subject, one.sequence))
    shard.start()

    async def gone() -> bool:
        return await in_stream(bus, s.INGRESS) == 0

    await eventually(gone)
    assert refused == 1
    await shard.stop()


async def test_a_reader_is_caught_up_although_what_stood_was_removed_meanwhile(bus, monkeypatch):
    """The number of messages at the start counts what another owner purges before it is read."""
    subject = s.task_submitted("normal", 3, "acme")
    for number in range(3):
        await bus.publisher.publish(subject, b"%d" % number, message_id=f"t{number}")
    ask = bus.connection.api

    async def purging(to, body=b"", **more):
        reply = await ask(to, body, **more)
        if to.startswith("CONSUMER.CREATE"):
            purge = msgspec.json.encode({"filter": subject, "seq": 3})
            await ask(f"STREAM.PURGE.{s.INGRESS}", purge)
        return reply

    monkeypatch.setattr(bus.connection, "api", purging)
    seen: list[bytes] = []
    reader = OrderedReader(bus.connection, s.INGRESS, [subject], lambda one: seen.append(one.payload))
    reader.start()
    async with asyncio.timeout(30):
        await reader.caught_up.wait()
    assert seen == [b"2"]
    await reader.stop()


async def test_a_reader_of_a_stream_that_was_emptied_meanwhile_is_caught_up(bus, monkeypatch):
    subject = s.task_submitted("normal", 3, "acme")
    await bus.publisher.publish(subject, b"x", message_id="t")
    ask = bus.connection.api

    async def purging(to, body=b"", **more):
        reply = await ask(to, body, **more)
        if to.startswith("CONSUMER.CREATE"):
            await ask(f"STREAM.PURGE.{s.INGRESS}", b"{}")
        return reply

    monkeypatch.setattr(bus.connection, "api", purging)
    monkeypatch.setattr("collegium_bus.pull.HEARTBEAT_SECONDS", 0.5)
    seen: list[bytes] = []
    reader = OrderedReader(bus.connection, s.INGRESS, [subject], lambda one: seen.append(one.payload))
    reader.start()
    async with asyncio.timeout(30):
        await reader.caught_up.wait()
    await bus.publisher.publish(subject, b"later", message_id="later")
    await eventually(lambda: seen == [b"later"])
    await reader.stop()


async def test_a_consumer_that_nobody_answers_for_is_asked_again_without_haste(bus, monkeypatch):
    """As while its stream has no leader: each request is refused at once."""
    asked = 0
    publish = bus.connection.publish

    def counting(*arguments, **more) -> None:
        nonlocal asked
        asked += 1
        publish(*arguments, **more)

    monkeypatch.setattr(bus.connection, "publish", counting)
    lost: list[str] = []

    def ask_again(reason: str) -> None:
        lost.append(reason)
        pulls.want(1)

    pulls = PullRequests(bus.connection, "NOWHERE", "nobody", lambda *_: None, on_lost=ask_again)
    pulls.start()
    pulls.want(1)
    await eventually(lambda: len(lost) >= 4)
    assert asked <= len(lost) + 1, "one request a pause"
    assert set(lost) == {"no responders"}
    pulls.stop()


def test_a_command_is_what_the_protocol_says():
    assert publish_command("a.b", "", None, b"xy") == b"PUB a.b  2\r\nxy\r\n"
    assert publish_command("a.b", "r", b"NATS/1.0\r\n\r\n", b"xy") == b"HPUB a.b r 12 14\r\nNATS/1.0\r\n\r\nxy\r\n"


async def test_acknowledgements_that_a_leader_took_with_it_are_said_again(bus, monkeypatch):
    """Otherwise work that was done long ago would stand in its queue until its lease ends."""
    done: list[bytes] = []

    async def handle(delivery: Delivery) -> None:
        done.append(delivery.payload)
        delivery.ack()

    loop = WorkLoop(bus.connection, work_consumer("general"), handle, bus.dead_letters, slots=4)
    loop.start()
    send = bus.connection.client.send
    monkeypatch.setattr(bus.connection.client, "send", lambda command: None if b"+ACK" in command else send(command))
    for number in range(3):
        await bus.publisher.publish(WORK, b"%d" % number, message_id=f"m{number}")
    await eventually(lambda: len(done) == 3)
    monkeypatch.undo()
    assert await in_stream(bus, s.WORK) == 3
    loop._pulls._give_up("heartbeats stopped")
    await bus.publisher.publish(WORK, b"later", message_id="later")

    async def nothing_stands() -> bool:
        return await in_stream(bus, s.WORK) == 0

    await eventually(nothing_stands)
    assert done == [b"0", b"1", b"2", b"later"]
    await loop.drain(timeout_seconds=1)
