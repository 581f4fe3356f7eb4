"""Scores by hour and tenant: every event once, words in their own hour, and nobody's but the tenant's own."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_contracts.evolution import ScoreboardAsk
from collegium_contracts.feedback import Feedback
from collegium_contracts.messages import TaskCompleted
from collegium_contracts.parts import Probe
from collegium_evolution.scoreboards import window_store
from collegium_evolution.scoreboards.judging import outcome_of
from collegium_evolution.scoreboards.looking import look
from collegium_evolution.scoreboards.scoring import calls_of
from collegium_evolution.scoreboards.store import Folding, Store
from collegium_evolution.scoreboards.windows import HOUR_NS, settled_in

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    yield pool
    await pool.close()


def folding(sequence: int, message: Any, at_ms: int) -> Folding:
    stored_ns = at_ms * 1_000_000 + sequence
    return Folding(
        sequence, stored_ns, calls_of(message), outcome_of(message, stored_ns), None, message.task.tenant,
        settled_in(message),
    )  # fmt: skip


def settled(make: Any, number: int, *, tenant: str = "acme", domain: str = "law", **call: Any) -> Any:
    return make.settled(make.task(str(number), domain=domain, tenant=tenant), [make.call(**call)])


def word(make: Any, number: int, score: float, *, tenant: str = "acme", source: Any = "client") -> Feedback:
    task = make.task(str(number), domain="law", tenant=tenant)
    return Feedback(id="f", task=task, source=source, score=score, at_ms=1, model="m", rank="student")


async def quality(pool: Any, make: Any, tenant: str = "") -> tuple[float, float | None]:
    reply = await look(pool, ScoreboardAsk(tenant=tenant, model="m"), 7, make.now_ms)
    [row] = reply.rows
    return row.judged, row.quality


async def test_what_contradicts_itself_comes_twice_or_late_counts_by_its_last_word_in_its_own_hour(
    pool: asyncpg.Pool, make: Any, rng: random.Random
) -> None:
    store = Store(pool, "scoreboard")
    now = make.now_ms - HOUR_MS
    told = [
        folding(1, word(make, 1, 1.0), now - 3 * HOUR_MS),
        folding(2, word(make, 1, 0.0), now),
        folding(3, word(make, 2, 1.0), now - 2 * HOUR_MS),
        folding(4, word(make, 2, 0.5, source="outcome"), now),
    ]
    told += told
    rng.shuffle(told)
    for one in told:
        await store.fold([one])
    rows = await pool.fetch("SELECT hour, judged, score_sum, square_sum FROM evolution.windows WHERE judged <> 0")
    hours = {row["hour"] - now // HOUR_MS: (row["judged"], row["score_sum"], row["square_sum"]) for row in rows}
    assert hours == {0: (2, 0.5, 0.25), -2: (1, 1.0, 1.0)}
    assert (await store.board()).scores[0].judged == 3


async def test_a_tenant_that_poisons_its_words_changes_its_own_scores_and_the_sum_of_all(
    pool: asyncpg.Pool, make: Any
) -> None:
    store = Store(pool, "scoreboard")
    at_ms = make.now_ms - HOUR_MS
    events = [folding(number, word(make, number, 1.0), at_ms) for number in range(1, 11)]
    events += [folding(number, word(make, number, 0.0, tenant="liar"), at_ms) for number in range(11, 31)]
    await store.fold(events)
    assert await quality(pool, make, "acme") == (pytest.approx(10, rel=0.02), 1.0)
    assert await quality(pool, make, "liar") == (pytest.approx(20, rel=0.02), 0.0)
    assert (await quality(pool, make))[1] == pytest.approx(1 / 3)
    assert await store.erase("liar") > 0
    assert (await quality(pool, make))[1] == 1.0


async def test_refusals_latency_and_cost_are_seen_and_old_ones_fade(pool: asyncpg.Pool, make: Any) -> None:
    store = Store(pool, "scoreboard")
    declined = settled(make, 1, duration_ms=100, cost=10)
    assert isinstance(declined, TaskCompleted)
    declined = msgspec.structs.replace(declined, stop_reason="content_filter")
    now = make.now_ms - HOUR_MS
    old = [folding(number, settled(make, number, duration_ms=900, cost=90), now - 7 * DAY_MS) for number in (2, 3)]
    await store.fold([folding(1, declined, now), *old])
    [row] = (await look(pool, ScoreboardAsk(), 7, make.now_ms)).rows
    assert row.calls == pytest.approx(2, rel=0.01)
    assert (row.refusals, row.duration_ms) == (pytest.approx(0.5, rel=0.01), pytest.approx(500, rel=0.01))
    assert row.cost_usd_picos == pytest.approx(50, rel=0.01)
    assert (await look(pool, ScoreboardAsk(half_life_days=0.01), 7, make.now_ms)).rows[0].refusals == pytest.approx(1)


async def test_a_fall_of_quality_is_told_as_drift(pool: asyncpg.Pool, make: Any) -> None:
    store = Store(pool, "scoreboard")
    begins = make.now_ms - 40 * HOUR_MS
    events = [
        folding(number, word(make, number, float(hour < 30 or number % 2)), begins + hour * HOUR_MS)
        for number in range(1, 801)
        for hour in [(number - 1) // 20]
    ]
    await store.fold(events)
    [row] = (await look(pool, ScoreboardAsk(tenant="acme"), 7, make.now_ms)).rows
    assert row.drift == "quality"
    assert (row.drift_before, row.drift_after) == (1.0, 0.5)
    assert row.drift_at_ms == (begins // HOUR_MS + 31) * HOUR_MS


async def test_probes_are_no_work_that_anybody_asked_for(pool: asyncpg.Pool, make: Any) -> None:
    store = Store(pool, "scoreboard")
    probe = settled(make, 1)
    probe = msgspec.structs.replace(probe, task=msgspec.structs.replace(probe.task, probe=Probe(of="tsk_0")))
    events = [folding(1, probe, make.now_ms), folding(2, settled(make, 2), make.now_ms)]
    await store.fold([*events, *events])
    assert await window_store.settled(pool) == 1
    rows, _ = await window_store.domains(pool, make.now_ms - DAY_MS)
    assert [(row["domain"], row["settled"]) for row in rows] == [("law", 1)]
    await window_store.prune(pool, make.now_ms + (window_store.KEPT_DAYS + 1) * DAY_MS)
    assert await pool.fetchval("SELECT count(*) FROM evolution.windows") == 0


def test_hours_follow_the_broker_and_not_the_client() -> None:
    assert HOUR_NS == HOUR_MS * 1_000_000
