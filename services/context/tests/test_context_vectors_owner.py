"""The process that owns the embedded store: killed, locked out, gone, and watched."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from collegium_bus.connection import Connection
from collegium_context.vectors.embedded.child import Child
from collegium_context.vectors.embedded.client import EmbeddedStore
from collegium_context.vectors.embedded.owner import Owner, lock
from collegium_context.vectors.embedded.shelf import Sizes
from collegium_context.vectors.interface import (
    CollectionSpec,
    Equals,
    InvalidQuestionError,
    Point,
    StoreLockedError,
    StoreUnavailableError,
    Where,
)
from collegium_context.vectors.opening import OwnedStore, open_store, orders_of
from collegium_contracts.scope import Scope
from collegium_telemetry import names
from collegium_testing import eventually

ACME = Scope("acme")
SPEC = CollectionSpec(name="chunks", dimensions=8, integer_fields=("group", "version"))
GROUPS, POINTS_A_GROUP = 12, 40
KILLS = 4


def unit(number: int) -> Any:
    vector = np.random.default_rng(number).normal(size=8).astype(np.float32)
    return vector / np.linalg.norm(vector)


def group(number: int, version: int) -> list[Point]:
    first = number * 1_000
    return [
        Point(str(uuid.UUID(int=first + n + 1)), unit(n), f"word{n}", {"group": number, "version": version})
        for n in range(POINTS_A_GROUP)
    ]


async def found(store: EmbeddedStore, number: int) -> list[int]:
    """The versions of a group's points; no point is found twice."""
    where = Where(must=(Equals("group", (number,)),))
    looked = await store.look(ACME, "chunks", vector=unit(1), where=where, limit=500)
    assert len({hit.id for hit in looked.dense}) == len(looked.dense) == await store.count(ACME, "chunks", where)
    return [int(hit.payload["version"]) for hit in looked.dense]  # type: ignore[arg-type]


class Killed:
    """A store of small parts, so that closing, building and swapping them never stops, and whose owner is killed."""

    def __init__(self, platform: Any) -> None:
        orders = msgspec.structs.replace(orders_of(platform), sizes=Sizes(open_points=150, own_points=400))
        self.store = EmbeddedStore(platform.connection)
        self.child = Child(orders, self.answers)
        self.random = random.Random(11)
        self.acknowledged = dict.fromkeys(range(GROUPS), 0)
        self.tried = dict.fromkeys(range(GROUPS), 0)
        self.version = 0

    async def answers(self) -> bool:
        return False

    async def ready(self) -> bool:
        if not self.child.is_ready:
            return False
        try:
            await self.store.status()
        except StoreUnavailableError:
            return False
        return True

    async def write(self) -> None:
        """Writes groups over and over, each whole, and deletes some; what was answered is what counts."""
        while True:
            number = self.random.randrange(GROUPS)
            self.version += 1
            is_gone = self.random.random() < 0.2
            self.tried[number] = 0 if is_gone else self.version
            try:
                if is_gone:
                    await self.store.delete(ACME, "chunks", where=Where(must=(Equals("group", (number,)),)))
                else:
                    await self.store.upsert(ACME, "chunks", group(number, self.version))
            except StoreUnavailableError:
                return
            self.acknowledged[number] = self.tried[number]


@pytest.fixture
async def killed(platforms: Any) -> AsyncIterator[Killed]:
    killed = Killed(await platforms())
    await killed.child.start()
    yield killed
    await killed.child.stop()


@pytest.mark.timeout(400)
@pytest.mark.long
async def test_a_killed_owner_loses_nothing_and_serves_no_half_batch(killed: Killed) -> None:
    await eventually(killed.ready)
    await killed.store.ensure(SPEC)
    for _ in range(KILLS):
        writing = asyncio.create_task(killed.write())
        await asyncio.sleep(killed.random.uniform(0.5, 2.5))
        assert killed.child.pid is not None
        os.kill(killed.child.pid, signal.SIGKILL)
        await writing
        await eventually(killed.ready)
        for number in range(GROUPS):
            versions = await found(killed.store, number)
            assert len(set(versions)) <= 1, f"half a batch of group {number}: {versions}"
            assert len(versions) in (0, POINTS_A_GROUP), f"{len(versions)} points of group {number}"
            now = versions[0] if versions else 0
            assert now in (killed.acknowledged[number], killed.tried[number]), f"group {number} is at {now}"
            killed.acknowledged[number] = killed.tried[number] = now


@pytest.fixture
async def opened(platforms: Any) -> AsyncIterator[Callable[[Any], OwnedStore]]:
    """Gives a maker of stores that are closed whatever happens."""
    stores: list[OwnedStore] = []

    def make(platform: Any) -> OwnedStore:
        stores.append(OwnedStore(platform))
        return stores[-1]

    yield make
    for store in stores:
        await store.close()


async def test_a_second_owner_is_told_and_takes_over_when_the_first_ends(platforms: Any, opened: Any) -> None:
    first_platform, second_platform = await platforms(), await platforms()
    first = opened(first_platform)
    await first.start()
    await first.ensure(SPEC)
    await first.upsert(ACME, "chunks", group(1, 1))
    with pytest.raises(StoreLockedError, match="another process owns"):
        lock(Path(orders_of(second_platform).folder))
    second = opened(second_platform)
    await second.start()
    assert (second.is_ready, second.child.pid) == (True, None)
    assert await second.count(ACME, "chunks") == POINTS_A_GROUP
    await first.close()

    async def taken_over() -> bool:
        return second.is_ready and second.child.pid is not None

    await eventually(taken_over)
    assert await second.count(ACME, "chunks") == POINTS_A_GROUP


async def test_readiness_and_figures_follow_the_child(platforms: Any) -> None:
    platform = await platforms()
    store = await open_store(platform)
    assert store.is_ready
    await store.ensure(SPEC)
    await store.upsert(ACME, "chunks", group(1, 1))
    await store.look(ACME, "chunks", vector=unit(1))

    def figures() -> dict[str, float]:
        lines = [line.rsplit(" ", 1) for line in platform.metrics.render().decode().splitlines() if line[0] != "#"]
        return {name.split("{")[0]: float(value) for name, value in lines}

    async def counted() -> bool:
        return figures()[names.METRIC_VECTOR_POINTS] == POINTS_A_GROUP

    await eventually(counted)
    assert figures()[f"{names.METRIC_VECTOR_LOOK_SECONDS}_count"] == 1
    os.kill(store.store.child.pid, signal.SIGKILL)  # type: ignore[attr-defined]

    async def not_ready() -> bool:
        return not store.is_ready

    async def ready() -> bool:
        return store.is_ready

    await eventually(not_ready)
    await eventually(ready)
    assert await store.count(ACME, "chunks") == POINTS_A_GROUP
    await store.close()


async def test_a_store_that_is_down_is_told_in_time(platforms: Any) -> None:
    store = EmbeddedStore((await platforms()).connection)
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        await store.look(ACME, "chunks", words="x")
    assert time.monotonic() - began < 6


async def test_an_owner_that_hangs_is_told_in_time(platforms: Any) -> None:
    store = OwnedStore(await platforms())
    await store.start()
    await store.ensure(SPEC)
    assert store.child.pid is not None
    os.kill(store.child.pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        await store.count(ACME, "chunks")
    assert time.monotonic() - began < 10
    os.kill(store.child.pid, signal.SIGCONT)
    await store.close()


@pytest.fixture
async def asked(platforms: Any) -> Connection:
    return (await platforms()).connection


async def test_what_is_no_question_is_answered(asked: Connection) -> None:
    from collegium_context.vectors import wire
    from collegium_contracts import subjects as s

    class Engine:
        folder = Path()

    owner = Owner(asked, Engine(), None, sync=False)  # type: ignore[arg-type]
    await owner.start()
    for body in (b"", b"\xc1", b"\x81\xa4type\xa4Look"):
        payload, _ = await asked.request_raw(s.svc_vectors("ask"), body)
        answer = wire.answer.decode(payload)
        assert isinstance(answer, wire.Failed)
    await owner.stop()


async def test_a_question_that_takes_long_ends_with_the_process_it_was_put_to(asked: Connection) -> None:
    from collegium_context.vectors import wire
    from collegium_contracts import subjects as s
    from collegium_contracts.codec import encode

    owners = ["first", "first", "second"]

    def die_with_what_was_asked(_subject: bytes, reply: bytes, payload: bytes, _headers: bytes | None) -> None:
        if isinstance(wire.question.decode(payload), wire.Ask):
            body = msgspec.json.encode({"owner": owners.pop(0)})
            asked.publish(reply.decode(), encode(wire.Told(body=body)))

    number = asked.client.subscribe_raw(s.svc_vectors("ask"), die_with_what_was_asked)
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="ended before it answered; ask again"):
        await EmbeddedStore(asked).delete(ACME, "chunks", where=Where(must=(Equals("group", (1,)),)))
    assert time.monotonic() - began < 60, "and not after the minutes that an answer may take"
    assert not owners
    asked.client.unsubscribe_raw(number)


async def test_points_too_large_for_a_message_are_split_or_refused(platforms: Any) -> None:
    store = await open_store(await platforms())
    wide = CollectionSpec(name="wide", dimensions=2_000)
    await store.ensure(wide)
    rng = np.random.default_rng(1)
    points = [Point(str(uuid.UUID(int=n + 1)), rng.normal(size=2_000).astype(np.float32)) for n in range(300)]
    await store.upsert(ACME, "wide", points)
    assert await store.count(ACME, "wide") == 300
    looked = await store.look(ACME, "wide", vector=points[0].vector, limit=300)
    assert len(looked.dense) == 300
    with pytest.raises(InvalidQuestionError, match="ask for fewer"):
        await store.look(ACME, "wide", vector=points[0].vector, limit=300, with_vectors=True)
    with pytest.raises(InvalidQuestionError, match="larger than"):
        await store.upsert(ACME, "wide", [Point(str(uuid.UUID(int=1)), None, None, {"text": "x" * 1_000_000})])
    await store.close()
