"""The archive on a real database: once each, readable by task, time and subject, made and dropped by days."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest
from collegium_store import archive, migrate, open_pool
from collegium_store.archive import ARCHIVE_MIGRATIONS, ArchivedEvent

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def apply(url: str) -> None:
    await migrate(url, [ARCHIVE_MIGRATIONS])


@pytest.fixture(scope="session")
def database_migrations() -> object:
    return apply


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await open_pool(database_url, application_name="test", max_size=8)
    yield pool
    await pool.close()


def event(sequence: int, **changes: object) -> ArchivedEvent:
    made = ArchivedEvent(
        "EVENTS", sequence, f"task.settled.acme.tsk_{sequence % 3}", "acme", f"tsk_{sequence % 3}",
        START + timedelta(hours=sequence), b"NATS/1.0\r\n\r\n", bytes([sequence % 256]) * 10,
    )  # fmt: skip
    return made._replace(**changes)


async def days(pool: asyncpg.Pool) -> int:
    return await pool.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'archive.events'::regclass")


async def test_events_come_back_as_they_were(pool: asyncpg.Pool) -> None:
    events = [event(number) for number in range(1, 101)]
    await archive.append(pool, events)
    assert await archive.read(pool) == events
    assert await days(pool) == 5
    assert await archive.last_sequence(pool, "EVENTS") == 100
    assert await archive.last_sequence(pool, "LEDGER") == 0


async def test_appending_again_changes_nothing(pool: asyncpg.Pool) -> None:
    await archive.append(pool, [])
    await archive.append(pool, [event(1), event(2), event(2)])
    await archive.append(pool, [event(2, payload=b"other"), event(3, tenant="", task=None)])
    assert await archive.read(pool) == [event(1), event(2), event(3, tenant=None, task=None)]


async def test_many_writers_at_a_new_day_do_not_fall_over_each_other(pool: asyncpg.Pool) -> None:
    async def write(first: int) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await archive.append(connection, [event(number) for number in range(first, first + 50)])

    await asyncio.gather(*(write(first) for first in (1, 25, 1, 75, 50, 100)))
    assert [one.sequence for one in await archive.read(pool)] == list(range(1, 150))


async def test_a_day_made_in_a_transaction_goes_with_it(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await archive.append(connection, [event(1)])
        await transaction.rollback()
    assert (await archive.read(pool), await days(pool)) == ([], 0)


async def test_reading_by_task_subject_tenant_and_time(pool: asyncpg.Pool) -> None:
    events = [
        *(event(number) for number in range(1, 31)),
        event(31, subject="attempt.acme.tsk_1.1.ended", tenant="b_%"),
    ]
    await archive.append(pool, events)
    assert await archive.read(pool, task="tsk_2") == [one for one in events if one.task == "tsk_2"]
    assert await archive.read(pool, subject_prefix="attempt.acme") == events[-1:]
    assert await archive.read(pool, subject_prefix="attempt_acme") == []
    assert await archive.read(pool, tenant="b_%") == events[-1:]
    since, until = events[4].at, events[9].at
    assert await archive.read(pool, since=since, until=until) == events[4:9]


async def test_pages_follow_each_other(pool: asyncpg.Pool) -> None:
    events = [event(number, at=START) for number in range(1, 26)]
    await archive.append(pool, events)
    found: list[ArchivedEvent] = []
    while page := await archive.read(pool, after=found[-1] if found else None, limit=10):
        found += page
    assert found == events


async def test_days_are_made_ahead_and_dropped(pool: asyncpg.Pool) -> None:
    await archive.ensure_ahead(pool, date(2026, 3, 1), 3)
    await archive.ensure_ahead(pool, date(2026, 3, 1), 3)
    assert await days(pool) == 4
    await archive.append(pool, [event(1), event(60)])
    assert await archive.drop_before(pool, date(2026, 3, 3)) == [date(2026, 3, 1), date(2026, 3, 2)]
    assert [one.sequence for one in await archive.read(pool)] == [60]


async def test_a_value_that_cannot_be_held_is_a_data_error(pool: asyncpg.Pool) -> None:
    with pytest.raises(asyncpg.DataError):
        await archive.append(pool, [event(1, subject="a\x00b")])
