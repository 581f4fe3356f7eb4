"""The books in PostgreSQL: each row once whatever came how often, and figures that add up."""

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
from collegium_billing.books.booking import AttemptRow, TaskRow, book
from collegium_billing.books.store import Store
from collegium_billing.books.sums import DAY_MS
from collegium_billing.reports import usage
from collegium_billing.reports.usage_store import UsageStore
from collegium_contracts.messages import JourneyMessage
from collegium_contracts.money import picos_to_usd
from collegium_contracts.requests import UsageFigures, UsageReply, UsageRequest
from collegium_contracts.scope import AllTenants, Scope
from collegium_store import open_pool
from collegium_store.archive import ArchivedEvent


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await open_pool(database_url, application_name="billing-test")
    yield pool
    await pool.close()


@pytest.fixture
def store(pool: asyncpg.Pool) -> Store:
    return Store(pool)


async def report(store: Store, make: Any, *groups: str, tenant: str | None = None, days: int = 4) -> UsageReply:
    asked = UsageRequest(tenant=tenant, from_ms=make.now_ms, to_ms=make.now_ms + days * DAY_MS, group_by=list(groups))
    query = usage.query(asked)
    return usage.reply(query, *await UsageStore(store._pool).usage(query, make.now_ms))


async def rows(pool: asyncpg.Pool) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table: [
            # What stood before a change tells of the order in which a call was told of, and of nothing else.
            tuple(value for name, value in row.items() if not name.startswith("earlier_"))
            for row in await pool.fetch(f"SELECT * FROM billing.{table} ORDER BY 1, 2, 3")
        ]
        for table in ("starts", "attempts", "tasks")
    }


def expected(attempts: list[AttemptRow], tasks: list[TaskRow]) -> UsageFigures:
    """The figures by the definitions of interface.md, from rows in memory."""
    return UsageFigures(
        requests=sum(task.state == "completed" or task.charge_picos != "0" for task in tasks),
        input_tokens=sum(task.input_tokens for task in tasks),
        cached_input_tokens=sum(task.cached_input_tokens for task in tasks),
        output_tokens=sum(task.output_tokens for task in tasks),
        cache_write_tokens=sum(task.cache_write_tokens for task in tasks),
        reasoning_tokens=sum(task.reasoning_tokens for task in tasks),
        cost_usd=picos_to_usd(sum(int(attempt.cost_picos) for attempt in attempts)),
        wasted_usd=picos_to_usd(sum(int(attempt.cost_picos) for attempt in attempts if attempt.wasted)),
        charged_usd=picos_to_usd(sum(int(task.charge_picos) for task in tasks)),
        saved_usd=picos_to_usd(sum(int(task.saved_picos) for task in tasks)),
        margin_usd=picos_to_usd(
            sum(int(task.charge_picos) for task in tasks) - sum(int(attempt.cost_picos) for attempt in attempts)
        ),
    )


async def test_any_order_any_duplicates_any_batches_make_the_same_rows_and_figures(
    store: Store, pool: asyncpg.Pool, make: Any, rng: random.Random
) -> None:
    history: list[JourneyMessage] = []
    for number in range(40):
        history += make.a_history(number, rng)
    seen: list[Any] = []
    for _ in range(6):
        await pool.execute("TRUNCATE billing.starts, billing.attempts, billing.tasks, billing.usage_sums")
        shuffled = rng.sample(history, len(history)) + rng.choices(history, k=60)
        cuts = sorted({0, len(shuffled), *(rng.randrange(len(shuffled)) for _ in range(12))})
        for begin, end in pairwise(cuts):
            await store.book(book(shuffled[begin:end]), [])
        seen.append((await rows(pool), await report(store, make, "tenant", "model", "tag", "day")))

    assert all(one == seen[0] for one in seen)
    assert seen[0][1].totals == expected(book(history).attempts, book(history).tasks)


async def test_every_group_sums_to_the_totals(store: Store, make: Any, rng: random.Random) -> None:
    history = [event for number in range(30) for event in make.a_history(number, rng)]
    await store.book(book(history), [])

    for group in ("tenant", "project", "key", "model", "rank", "plan", "day"):
        answer = await report(store, make, group)
        assert sum(row.figures.requests for row in answer.rows) == answer.totals.requests
        assert sum(row.figures.output_tokens for row in answer.rows) == answer.totals.output_tokens
        assert len({row.group[group] for row in answer.rows}) == len(answer.rows)


async def test_without_groups_there_is_one_row_even_where_nothing_was_used(store: Store, make: Any) -> None:
    answer = await report(store, make)
    assert [row.group for row in answer.rows] == [{}]
    assert answer.rows[0].figures == answer.totals == expected([], [])


async def test_a_task_counts_under_each_of_its_tags_and_once_in_the_totals(store: Store, make: Any) -> None:
    tagged, plain = make.task("a", tags={"team": "x", "env": "y"}), make.task("b")
    await store.book(book([make.settled(tagged, [make.call(cost=5)]), make.settled(plain, [make.call(cost=3)])]), [])

    answer = await report(store, make, "tag")
    assert {row.group["tag"]: (row.figures.requests, row.figures.cost_usd) for row in answer.rows} == {
        "env=y": (1, picos_to_usd(5)),
        "team=x": (1, picos_to_usd(5)),
        "": (1, picos_to_usd(3)),
    }
    assert (answer.totals.requests, answer.totals.cost_usd) == (2, picos_to_usd(8))


async def test_a_reused_answer_is_a_request_that_costs_nothing_and_saves_its_originals_charge(
    store: Store, pool: asyncpg.Pool, make: Any
) -> None:
    told = make.reused(["a", "b"], saved=7, tags={"team": "x"})
    for _ in range(2):
        await store.book(book([make.settled(make.task("o"), [make.call()], charge=7), told]), [])

    totals = (await report(store, make)).totals
    assert (totals.requests, totals.charged_usd, totals.saved_usd) == (3, picos_to_usd(7), picos_to_usd(14))
    of_team = {row.group["tag"]: row.figures.saved_usd for row in (await report(store, make, "tag")).rows}
    assert of_team == {"": "0", "team=x": picos_to_usd(14)}
    found = await pool.fetch("SELECT cache, saved_picos FROM billing.tasks ORDER BY saved_picos")
    assert [tuple(row) for row in found] == [("off", 0), ("hit_exact", 7), ("hit_exact", 7)]


async def test_what_was_not_charged_and_not_completed_is_no_request(store: Store, make: Any) -> None:
    await store.book(
        book(
            [
                make.settled(make.task("a"), [make.call(cost=5)], state="failed", charge=0),
                make.settled(make.task("b"), [], state="canceled", charge=0),
                make.settled(make.task("c"), [make.call()], state="canceled", charge=4),
                make.settled(make.task("d"), [make.call()], charge=0),
            ]
        ),
        [],
    )
    totals = (await report(store, make)).totals
    assert (totals.requests, totals.charged_usd, totals.cost_usd) == (2, picos_to_usd(4), picos_to_usd(15))


async def test_a_day_is_a_date_of_utc_and_the_range_is_half_open(store: Store, make: Any) -> None:
    edges = {"a": -1, "b": 0, "c": DAY_MS - 1, "d": DAY_MS, "e": 2 * DAY_MS}
    await store.book(
        book([make.settled(make.task(name), [make.call()], at_ms=make.now_ms + at) for name, at in edges.items()]), []
    )
    answer = await report(store, make, "day", days=2)
    assert {row.group["day"]: row.figures.requests for row in answer.rows} == {"2026-01-01": 2, "2026-01-02": 1}


async def test_one_tenant_sees_only_its_own(store: Store, make: Any) -> None:
    for tenant in ("acme", "other"):
        await store.book(book([make.settled(make.task(tenant, tenant=tenant), [make.call()])]), [])
    answer = await report(store, make, "tenant", tenant="acme")
    assert [row.group["tenant"] for row in answer.rows] == ["acme"]
    assert answer.totals.requests == 1


async def test_money_beyond_63_bits_adds_up_to_the_last_unit(store: Store, make: Any) -> None:
    top = 2**64 - 1
    tasks = [make.settled(make.task(name), [make.call(cost=top)], charge=top) for name in "abc"]
    await store.book(book(tasks), [])
    totals = (await report(store, make)).totals
    assert totals.cost_usd == totals.charged_usd == picos_to_usd(3 * top)


async def test_a_start_without_an_end_is_possible_spend_until_the_end_is_booked(store: Store, make: Any) -> None:
    lost, ended = make.task("a"), make.task("b", tenant="other")
    await store.book(book([make.started(lost), make.started(lost, delivery=2), make.started(ended)]), [])
    await store.book(book([make.settled(ended, [make.call()])]), [])

    listed = await store.possible_spend(AllTenants("a test"), make.now_ms, make.now_ms + 1)
    assert [(one.task_id, one.delivery, one.at_ms) for one in listed] == [
        (lost.id, 1, make.now_ms),
        (lost.id, 2, make.now_ms),
    ]
    assert await store.possible_spend(Scope("other"), make.now_ms, make.now_ms + 1) == []
    await store.book(book([make.discarded(lost, make.call()), make.settled(lost, [make.call(delivery=2)])]), [])
    assert await store.possible_spend(AllTenants("a test"), make.now_ms, make.now_ms + 1) == []


async def test_a_batch_is_all_or_nothing(store: Store, pool: asyncpg.Pool, make: Any) -> None:
    event = ArchivedEvent(
        stream="EVENTS",
        sequence=1,
        subject="task.settled.acme.x",
        tenant="acme",
        task="x",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        headers=b"",
        payload=b"p",
    )
    too_large = make.settled(make.task("a"), [make.call(duration_ms=2**63)])
    with pytest.raises(asyncpg.DataError):
        await store.book(book([make.started(make.task("b")), too_large]), [event])
    assert await rows(pool) == {"starts": [], "attempts": [], "tasks": []}
    assert await pool.fetchval("SELECT count(*) FROM archive.events") == 0
