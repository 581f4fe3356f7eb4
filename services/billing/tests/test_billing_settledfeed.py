"""Shards of holds that are taken over at once, each from where its journal ends, are all told what came after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from collegium_billing.holds.settledfeed import SettledFeed
from collegium_bus.connection import Connection
from collegium_contracts import ids
from collegium_contracts import subjects as s
from collegium_contracts.holds import Billed, billed_header
from collegium_testing import eventually

EVENTS = 2_000
TENANTS = [next(f"t{n}" for n in range(1_000) if ids.shard_of(f"t{n}") == shard) for shard in ids.SHARDS]


@pytest.fixture
async def connection(world: Any) -> Connection:
    return await world.connect("billing")


@pytest.fixture
async def feed(connection: Connection) -> AsyncIterator[SettledFeed]:
    made = SettledFeed(connection)
    yield made
    await made.stop()


@pytest.fixture
async def newest(world: Any, feed: SettledFeed) -> int:
    """Events of all shards in turn; returns the sequence of the last."""
    headers = {s.H_BILLED: billed_header(Billed(picos=7, tokens=3, project="p", key_id="k"))}
    for number in range(EVENTS // 100):
        await asyncio.gather(
            *(
                world.worker.publish(
                    s.task_settled(TENANTS[place % len(TENANTS)], f"tsk_{number}x{place}"),
                    b"{}",
                    message_id="",
                    headers=headers,
                )
                for place in range(100)
            )
        )
    return await feed.newest()


def telling(told: list[int]) -> Callable[..., None]:
    return lambda _about, _billed, _at_ms, sequence: told.append(sequence)


@pytest.mark.parametrize("order", ["newest first", "oldest first", "mixed"])
async def test_every_shard_is_told_whatever_the_others_positions_are(
    feed: SettledFeed, connection: Connection, newest: int, order: str
):
    other = SettledFeed(connection)
    all_of: dict[int, list[int]] = {shard: [] for shard in ids.SHARDS}
    for shard in ids.SHARDS:
        await other.add(shard, 0, telling(all_of[shard]))
    await other.stop()
    assert sum(len(set(one)) for one in all_of.values()) == EVENTS
    afters = {shard: newest * shard // len(ids.SHARDS) for shard in ids.SHARDS}
    shards = {
        "newest first": sorted(afters, reverse=True),
        "oldest first": sorted(afters),
        "mixed": [5, 6, 0, 7, 3, 1, 4, 2],
    }[order]
    told: dict[int, list[int]] = {shard: [] for shard in ids.SHARDS}
    async with asyncio.timeout(60):
        await asyncio.gather(*(feed.add(shard, afters[shard], telling(told[shard])) for shard in shards))
    for shard in ids.SHARDS:
        # What is older a shard knows already; a reader that begins again further back tells it anew.
        wanted = {sequence for sequence in all_of[shard] if sequence > afters[shard]}
        assert {sequence for sequence in told[shard] if sequence > afters[shard]} == wanted


async def test_who_waits_to_be_told_waits_no_longer_than_the_feed(feed: SettledFeed, newest: int):
    async with asyncio.timeout(60):
        await asyncio.gather(feed.add(1, 0, telling([])), feed.stop())


async def test_a_shard_whose_taking_over_fails_is_taken_over_again(world: Any, monkeypatch: pytest.MonkeyPatch):
    add, failed = SettledFeed.add, set[int]()

    async def fails_once(self: SettledFeed, shard: int, after: int, on_billed: Any) -> None:
        if shard not in failed:
            failed.add(shard)
            raise LookupError("a defect")
        await add(self, shard, after, on_billed)

    monkeypatch.setattr(SettledFeed, "add", fails_once)
    billing = await world.billing()
    await eventually(lambda: all(billing.readiness().values()))
    assert failed == set(ids.SHARDS)
