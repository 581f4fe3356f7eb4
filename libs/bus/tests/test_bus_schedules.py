"""What the broker does with a message for later: moves it once, in time, with its headers, also after it was killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import msgspec
import pytest
from collegium_bus import topology
from collegium_bus.connection import connect
from collegium_bus.delivery import Delivery
from collegium_bus.direct import DirectReader
from collegium_bus.errors import AlreadyStandsError
from collegium_bus.kv import Bucket
from collegium_bus.publisher import Publisher
from collegium_bus.pull import PullRequests
from collegium_bus.schedules import ScheduleStream
from collegium_contracts import belongings
from collegium_contracts import subjects as s
from collegium_servers import nats
from collegium_testing import eventually

TICK_MS = 400


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Scene:
    """A connection with SCHEDULE declared; ``due`` is what the consumer was given, acknowledged at once."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.due: list[tuple[bytes, dict[str, str], int]] = []

    async def __aenter__(self) -> Scene:
        self.connection = await connect(self._url, "router")
        await topology.apply(self.connection, await topology.plan(self.connection, pools=[]))
        self.stream = ScheduleStream(self.connection, Publisher(self.connection))
        self.pulls = PullRequests(
            self.connection, s.SCHEDULE, "schedules", self._on_due, on_lost=lambda _reason: self.pulls.want(100)
        )
        self.pulls.start()
        self.pulls.want(100)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.pulls.stop()
        await self.connection.close()

    def _on_due(self, subject: bytes, reply: bytes, payload: bytes, block: bytes | None) -> None:
        delivery = Delivery(self.connection, subject, reply, payload, block)
        self.due.append((payload, delivery.headers, now_ms()))
        delivery.ack()

    async def put(self, task: str, payload: bytes, in_ms: int, **headers: str) -> int:
        at_ms = now_ms() + in_ms
        subject = s.schedule_task("acme", task)
        await self.stream.put(subject, payload, at_ms=at_ms, shard=3, headers=headers, message_id=f"{task}-{at_ms}")
        return at_ms

    def payloads(self) -> list[bytes]:
        return [payload for payload, _, _ in self.due]


async def test_it_is_moved_once_not_before_its_time_with_its_headers(clean_nats_url: str):
    async with Scene(clean_nats_url) as scene:
        at_ms = await scene.put("t", b"later", 500, traceparent="tp", **{s.H_TENANT: "acme"})
        await eventually(lambda: scene.due)
        payload, headers, moved_ms = scene.due[0]
        assert payload == b"later"
        assert (headers[s.TRACEPARENT], headers[s.H_TENANT]) == ("tp", "acme")
        assert at_ms <= moved_ms < at_ms + TICK_MS
        filling = await scene.stream.filling(belongings.scheduled_of("acme"))
        assert filling.messages == 0
        assert (await scene.stream.filling(">")).bytes == 0, "acknowledged is removed"


async def test_what_is_past_comes_at_once_and_what_is_replaced_never(clean_nats_url: str):
    async with Scene(clean_nats_url) as scene:
        await scene.put("past", b"past", -100_000)
        await scene.put("twice", b"first", 300)
        await scene.put("twice", b"second", 700)
        await eventually(lambda: len(scene.due) == 2)
        assert scene.payloads() == [b"past", b"second"]


async def test_what_is_taken_back_never_comes(clean_nats_url: str):
    async with Scene(clean_nats_url) as scene:
        await scene.put("gone", b"gone", 300)
        await scene.put("stays", b"stays", 600)
        await scene.stream.take_back(s.schedule_task("acme", "gone"))
        await scene.stream.take_back(s.schedule_task("acme", "never-stood"))
        await eventually(lambda: scene.due)
        assert scene.payloads() == [b"stays"]


async def test_a_large_message_travels_by_claim(clean_nats_url: str):
    async with Scene(clean_nats_url) as scene:
        large = os.urandom(300_000)
        await scene.put("large", large, 200)
        stored = await DirectReader(scene.connection).last(s.SCHEDULE, s.schedule_task("acme", "large"))
        assert stored is None or stored.payload == large
        await eventually(lambda: scene.due)
        payload, headers, _ = scene.due[0]
        assert (payload, s.H_CLAIM in headers) == (b"", True)


async def test_the_brokers_clock_and_the_filling_are_told(clean_nats_url: str):
    async with Scene(clean_nats_url) as scene:
        for number in range(5):
            await scene.put(f"far-{number}", b"x" * 100, 1_000_000)
        assert abs(await scene.stream.broker_now_ms() - now_ms()) < 1_000
        filling = await scene.stream.filling(belongings.scheduled_of("acme"))
        assert filling.messages == 5
        assert filling.bytes > 500
        assert (await scene.stream.filling(belongings.scheduled_of("globex"))).messages == 0


@pytest.mark.chaos
async def test_what_fell_due_while_the_broker_was_dead_comes_once_after_its_start(tmp_path: Path):
    server = await nats.start(tmp_path)
    async with Scene(server.url) as scene:
        for number in range(5):
            await scene.put(f"t{number}", b"%d" % number, 400)
        later_ms = await scene.put("later", b"later", 4_000)
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()
        await server.stop()
        # The time of the first five passes without a broker.
        await eventually(lambda: now_ms() > later_ms - 3_000)
        server = await nats.start(tmp_path, port=server.port)
        await eventually(lambda: len(scene.due) == 6)
        await asyncio.wait_for(scene.connection.flush(), 30)
        assert sorted(scene.payloads()) == [b"0", b"1", b"2", b"3", b"4", b"later"]
    await server.stop()


async def test_a_bucket_is_listed_deleted_from_and_cleared(clean_nats_url: str):
    async with Scene(clean_nats_url) as scene:
        bucket = Bucket(scene.connection, s.KV_SCHEDULES)
        revision = await bucket.put("acme.a", b"1", expected_revision=0)
        await bucket.put("globex.b", b"2", expected_revision=0)
        changed = await bucket.put("acme.a", b"3", expected_revision=revision)
        assert [entry async for entry in bucket.entries("acme.*")] == [("acme.a", b"3", changed, False)]
        assert [entry.key async for entry in bucket.entries()] == ["globex.b", "acme.a"]
        with pytest.raises(AlreadyStandsError):
            await bucket.delete("acme.a", expected_revision=revision)
        await bucket.delete("acme.a", expected_revision=changed)
        assert await bucket.get("acme.a") is None
        (mark,) = [entry async for entry in bucket.entries("acme.*")]
        assert mark.deleted
        await bucket.remove("acme.a", revision=mark.revision)
        assert [entry.key async for entry in bucket.entries()] == ["globex.b"]
        info = msgspec.json.decode(await scene.connection.api(f"STREAM.INFO.KV_{s.KV_SCHEDULES}"))
        assert info["state"]["messages"] == 1
