"""The broker is killed and started again on its folder and port: who waits gets an answer, nothing stored is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from collegium_bus import topology
from collegium_bus.ask import ask
from collegium_bus.connection import Connection, connect
from collegium_bus.dead import DeadLetters
from collegium_bus.direct import DirectReader
from collegium_bus.errors import BrokerUnavailableError, NoAnswerError
from collegium_bus.events import EventLoop
from collegium_bus.ingress import IngressShard
from collegium_bus.kv import Bucket
from collegium_bus.ordered import OrderedReader
from collegium_bus.publisher import Publisher
from collegium_bus.shell import Answering
from collegium_bus.work import WorkLoop
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.consumers import consumer, work_consumer
from collegium_contracts.messages import CancelRequested
from collegium_contracts.requests import TenantList, TenantsReply
from collegium_servers import NatsServer, nats
from collegium_testing import eventually

WORK = s.work("general", "normal")
LEASE_SECONDS = 1.5


class Stage:
    """A broker of the test's own and one connection to it."""

    def __init__(self, folder: Path, server: NatsServer, connection: Connection) -> None:
        self._folder = folder
        self._server = server
        self.connection = connection
        self.publisher = Publisher(connection)
        self.dead_letters = DeadLetters(self.publisher, connection.service)

    async def kill(self) -> None:
        self._server.child._process.kill()
        await self._server.stop()
        await eventually(lambda: not self.connection.is_connected)

    async def start(self) -> None:
        self._server = await nats.start(self._folder, port=self._server.port)

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    async def close(self) -> None:
        await self.connection.close()
        await self._server.stop()


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    server = await nats.start(tmp_path)
    connection = await connect(server.url, "worker-pool")
    await topology.apply(connection, await topology.plan(connection, pools=["general"]))
    running = Stage(tmp_path, server, connection)
    yield running
    await running.close()


async def stored(stage: Stage, stream: str) -> int:
    return msgspec.json.decode(await stage.connection.api(f"STREAM.INFO.{stream}"))["state"]["messages"]


async def publish_cancels(stage: Stage, numbers: range) -> None:
    for number in numbers:
        message = CancelRequested(task_id=f"tsk_{number:026d}", tenant="acme", at_ms=number)
        await stage.publisher.publish(
            s.cancel("acme", message.task_id), codec.encode(message), message_id=message.task_id
        )


async def test_what_is_published_while_the_broker_is_away_is_stored_once(stage: Stage):
    await stage.kill()
    waiting = [
        asyncio.create_task(stage.publisher.publish(WORK, b"%d" % number, message_id=f"m{number}"))
        for number in range(5)
    ]
    large = asyncio.create_task(
        stage.publisher.publish(s.task_settled("acme", "tsk_l"), b"x" * 300_000, message_id="l", create_once=True)
    )
    await stage.start()
    assert sorted([(await one).sequence for one in waiting]) == [1, 2, 3, 4, 5]
    await large
    assert await stored(stage, s.WORK) == 5
    settled = await DirectReader(stage.connection).last(s.EVENTS, s.task_settled("acme", "tsk_l"))
    assert settled.payload == b"x" * 300_000


async def test_a_broker_that_stays_away_is_told_within_the_budget(stage: Stage):
    await stage.kill()
    async with asyncio.timeout(30):
        with pytest.raises(BrokerUnavailableError, match=r"not stored within 0\.6 s"):
            await stage.publisher.publish(WORK, b"x", message_id="a", budget_seconds=0.6)
        with pytest.raises(NoAnswerError, match="the broker is away"):
            await stage.connection.request_raw("svc.anything", b"", timeout_seconds=0.1)
    for _ in range(32):
        stage.connection.publish("svc.anything", b"x" * 1024 * 1024)
    with pytest.raises(BrokerUnavailableError, match="send buffer is full"):
        stage.connection.publish("svc.anything", b"x")
    stage.connection.client._pending.clear()
    stage.connection.client._pending_data_size = 0
    await stage.start()
    await stage.publisher.publish(WORK, b"x", message_id="b")


async def test_what_was_given_up_while_the_broker_was_away_is_not_stored_when_it_is_back(stage: Stage):
    await stage.kill()
    with pytest.raises(BrokerUnavailableError):
        await stage.publisher.publish(WORK, b"given up", message_id="a", budget_seconds=0.3)
    await stage.start()
    await stage.publisher.publish(WORK, b"later", message_id="b")
    assert await stored(stage, s.WORK) == 1


async def test_a_question_asked_while_the_broker_is_away_is_answered_afterwards(stage: Stage):
    async def answer(_question, _traceparent):
        return TenantsReply(tenants=[])

    answering = Answering(stage.connection, {s.SVC_BILLING_TENANT_LIST: answer})
    await answering.start()
    await stage.kill()
    asked = asyncio.create_task(
        ask(stage.connection, s.SVC_BILLING_TENANT_LIST, TenantList(), TenantsReply, timeout_seconds=10)
    )
    await stage.start()
    assert await asked == TenantsReply(tenants=[])
    await answering.stop()


async def test_work_goes_on_and_none_is_lost(stage: Stage):
    declared = msgspec.structs.replace(work_consumer("general"), ack_wait_seconds=LEASE_SECONDS)
    body = {"stream_name": s.WORK, "config": topology.consumer_config(declared), "action": "update"}
    await stage.connection.api(f"CONSUMER.CREATE.{s.WORK}.{declared.durable}", msgspec.json.encode(body))
    seen: set[bytes] = set()
    hands = most = 0
    gate = asyncio.Event()

    async def handle(delivery) -> None:
        nonlocal hands, most
        hands += 1
        most = max(most, hands)
        await gate.wait()
        seen.add(delivery.payload)
        hands -= 1
        delivery.ack()

    loop = WorkLoop(stage.connection, declared, handle, stage.dead_letters, slots=4)
    loop.start()
    for number in range(20):
        await stage.publisher.publish(WORK, b"%d" % number, message_id=f"m{number}")
    await eventually(lambda: hands == 4)
    await stage.restart()
    gate.set()
    await stage.publisher.publish(WORK, b"later", message_id="later")

    async def done() -> bool:
        return len(seen) == 21 and await stored(stage, s.WORK) == 0

    await eventually(done)
    await loop.drain(timeout_seconds=1)
    assert most == 4


async def test_events_in_hand_and_events_to_come_are_all_handled(stage: Stage):
    handled: set[int] = set()
    away, failures = True, 0

    async def handle(batch) -> None:
        nonlocal failures
        if away:
            failures += 1
            raise ConnectionError("the database is away")
        handled.update(event.message.at_ms for event in batch)

    loop = EventLoop(stage.connection, consumer("billing"), codec.journey, handle, stage.dead_letters)
    loop.start()
    await publish_cancels(stage, range(30))
    await eventually(lambda: failures >= 1)
    await stage.restart()
    away = False
    await publish_cancels(stage, range(30, 60))
    await eventually(lambda: handled == set(range(60)))
    await loop.stop()


async def test_readers_in_order_go_on_without_a_gap_or_a_repetition(stage: Stage):
    bucket = Bucket(stage.connection, s.KV_POLICY)
    await bucket.put("k", b"before")
    values: list[bytes] = []
    watch = bucket.watch(lambda entry: values.append(entry.value))
    await watch.start()
    submitted: list[bytes] = []
    shard = IngressShard(stage.connection, 1, lambda one: submitted.append(one.payload))
    shard.start()
    subject = s.task_submitted("normal", 1, "acme")
    await stage.publisher.publish(subject, b"before", message_id="t1")
    seen: list[int] = []
    reader = OrderedReader(stage.connection, s.EVENTS, [s.CANCEL_ALL], lambda one: seen.append(one.sequence))
    reader.start()
    await publish_cancels(stage, range(50))
    await eventually(lambda: len(seen) == 50)
    await stage.restart()
    await publish_cancels(stage, range(50, 100))
    await stage.publisher.publish(subject, b"after", message_id="t2")
    await bucket.put("k", b"after")
    await eventually(lambda: seen[-1] == 100)
    await eventually(lambda: (submitted, values) == ([b"before", b"after"], [b"before", b"after"]))
    assert seen == list(range(1, 101))
    await watch.stop()
    await shard.stop()
    await reader.stop()
