"""Sums: a report over any time equals the sums of the rows alone, whatever came how often in which order."""

from __future__ import annotations

import asyncio
import importlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_billing import migrations
from collegium_billing.books import sums
from collegium_billing.books.booking import AttemptRow, TaskRow, Teacher, book
from collegium_billing.books.store import Store
from collegium_billing.books.sums import DAY_MS, HOUR_MS, SumRow
from collegium_billing.errors import QuestionError
from collegium_billing.reports import usage
from collegium_billing.reports.requestlog import RequestLog
from collegium_billing.reports.usage import GROUPS, Part, UsageQuery
from collegium_billing.reports.usage_store import UsageStore, statement
from collegium_contracts.money import Price
from collegium_contracts.reports import RequestsRequest
from collegium_contracts.scope import AllTenants, Scope, tenant_of
from collegium_store import open_pool
from hypothesis import given
from hypothesis import strategies as st

TEACHERS = (Teacher("dear", Price(input_picos=900, output_picos=900)), Teacher("big", Price(output_picos=700)))

ALL = AllTenants("a test")


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await open_pool(database_url, application_name="billing-test")
    yield pool
    await pool.close()


async def by_rows(pool: asyncpg.Pool, asked: UsageQuery) -> list[tuple[Any, ...]]:
    """What the rows alone give."""
    made_of = [Part(0, asked.from_ms, asked.to_ms)]
    found = await pool.fetch(
        statement(asked.groups, made_of), tenant_of(asked.scope), None, None, asked.from_ms, asked.to_ms
    )
    return sorted(tuple(row) for row in found)


def covered(made_of: list[Part], at_ms: int) -> int:
    return sum(part.sign for part in made_of if part.from_ms <= at_ms < part.to_ms)


@given(st.integers(0, 4 * DAY_MS), st.integers(1, 3 * DAY_MS), st.integers(-DAY_MS, 8 * DAY_MS), st.data())
def test_the_parts_cover_a_time_once_and_nothing_else(begin: int, length: int, now_ms: int, data: Any) -> None:
    end = begin + length
    made_of = usage.parts(begin, end, now_ms)
    edges = [begin, end, *(bound for part in made_of for bound in (part.from_ms, part.to_ms))]
    for at_ms in [*(edge + step for edge in edges for step in (-1, 0, 1)), data.draw(st.integers(0, 8 * DAY_MS))]:
        assert covered(made_of, at_ms) == (begin <= at_ms < end)
    for part in made_of:
        unit_ms = part.seconds * 1000 or 1
        assert part.from_ms % unit_ms == part.to_ms % unit_ms == 0
        assert part.seconds or part.to_ms - part.from_ms < HOUR_MS


def test_a_report_up_to_now_reads_no_rows_but_of_the_future() -> None:
    now = 10 * DAY_MS + 5 * HOUR_MS + 3_500_000
    rows = [part for part in usage.parts(9 * DAY_MS, now + 1000, now) if part.seconds == 0]
    assert all(part.from_ms > now for part in rows)


async def test_a_report_equals_the_sums_of_the_rows(pool: asyncpg.Pool, make: Any, rng: random.Random) -> None:
    store, reports = Store(pool), UsageStore(pool)
    history = [event for number in range(60) for event in make.a_history(number, rng)]
    # Left to the platform, so that routing can have saved.
    told = rng.sample(history, len(history)) + rng.choices(history, k=80)
    step = 17
    for begin in range(0, len(told), step):
        await store.book(book(told[begin : begin + step], TEACHERS), [])

    for _ in range(25):
        begin = make.now_ms + rng.randrange(-HOUR_MS, 3 * DAY_MS)
        end = begin + rng.choice([HOUR_MS, DAY_MS, 2 * DAY_MS, rng.randrange(1, 3 * DAY_MS)])
        if rng.random() < 0.4:
            begin, end = begin - begin % HOUR_MS, end + HOUR_MS - end % HOUR_MS
        groups = tuple(rng.sample(GROUPS, rng.randrange(4)))
        asked = UsageQuery(rng.choice([ALL, Scope("t0"), Scope("t1")]), begin, end, groups)
        rows, totals = await reports.usage(asked, rng.choice([begin, end, make.now_ms + DAY_MS]))
        assert [tuple(totals)[1:]] == await by_rows(pool, msgspec.structs.replace(asked, groups=()))
        found = sorted((*row.group, *row[1:]) for row in rows)
        assert found == [tuple(row) for row in await by_rows(pool, asked)]
    assert await pool.fetchval("SELECT sum(saved_picos) FROM billing.usage_sums WHERE seconds = 3600") != 0


async def test_replicas_that_book_the_same_events_at_once_sum_each_row_once(
    pool: asyncpg.Pool, make: Any, rng: random.Random
) -> None:
    history = [event for number in range(80) for event in make.a_history(number, rng)]
    replicas = [Store(pool) for _ in range(3)]

    async def booking(store: Store, seed: int) -> None:
        told = random.Random(seed).sample(history, len(history))
        for begin in range(0, len(told), 40):
            await store.book(book(told[begin : begin + 40], TEACHERS), [])

    await asyncio.gather(*(booking(store, seed) for seed, store in enumerate(replicas)))
    asked = UsageQuery(ALL, make.now_ms, make.now_ms + 4 * DAY_MS, ("tenant", "model", "day"))
    rows, _ = await UsageStore(pool).usage(asked, make.now_ms)
    assert sorted((*row.group, *row[1:]) for row in rows) == await by_rows(pool, asked)


async def test_the_migration_sums_up_what_stood(pool: asyncpg.Pool, make: Any, rng: random.Random) -> None:
    every = """
        SELECT seconds, begins_at, digest, tenant, tags, sum(requests), sum(output_tokens), sum(cost_picos),
               sum(wasted_picos), sum(charge_picos), sum(saved_picos)
        FROM billing.usage_sums GROUP BY 1, 2, 3, 4, 5
        HAVING sum(requests) <> 0 OR sum(output_tokens) <> 0 OR sum(cost_picos) <> 0 ORDER BY 1, 2, 3
    """
    history = [event for number in range(40) for event in make.a_history(number, rng)]
    await Store(pool).book(book(history), [])
    kept = await pool.fetch(every)
    await pool.execute("TRUNCATE billing.usage_sums")
    [path] = Path(migrations.__file__).parent.glob("*_reports.py")
    migration = importlib.import_module(f"collegium_billing.migrations.{path.stem}")
    await pool.execute(migration._BACKFILL)
    assert await pool.fetch(every) == kept


async def test_a_late_verdict_of_waste_puts_the_sums_right(pool: asyncpg.Pool, make: Any) -> None:
    store = Store(pool)
    call = make.call(cost=5)
    await store.book(book([make.answered(make.task("a"), call, at_ms=make.now_ms + HOUR_MS)]), [])
    lost = msgspec.structs.replace(call, wasted=True)
    costs = await store.book(book([make.settled(make.task("a"), [lost], at_ms=make.now_ms)]), [])
    assert costs == {}
    found = await pool.fetch(
        "SELECT begins_at, sum(cost_picos)::int8, sum(wasted_picos)::int8, sum(requests)::int8 FROM billing.usage_sums"
        " WHERE seconds = 3600 GROUP BY begins_at ORDER BY begins_at"
    )
    assert [tuple(row)[1:] for row in found] == [(5, 5, 1), (0, 0, 0)]


async def test_before_the_purge_only_full_hours_are_answered(pool: asyncpg.Pool, make: Any) -> None:
    await Store(pool).book(book([make.settled(make.task("a"), [make.call()])]), [])
    await pool.execute("INSERT INTO billing.purges (horizon) VALUES ($1)", usage.datetime(2026, 1, 2, tzinfo=usage.UTC))
    reports = UsageStore(pool)
    _, totals = await reports.usage(UsageQuery(ALL, make.now_ms, make.now_ms + DAY_MS, ()), make.now_ms + 5 * DAY_MS)
    assert totals.requests == 1
    with pytest.raises(QuestionError, match="full hours"):
        await reports.usage(UsageQuery(ALL, make.now_ms + 1, make.now_ms + DAY_MS, ()), make.now_ms + 5 * DAY_MS)


def test_rows_hold_what_a_sum_is_of_where_it_is_cut_out() -> None:
    names = ("tenant", "project", "key_id", "model", "rank", "plan", "tags")
    assert TaskRow._fields[1:8] == AttemptRow._fields[3:10] == SumRow._fields[2:9] == names


def test_saved_is_what_the_cheapest_teacher_would_have_charged_less_the_charge(make: Any) -> None:
    call = make.call(model="small", rank="student")
    [row] = book([make.settled(make.task("a"), [call], charge=60)], TEACHERS).tasks
    assert (row.reference_model, row.reference_picos, sums.saved_picos(row)) == ("big", "2800", 2740)
    by_teacher = make.settled(make.task("b"), [make.call(rank="teacher")])
    failed = make.settled(make.task("c"), [call], state="failed")
    embedded = make.settled(msgspec.structs.replace(make.task("e"), kind="embedding"), [call])
    unsaved = (
        (by_teacher, TEACHERS),
        (failed, TEACHERS),
        (embedded, TEACHERS),
        (make.settled(make.task("d"), [call]), ()),
        (msgspec.structs.replace(make.settled(make.task("f"), [call]), model="person:law", rank="person"), TEACHERS),
    )
    for settled, teachers in unsaved:
        [row] = book([settled], teachers).tasks
        assert (row.reference_model, sums.saved_picos(row)) == ("", 0)


def test_a_reused_answer_saves_what_its_original_was_charged_and_was_routed_nowhere(make: Any) -> None:
    [row] = book([make.reused(["a"], saved=9)], TEACHERS).tasks
    assert (row.reference_model, sums.saved_picos(row)) == ("", 9)
    changes = sums.Changes()
    changes.add_tasks([row])
    assert [(change.requests, change.charge_picos, change.saved_picos) for change in changes.rows()] == [
        ("1", "0", "9"),
        ("1", "0", "9"),
    ]


async def test_classes_of_tokens_are_in_reports_and_in_the_log(pool: asyncpg.Pool, make: Any) -> None:
    calls = [make.call(), make.call(2)]
    await Store(pool).book(book([make.settled(make.task("a"), calls, plan="panel")]), [])
    asked = UsageQuery(ALL, make.now_ms - DAY_MS, make.now_ms + DAY_MS, ("model",))
    ((row,), totals) = await UsageStore(pool).usage(asked, make.now_ms)
    for found in (row, totals):
        figures = usage.figures(found)
        assert (figures.input_tokens, figures.cached_input_tokens, figures.cache_write_tokens) == (20, 4, 6)
        assert (figures.output_tokens, figures.reasoning_tokens) == (8, 2)
    page = await RequestLog(pool).page(
        RequestsRequest(tenant="acme", from_ms=make.now_ms - DAY_MS, to_ms=make.now_ms + DAY_MS)
    )
    assert [(one.cache_write_tokens, one.reasoning_tokens) for one in page.rows] == [(6, 2)]
