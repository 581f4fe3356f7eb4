"""Folds on a real database: every event once, in little room."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from collegium_evolution.scoreboards import store as rooms
from collegium_evolution.scoreboards.scoring import calls_of
from collegium_evolution.scoreboards.store import Folding, Store


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    yield pool
    await pool.close()


def event(make: Any, sequence: int, *, stored_ns: int | None = None, domain: str = "", **call: Any) -> Folding:
    message = make.settled(make.task(str(sequence), domain=domain), [make.call(**call)])
    return Folding(
        sequence,
        stored_ns if stored_ns is not None else 1_000 + sequence,
        calls_of(message),
        tenant=message.task.tenant,
    )


async def counted(store: Store) -> int:
    return sum(score.calls for score in (await store.board()).scores)


async def test_redelivered_events_in_any_order_and_from_two_replicas_count_once(
    pool: asyncpg.Pool, make: Any, rng: random.Random
) -> None:
    stores = [Store(pool, "scoreboard"), Store(pool, "scoreboard")]
    events = [event(make, number, model=f"m{number % 3}", duration_ms=number) for number in range(1, 101)]

    async def replica(store: Store) -> None:
        mine = events * 2
        rng.shuffle(mine)
        for start in range(0, len(mine), 17):
            await store.fold(mine[start : start + 17])

    await asyncio.gather(*(replica(store) for store in stores))
    board = await stores[0].board()
    assert sorted((score.model, score.calls) for score in board.scores) == [("m0", 33), ("m1", 34), ("m2", 33)]
    assert sum(score.duration_ms_total for score in board.scores) == 5050
    assert sum(score.cost_usd_picos for score in board.scores) == 500
    assert board.folded_sequence == 100
    assert board.scores[0].duration_ms_p50 == pytest.approx(50, rel=0.1)


async def test_marks_are_dropped_behind_the_acknowledged_position_and_nothing_counts_twice(
    pool: asyncpg.Pool, make: Any
) -> None:
    store = Store(pool, "scoreboard")
    events = [event(make, number) for number in range(1, 51)]
    assert await store.fold(events) == 50
    await store.advance(30)
    assert await store.marks() == 20
    # An older answer of the broker moves nothing back.
    await store.advance(10)
    assert await store.marks() == 20
    assert await store.fold(events) == 0
    assert await store.fold([event(make, 51), event(make, 51)]) == 1
    await store.advance(60)
    assert await store.marks() == 0
    assert await store.fold(events) == 0
    assert (await counted(store), (await store.board()).folded_sequence) == (51, 60)


async def test_a_stream_made_anew_is_not_taken_for_the_old_one(pool: asyncpg.Pool, make: Any) -> None:
    store = Store(pool, "scoreboard")
    await store.fold([event(make, number) for number in range(1, 11)])
    await store.advance(10)
    anew = [event(make, number, stored_ns=9_000 + number) for number in range(1, 6)]
    assert await store.fold(anew) == 5
    await store.advance(3)
    assert await store.marks() == 2
    assert await store.fold(anew) == 0
    assert await counted(store) == 15


async def test_domains_beyond_the_limit_are_scored_together(
    pool: asyncpg.Pool, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "DOMAINS_MAX", 3)
    store = Store(pool, "scoreboard")
    for number in range(1, 9):
        await store.fold([event(make, number, domain=f"d{number}")])
    await store.fold([event(make, 9, domain="d2")])
    found = {score.domain: score.calls for score in (await store.board()).scores}
    assert found == {"d1": 1, "d2": 2, "d3": 1, rooms.OTHER_DOMAINS: 5}


async def test_a_cost_larger_than_the_wire_holds_is_shown_at_its_limit(pool: asyncpg.Pool, make: Any) -> None:
    store = Store(pool, "scoreboard")
    await store.fold([event(make, number, cost=2**62) for number in range(1, 5)])
    assert (await store.board()).scores[0].cost_usd_picos == 2**63 - 1
