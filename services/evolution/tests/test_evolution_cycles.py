"""Rounds of learning and gaps: one at a time, each step once, whoever was killed in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from collegium_bus.errors import RequestRefusedError
from collegium_evolution import telling
from collegium_evolution.cycles import cycle_store, planning
from collegium_evolution.cycles.running import Cycles
from collegium_evolution.gaps import gap_store
from collegium_evolution.gaps.finding import Known, gap_of, over_all, ranked, upper_bound
from collegium_evolution.gaps.rounds import GapRounds
from collegium_evolution.scoreboards import window_store
from collegium_evolution.scoreboards.windows import DomainKey, DomainSum, WindowKey, WindowSum
from collegium_evolution.telling import Telling
from collegium_settings import Secret, Settings
from collegium_settings.settings import AlertSettings, EvolutionSettings
from collegium_testing import eventually
from collegium_testing.webhooks import WebhookReceiver
from hypothesis import given
from hypothesis import strategies as st

HOUR_MS = 3_600_000
SECRET = "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldY"


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    yield pool
    await pool.close()


async def settle(pool: Any, count: int, hour: int) -> None:
    await window_store.add(pool, {}, {DomainKey("acme", "law", hour): DomainSum(settled=count)})


def steps(done: list[str], **instead: Any) -> dict[str, Any]:
    def step(name: str) -> Any:
        async def do(cycle: str) -> list[str]:
            done.append(name)
            return [f"{name} of {cycle}"]

        return do

    return {name: step(name) for name in planning.STEPS if name != "students"} | instead


async def test_a_round_runs_when_enough_has_settled_and_reports(platforms: Any, pool: asyncpg.Pool, make: Any) -> None:
    platform = await platforms(settings=Settings(evolution=EvolutionSettings(interval_queries=10)))
    done: list[str] = []

    async def fails(_cycle: str) -> list[str]:
        raise RequestRefusedError("not_found", "no roster")

    cycles = Cycles(platform, pool, steps(done, policy=fails))
    hour = make.now_ms // HOUR_MS
    await settle(pool, 9, hour)
    assert await cycles.look() is None
    await settle(pool, 500, hour)
    cycle = await cycles.look()
    assert cycle is not None
    assert done == ["gaps", "shadow", "promotion"], "and of all that was missed one round is made"
    assert [(step.name, step.state) for step in cycle.steps] == [
        ("gaps", "done"), ("students", "none"), ("shadow", "done"), ("promotion", "done"), ("policy", "failed"),
    ]  # fmt: skip
    assert (cycle.state, cycle.cause, cycle.queries) == ("failed", "interval", 509)
    assert cycle.steps[-1].lines == ["failed: not_found"]
    assert await cycles.look() is None
    assert await cycle_store.cycle(pool, cycle.id) == cycle
    assert await cycle_store.cycles(pool, 5) == [cycle]


async def test_a_killed_round_goes_on_with_its_first_step_that_was_not_done(
    platforms: Any, pool: asyncpg.Pool, make: Any
) -> None:
    platform = await platforms()
    done: list[str] = []
    begun = planning.begun("cyc_1", "demand", "key1", 3, make.now_ms)
    begun = planning.with_step(begun, "gaps", "done", ["kept"], make.now_ms)
    assert await cycle_store.begin(pool, begun)
    cycles = Cycles(platform, pool, steps(done))
    with pytest.raises(RequestRefusedError) as refused:
        await cycles.demand("key2")
    assert refused.value.code == "cycle_running"
    ended = await cycles.look()
    assert ended is not None
    assert (ended.id, ended.state, done) == ("cyc_1", "done", ["shadow", "promotion", "policy"])
    assert ended.steps[0].lines == ["kept"]
    assert all(not step.lines for step in planning.brief(ended).steps)
    with pytest.raises(ValueError, match="nosuch"):
        Cycles(platform, pool, {"nosuch": steps(done)["gaps"]})


async def test_of_two_replicas_one_does_a_round_on_demand(platforms: Any, pool: asyncpg.Pool) -> None:
    done: list[str] = []
    replicas = [Cycles(await platforms(), pool, steps(done), look_seconds=0.02) for _ in range(2)]
    asked = await asyncio.gather(*(one.demand("key") for one in replicas), return_exceptions=True)
    assert len([one for one in asked if not isinstance(one, BaseException)]) == 1
    for one in replicas:
        one.start()

    async def is_over() -> bool:
        return await cycle_store.running(pool) is None

    await eventually(is_over)
    for one in replicas:
        await one.stop()
    assert done == ["gaps", "shadow", "promotion", "policy"]


@given(st.lists(st.tuples(st.integers(0, 300), st.floats(0, 1)), min_size=1, max_size=8), st.floats(0.1, 0.99))
def test_gaps_lie_below_their_target_and_are_ranked_by_what_they_cost(rows: list[tuple[int, float]], target: float):
    known = [
        Known("acme", f"d{number}", count + 1, 10**9 * (number + 1), (("feedback", count, count * mean),))
        for number, (count, mean) in enumerate(rows)
    ]
    found = ranked(gap_of(one, target, 14) for one in known)
    assert [gap.score for gap in found] == sorted((gap.score for gap in found), reverse=True)
    for gap in found:
        assert gap.upper < target
        assert gap.judged >= 20
        assert gap.accuracy <= gap.upper <= 1


def test_a_bound_closes_as_more_is_known_and_the_strongest_signal_speaks():
    assert upper_bound(20, 0.5) > upper_bound(200, 0.5) > 0.5
    told = Known("a", "law", 100, 1, (("feedback", 5, 0.0), ("confidence", 100, 95.0)))
    assert gap_of(told, 0.8, 14) is None, "five words say nothing, and the verdicts are sure"
    heard = told._replace(signals=(("feedback", 100, 30.0), ("confidence", 100, 95.0)))
    gap = gap_of(heard, 0.8, 14)
    assert gap is not None
    assert (gap.signal, gap.accuracy, gap.judged) == ("feedback", 0.3, 100)
    [both] = over_all([heard, heard._replace(tenant="b")])
    assert (both.tenant, both.settled, both.signals[0]) == ("", 200, ("feedback", 200, 60.0))


async def test_reports_and_messages_forget_a_tenant_that_is_erased(platforms: Any, pool: asyncpg.Pool) -> None:
    lines = ["small for ta: student to ta", "ta: version 3 is live", "ta/law: too_few_samples", "head.ta.law-1: 40"]
    kept = ["small: student to ta", "small for ta-2: student to ta", "head.ta-2.law-1: 40", "data: version 1 is live"]
    cycle = planning.begun("cyc_1", "demand", "op", 1, 1)
    cycle = planning.ended(planning.with_step(cycle, "promotion", "done", [*lines, *kept], 2), 3)
    assert await cycle_store.begin(pool, cycle)
    alerts = AlertSettings(webhook_url="https://example.org/", webhook_secret=Secret(SECRET))
    told = Telling(await platforms(settings=Settings(alerts=alerts)), pool)
    for name, about in {
        "1": {"tenant": "ta", "model": "m"}, "2": {"model": "head.ta.law-1"},
        "3": {"tenant": "", "model": "m", "after": "ta"},
    }.items():  # fmt: skip
        await told.tell(name, "rank.changed", about)
    assert await cycle_store.erase(pool, "ta") == 1
    assert await telling.erase(pool, "ta") == 2
    found = await cycle_store.cycle(pool, "cyc_1")
    assert found is not None
    assert [line for step in found.steps for line in step.lines] == kept
    assert [row["id"] for row in await pool.fetch("SELECT id FROM evolution.tellings")] == ["3"]
    assert (await cycle_store.erase(pool, "ta"), await telling.erase(pool, "ta")) == (0, 0)


async def test_a_new_gap_is_kept_and_told_of_once(platforms: Any, pool: asyncpg.Pool, make: Any) -> None:
    async with WebhookReceiver(secret=SECRET) as receiver:
        alerts = AlertSettings(webhook_url=receiver.url, webhook_secret=Secret(SECRET))
        platform = await platforms(settings=Settings(alerts=alerts))
        posting = Telling(platform, pool)
        counted: list[int] = []
        rounds = GapRounds(platform, pool, posting.tell, counted.append)
        hour = make.now_ms // HOUR_MS - 5
        bad = WindowSum(judged=100, score_sum=30.0, square_sum=30.0)
        domains = {DomainKey("acme", "law", hour): DomainSum(settled=100, cost_picos=10**12)}
        await window_store.add(pool, {WindowKey("acme", "m", "law", "student", hour): bad}, domains)
        lines = await rounds.run("cyc_1")
        assert lines == ["new: law: accuracy 0.30, at most 0.42 of 0.80 wanted, by 100 of 100 tasks (feedback)"]
        assert await rounds.run("cyc_1") == lines, "begun again after a kill it is still new"
        assert (await rounds.run("cyc_2"))[0].startswith("law: ")
        assert counted == [1, 1, 1]
        await posting.post()
        await posting.post()
        [posted] = receiver.received
        assert (posted.event["type"], posted.event["data"]["domain"]) == ("gap.found", "law")
        [gap], [own] = await gap_store.gaps(pool, "", 10), await gap_store.gaps(pool, "acme", 10)
        assert (gap.domain, own.tenant, gap.first_at_ms) == ("law", "acme", make.now_ms)
        good = WindowSum(judged=2_000, score_sum=2_000.0, square_sum=2_000.0)
        await window_store.add(pool, {WindowKey("acme", "m", "law", "student", hour): good}, {})
        assert await rounds.run("cyc_3") == []
        assert await gap_store.gaps(pool, "", 10) == []
        assert await pool.fetchval("SELECT count(*) FROM evolution.tellings") == 0
