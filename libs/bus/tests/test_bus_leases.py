"""What a shard's owner removes, what a listing tells, and when a lease is in doubt."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import msgspec
from collegium_bus.dead import DeadLetters
from collegium_bus.delivery import Delivery
from collegium_bus.direct import BATCH, DirectReader
from collegium_bus.ingress import STRAGGLERS, IngressShard
from collegium_bus.work import WorkLoop
from collegium_contracts import subjects as s
from collegium_contracts.consumers import work_consumer
from collegium_testing import eventually


async def in_stream(bus, stream: str) -> int:
    return msgspec.json.decode(await bus.connection.api(f"STREAM.INFO.{stream}"))["state"]["messages"]


async def test_what_finished_behind_a_message_that_stays_long_is_deleted_one_by_one(bus):
    subject = s.task_submitted("normal", 3, "acme")
    count = STRAGGLERS + 10
    for number in range(count):
        await bus.publisher.publish(subject, b"%d" % number, message_id=f"t{number}")
    held: list = []
    shard = IngressShard(bus.connection, 3, held.append)
    shard.start()
    await shard.caught_up.wait()
    for delivery in held[1:]:
        shard.finish(subject, delivery.sequence)

    async def one_left() -> bool:
        return await in_stream(bus, s.INGRESS) == 1

    await eventually(one_left)
    shard.finish(subject, held[0].sequence)

    async def none_left() -> bool:
        return await in_stream(bus, s.INGRESS) == 0

    await eventually(none_left)
    await shard.stop()


async def test_a_listing_tells_all_messages_of_a_filter_with_their_headers(bus):
    for number in range(BATCH + 5):
        tenant = "acme" if number % 2 else "globex"
        await bus.publisher.publish(
            s.task_submitted("normal", 3, tenant), b"x", message_id=f"t{number}", headers={s.H_TENANT: tenant}
        )
    reader = DirectReader(bus.connection)
    listed = await reader.headers(s.INGRESS, "task.submitted.>", limit=10_000)
    assert [one.sequence for one in listed] == sorted(one.sequence for one in listed)
    assert Counter(one.headers[s.H_TENANT] for one in listed) == {"acme": 130, "globex": 131}
    some = await reader.headers(s.INGRESS, s.task_submitted("normal", 3, "acme"), limit=7)
    assert len(some) == 7
    assert await reader.headers(s.WORK, s.WORK_ALL, limit=10) == []


async def test_a_lease_is_in_doubt_once_the_process_stood_still_for_an_ack_wait(bus):
    hold, seen = asyncio.Event(), asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        seen.set()
        await hold.wait()
        delivery.ack()

    short = msgspec.structs.replace(work_consumer("general"), ack_wait_seconds=1.0)
    loop = WorkLoop(bus.connection, short, handle, DeadLetters(bus.publisher, "worker-pool"), slots=1)
    await bus.publisher.publish(s.work("general", "normal"), b"x", message_id="x")
    loop.start()
    await seen.wait()
    (delivery,) = loop._running
    assert not loop.may_be_lost(delivery)
    time.sleep(1.2)  # noqa: ASYNC251 - the whole process stands still
    assert loop.may_be_lost(delivery), "seen before the renewing task could run again"
    await eventually(lambda: delivery in loop._doubtful)
    hold.set()
    await eventually(lambda: not loop._running)
    assert not loop._doubtful
    await loop.drain(timeout_seconds=1)
