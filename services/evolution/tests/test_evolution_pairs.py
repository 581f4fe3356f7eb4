"""How pairs are read: of one model those alone, and of too many the newest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_evolution.ranks import pair_store
from collegium_evolution.ranks.pairing import ComparedPair

TIE = 0.05


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    yield pool
    await pool.close()


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a node of a query's plan and all below it."""
    return [plan, *(below for one in plan.get("Plans", []) for below in nodes(one))]


async def test_a_look_at_one_model_joins_no_words_about_others(
    pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pair(number: int, domain: str, model: str, other: str, kind: Any = "shadow") -> ComparedPair:
        return ComparedPair(f"tsk_{number}", "acme", domain, model, other, 1.0, 0.0, kind, number)

    mine = [pair(1, "d", "small", "large"), pair(2, "d", "large", "small"), pair(3, "d", "small", "other")]
    mine += [pair(4, "d", "small", "large", "escalation"), pair(5, "d", "large", "other")]
    await pair_store.add(pool, [*mine, *(pair(100 + number, "e", "small", "large") for number in range(200))])
    assert await pair_store.latest(pool, "small", "d", ["large"], 0, TIE) == [("acme", 1), ("acme", -1)]
    plan = await pool.fetchval(
        "EXPLAIN (ANALYZE, FORMAT JSON) " + pair_store._LATEST, 0, TIE, "small", "d", ["large"], 9
    )
    made = [
        one["Actual Rows"]
        for one in nodes(msgspec.json.decode(plan)[0]["Plan"])
        if one.get("Subplan Name") == "CTE heard"
    ]
    assert made == [2]
    # Of a read that is cut, the newest stay.
    monkeypatch.setattr(pair_store, "MODELS_READ_MAX", 2)
    assert {one.domain for one in await pair_store.counted(pool, 0, TIE, [])} == {"e"}
