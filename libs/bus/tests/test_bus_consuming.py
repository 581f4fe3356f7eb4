"""What consuming promises: every message handled or kept, never more in hand than asked for, order where it matters."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest
from collegium_bus import topology
from collegium_bus.errors import TopologyError
from collegium_bus.events import EventLoop
from collegium_bus.ingress import IngressShard
from collegium_bus.ordered import OrderedReader
from collegium_bus.work import WorkLoop
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.consumers import consumer, work_consumer
from collegium_contracts.errors import UndecodableMessageError
from collegium_contracts.messages import CancelRequested
from collegium_testing import eventually

WORK = s.work("general", "normal")


async def work(bus, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        await bus.publisher.publish(WORK, b"%d" % number, message_id=f"m{number}")


async def in_stream(bus, stream: str) -> int:
    return msgspec.json.decode(await bus.connection.api(f"STREAM.INFO.{stream}"))["state"]["messages"]


async def shorten_lease(bus, seconds: float, max_deliver: int = 8):
    declared = msgspec.structs.replace(work_consumer("general"), ack_wait_seconds=seconds, max_deliver=max_deliver)
    body = {"stream_name": s.WORK, "config": topology.consumer_config(declared), "action": "update"}
    raw = await bus.connection.api(f"CONSUMER.CREATE.{s.WORK}.{declared.durable}", msgspec.json.encode(body))
    assert "error" not in msgspec.json.decode(raw)
    return declared


def dead_letters(bus, found: list) -> None:
    bus.connection.client.subscribe_raw(
        s.DEAD_ALL, lambda _s, _r, payload, _h: found.append(codec.journey.decode(payload))
    )


async def test_all_work_is_done_by_no_more_hands_than_slots(bus):
    await work(bus, 100)
    seen: Counter[bytes] = Counter()
    hands = most = 0

    async def handle(delivery) -> None:
        nonlocal hands, most
        hands += 1
        most = max(most, hands)
        await asyncio.sleep(0)
        seen[delivery.payload] += 1
        hands -= 1
        delivery.ack()

    loop = WorkLoop(bus.connection, work_consumer("general"), handle, bus.dead_letters, slots=7)
    loop.start()
    await eventually(lambda: len(seen) == 100)
    await loop.drain(timeout_seconds=1)
    assert set(seen.values()) == {1}
    assert most <= 7


async def test_a_lease_is_renewed_while_the_handler_works(bus):
    declared = await shorten_lease(bus, 0.6)
    release = asyncio.Event()
    deliveries: list[int] = []

    async def handle(delivery) -> None:
        deliveries.append(delivery.delivered)
        await release.wait()
        delivery.ack()

    loop = WorkLoop(bus.connection, declared, handle, bus.dead_letters, slots=2)
    loop.start()
    await work(bus, 1)

    async def long_after_the_lease() -> bool:
        info = msgspec.json.decode(await bus.connection.api(f"CONSUMER.INFO.{s.WORK}.pool-general"))
        assert info["num_redelivered"] == 0
        return loop_time() - began > 2.0

    loop_time = asyncio.get_running_loop().time
    began = loop_time()
    await eventually(long_after_the_lease, every_seconds=0.1)
    release.set()
    await eventually(lambda: loop.running == 0)
    await loop.drain(timeout_seconds=1)
    assert deliveries == [1]


async def test_a_lease_ends_with_its_deadline(bus):
    declared = await shorten_lease(bus, 0.6)
    deliveries: list[int] = []
    hung = asyncio.Event()

    async def handle(delivery) -> None:
        deliveries.append(delivery.delivered)
        if delivery.delivered == 1:
            loop.extend_until(delivery, 1)
            await hung.wait()
        delivery.ack()

    loop = WorkLoop(bus.connection, declared, handle, bus.dead_letters, slots=2)
    loop.start()
    await work(bus, 1)
    await eventually(lambda: deliveries == [1, 2])
    hung.set()
    await loop.drain(timeout_seconds=1)


async def test_a_failing_handler_gets_its_message_again_and_gives_up_on_the_last_delivery(bus):
    declared = await shorten_lease(bus, 5, max_deliver=2)
    deliveries: list[int] = []
    given_up: list[str] = []
    letters: list = []
    dead_letters(bus, letters)

    async def handle(delivery) -> None:
        deliveries.append(delivery.delivered)
        raise ValueError("broken")

    async def give_up(_delivery, error) -> None:
        given_up.append(str(error))

    loop = WorkLoop(bus.connection, declared, handle, bus.dead_letters, slots=2, give_up=give_up)
    loop.start()
    await work(bus, 1)
    await eventually(lambda: letters)
    await eventually(lambda: loop.running == 0)
    await loop.drain(timeout_seconds=1)
    assert (deliveries, given_up) == ([1, 2], ["broken"])
    assert (letters[0].cause, letters[0].payload, letters[0].delivery) == ("handler_failed", b"0", 2)
    assert await in_stream(bus, s.WORK) == 0


async def test_undecodable_work_is_dead_lettered_verbatim_at_once(bus):
    letters: list = []
    dead_letters(bus, letters)

    async def handle(delivery) -> None:
        raise UndecodableMessageError("no message")

    loop = WorkLoop(bus.connection, work_consumer("general"), handle, bus.dead_letters, slots=2)
    loop.start()
    await bus.publisher.publish(WORK, b"\xff\x00\x01", message_id="bad", headers={s.H_TENANT: "acme"})
    await eventually(lambda: letters)
    await eventually(lambda: loop.running == 0)
    await loop.drain(timeout_seconds=1)
    assert (letters[0].payload, letters[0].subject, letters[0].delivery) == (b"\xff\x00\x01", WORK, 1)
    assert letters[0].cause == "undecodable_message"
    assert await in_stream(bus, s.WORK) == 0


async def test_a_drain_hands_back_what_does_not_finish(bus):
    started = asyncio.Event()

    async def hang(_delivery) -> None:
        started.set()
        await asyncio.Event().wait()

    first = WorkLoop(bus.connection, work_consumer("general"), hang, bus.dead_letters, slots=1)
    first.start()
    await work(bus, 1)
    await started.wait()
    await first.drain(timeout_seconds=0.05)
    got: list[int] = []

    async def take(delivery) -> None:
        got.append(delivery.delivered)
        delivery.ack()

    second = WorkLoop(bus.connection, work_consumer("general"), take, bus.dead_letters, slots=1)
    second.start()
    # Long before the lease of 20 seconds.
    await eventually(lambda: got == [2])
    await second.drain(timeout_seconds=1)


def cancel(number: int) -> CancelRequested:
    return CancelRequested(task_id=f"tsk_{number:026d}", tenant="acme", at_ms=number)


async def publish_cancels(bus, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        message = cancel(number)
        await bus.publisher.publish(
            s.cancel("acme", message.task_id), codec.encode(message), message_id=message.task_id
        )


async def test_events_are_acknowledged_after_the_batch_was_handled(bus):
    handled: list[int] = []
    fail, failures = True, 0

    async def handle(batch) -> None:
        nonlocal failures
        if fail:
            failures += 1
            raise ConnectionError("the database is away")
        handled.extend(event.message.at_ms for event in batch)

    loop = EventLoop(bus.connection, consumer("billing"), codec.journey, handle, bus.dead_letters, linger_seconds=0.01)
    loop.start()
    await publish_cancels(bus, 20)
    await eventually(lambda: failures >= 2)
    info = msgspec.json.decode(await bus.connection.api(f"CONSUMER.INFO.{s.EVENTS}.billing"))
    assert info["ack_floor"]["stream_seq"] == 0
    fail = False
    await eventually(lambda: len(handled) == 20)
    await loop.stop()
    assert handled == list(range(20))


async def test_events_are_collected_until_somebody_is_in_a_hurry(bus):
    handled: list[int] = []

    async def handle(batch) -> None:
        handled.append(len(batch))

    loop = EventLoop(bus.connection, consumer("billing"), codec.journey, handle, bus.dead_letters, linger_seconds=600)
    loop.start()
    await publish_cancels(bus, 3)
    await eventually(lambda: loop.lag == 1)
    assert handled == []
    loop.hurry()
    await eventually(lambda: handled == [3])
    # Whoever is in a hurry before anything came is so for what comes next.
    loop.hurry()
    await publish_cancels(bus, 1, start=3)
    await eventually(lambda: handled == [3, 1])
    await loop.stop()


async def test_what_was_not_handled_comes_to_the_next(bus):
    async def stuck(_batch) -> None:
        await asyncio.Event().wait()

    first = EventLoop(bus.connection, consumer("billing"), codec.journey, stuck, bus.dead_letters, linger_seconds=0)
    first.start()
    await publish_cancels(bus, 5)
    await eventually(lambda: first.lag > 0)
    await first.stop()
    handled: list[int] = []

    async def handle(batch) -> None:
        handled.extend(event.message.at_ms for event in batch)

    second = EventLoop(bus.connection, consumer("billing"), codec.journey, handle, bus.dead_letters)
    second.start()
    await eventually(lambda: sorted(handled) == list(range(5)))
    await second.stop()


async def test_an_undecodable_event_is_buried_and_the_rest_goes_on(bus):
    letters: list = []
    dead_letters(bus, letters)
    handled: list[int] = []

    async def handle(batch) -> None:
        handled.extend(event.message.at_ms for event in batch)

    loop = EventLoop(bus.connection, consumer("billing"), codec.journey, handle, bus.dead_letters)
    loop.start()
    await publish_cancels(bus, 1)
    await bus.publisher.publish(s.task_settled("acme", "tsk_x"), b"\x00garbage", message_id="bad")
    await publish_cancels(bus, 1, start=1)
    await eventually(lambda: handled == [0, 1])
    await eventually(lambda: letters)
    await loop.stop()
    assert letters[0].payload == b"\x00garbage"


async def test_an_ordered_reader_sees_everything_once_in_order_and_follows(bus):
    await publish_cancels(bus, 700)
    seen: list[int] = []
    reader = OrderedReader(bus.connection, s.EVENTS, [s.CANCEL_ALL], lambda one: seen.append(one.sequence))
    reader.start()
    await reader.caught_up.wait()
    assert seen == list(range(1, 701))
    await publish_cancels(bus, 5, start=700)
    await eventually(lambda: len(seen) == 705)
    # A reader that was told to begin again goes on after what it has handed over.
    reader._lost("the consumer is gone")
    await publish_cancels(bus, 5, start=705)
    await eventually(lambda: seen == list(range(1, 711)))
    await reader.stop()


async def test_an_ordered_reader_begins_where_it_is_told(bus):
    await publish_cancels(bus, 10)
    seen: list[int] = []
    reader = OrderedReader(
        bus.connection, s.EVENTS, [s.CANCEL_ALL], lambda one: seen.append(one.sequence), start_sequence=8
    )
    reader.start()
    await reader.caught_up.wait()
    await reader.stop()
    assert seen == [8, 9, 10]


async def test_ingress_is_purged_up_to_its_oldest_unfinished_message(bus):
    subject = s.task_submitted("normal", 3, "acme")
    for number in range(5):
        await bus.publisher.publish(subject, b"%d" % number, message_id=f"t{number}")
    held: list = []
    shard = IngressShard(bus.connection, 3, held.append)
    shard.start()
    await shard.caught_up.wait()
    for index in (0, 1, 3, 4):
        shard.finish(subject, held[index].sequence)

    async def two_gone() -> bool:
        return await in_stream(bus, s.INGRESS) == 3

    await eventually(two_gone)
    again: list = []
    successor = IngressShard(bus.connection, 3, lambda one: again.append(one.payload))
    successor.start()
    await successor.caught_up.wait()
    assert again == [b"2", b"3", b"4"], "a takeover replays everything from the oldest unfinished message on"
    shard.finish(subject, held[2].sequence)

    async def all_gone() -> bool:
        return await in_stream(bus, s.INGRESS) == 0

    await eventually(all_gone)
    await shard.stop()
    await successor.stop()


async def test_a_second_plan_is_empty_and_a_difference_is_an_update(bus):
    assert await topology.plan(bus.connection, pools=["general"]) == []
    config = msgspec.json.decode(await bus.connection.api(f"STREAM.INFO.{s.DEAD}"))["config"]
    config["max_bytes"] = 1_000_000
    await bus.connection.api(f"STREAM.UPDATE.{s.DEAD}", msgspec.json.encode(config))
    changes = await topology.plan(bus.connection, pools=["general", "gpu"])
    assert [(one.name, one.action, one.differs) for one in changes] == [
        (s.DEAD, "update", ("max_bytes",)),
        (f"{s.WORK}/pool-gpu", "create", ()),
    ]
    await topology.apply(bus.connection, changes)
    assert await topology.plan(bus.connection, pools=["general", "gpu"]) == []


async def test_a_service_tells_which_consumer_is_missing(bus):
    await topology.verify(bus.connection, "worker-pool", pools=["general"])
    with pytest.raises(TopologyError, match="WORK/pool-gpu does not stand; run `collegium migrate`"):
        await topology.verify(bus.connection, "worker-pool", pools=["gpu"])
