"""Group commits: nothing lost, nothing said before it is stored, one bad item alone."""

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest
from collegium_store import ClosedError, GroupCommit, open_pool
from collegium_testing.eventually import eventually
from hypothesis import given
from hypothesis import strategies as st

POISON = -1


class Table:
    """Stores batches as a database does: all or nothing."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.batches: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def flush(self, items: Sequence[int]) -> None:
        self.batches.append(len(items))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if any(item < 0 for item in items):
            raise asyncpg.DataError("negative")
        self.rows.extend(items)


async def test_a_submit_returns_after_its_commit_and_shares_it() -> None:
    table = Table()

    async def submit(number: int) -> None:
        await commits.submit(number)
        assert number in table.rows

    async with GroupCommit(table.flush, max_wait_seconds=0.005) as commits:
        await asyncio.gather(*(submit(number) for number in range(100)))
    assert table.rows == list(range(100))
    assert table.batches == [100]


async def test_a_full_batch_does_not_wait() -> None:
    table = Table()
    async with GroupCommit(table.flush, max_items=10, max_wait_seconds=1000) as commits:
        await commits.submit_many(range(30))
    assert table.batches == [10, 10, 10]
    assert table.rows == list(range(30))


async def test_producers_wait_where_the_database_is_slow() -> None:
    table = Table()
    table.gate.clear()
    commits = GroupCommit(table.flush, max_items=5, max_wait_seconds=0, max_pending=10)
    producers = [asyncio.create_task(commits.submit(number)) for number in range(100)]
    await eventually(lambda: table.batches and commits.pending == 10)
    for _ in range(100):
        await asyncio.sleep(0)
    assert commits.pending == 10
    table.gate.set()
    await asyncio.gather(*producers)
    assert sorted(table.rows) == list(range(100))
    await commits.close()


async def test_room_given_to_a_cancelled_caller_goes_to_the_next() -> None:
    table = Table()
    table.gate.clear()
    commits = GroupCommit(table.flush, max_items=1, max_wait_seconds=0, max_pending=1)
    first = [asyncio.create_task(commits.submit(number)) for number in (1, 2)]
    await eventually(lambda: table.batches and commits.pending == 1)
    cancelled, patient = (asyncio.create_task(commits.submit(number)) for number in (3, 4))
    await asyncio.sleep(0)
    table.gate.set()
    await first[0]
    cancelled.cancel()
    await asyncio.gather(*first, patient)
    assert [row for row in table.rows if row != 3] == [1, 2, 4]
    await commits.close()


async def test_only_the_bad_item_fails() -> None:
    table = Table()
    async with GroupCommit(table.flush, max_wait_seconds=0.005) as commits:
        results = await asyncio.gather(
            *(commits.submit(number if number != 37 else POISON) for number in range(100)), return_exceptions=True
        )
    assert [number for number, result in enumerate(results) if result is not None] == [37]
    assert isinstance(results[37], asyncpg.DataError)
    assert table.rows == [number for number in range(100) if number != 37]


async def test_many_at_once_hear_of_the_bad_one_when_all_are_decided() -> None:
    table = Table()
    async with GroupCommit(table.flush, max_items=4, max_wait_seconds=0) as commits:
        with pytest.raises(asyncpg.DataError):
            await commits.submit_many([1, POISON, 2, 3, 4, 5, 6])
        assert table.rows == [1, 2, 3, 4, 5, 6]
        await commits.submit_many([])


async def test_another_error_is_everybodys_and_the_next_batch_goes_on() -> None:
    table = Table()
    table.failure = ConnectionResetError()
    async with GroupCommit(table.flush, max_wait_seconds=0.001) as commits:
        results = await asyncio.gather(*(commits.submit(number) for number in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [ConnectionResetError] * 3
        table.failure = None
        await commits.submit(9)
    assert (table.rows, table.batches[0]) == ([9], 3)


async def test_closing_drains_and_refuses() -> None:
    table = Table()
    commits = GroupCommit(table.flush, max_wait_seconds=1000)
    waiting = asyncio.create_task(commits.submit_many([1, 2, 3]))
    await eventually(lambda: commits.pending == 3)
    await commits.close()
    await waiting
    assert table.rows == [1, 2, 3]
    with pytest.raises(ClosedError):
        await commits.submit(4)
    await commits.close()
    await GroupCommit(table.flush).close()


async def test_a_cancelled_caller_leaves_its_item() -> None:
    table = Table()
    table.gate.clear()
    commits = GroupCommit(table.flush, max_wait_seconds=0)
    waiting = asyncio.create_task(commits.submit(1))
    await eventually(lambda: table.batches)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    table.gate.set()
    await commits.submit(2)
    assert table.rows == [1, 2]
    await commits.close()


@given(
    st.lists(st.lists(st.integers(-3, 50), max_size=8), max_size=12),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_every_item_is_stored_once_or_refused(groups: list[list[int]], max_items: int, max_pending: int) -> None:
    async def run() -> None:
        table = Table()
        async with GroupCommit(
            table.flush, max_items=max_items, max_wait_seconds=0, max_pending=max_pending
        ) as commits:
            results = await asyncio.gather(*(commits.submit_many(group) for group in groups), return_exceptions=True)
        assert sorted(table.rows) == sorted(item for group in groups for item in group if item >= 0)
        for group, result in zip(groups, results, strict=True):
            assert isinstance(result, asyncpg.DataError) == any(item < 0 for item in group)

    asyncio.run(run())


async def test_on_a_real_database_a_bad_row_stands_alone(database_url: str) -> None:
    pool = await open_pool(database_url, application_name="t")
    await pool.execute("CREATE TABLE rows (id int PRIMARY KEY, body text NOT NULL)")

    async def flush(rows: Sequence[tuple[int, str]]) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.executemany("INSERT INTO rows VALUES ($1, $2)", rows)

    async with GroupCommit(flush, max_wait_seconds=0.005) as commits:
        items = [(number, "ok") for number in range(50)] + [(7, "again"), (99, "a\x00b")]
        results = await asyncio.gather(*(commits.submit(item) for item in items), return_exceptions=True)
    assert [type(result) for result in results[-2:]] == [
        asyncpg.UniqueViolationError,
        asyncpg.CharacterNotInRepertoireError,
    ]
    assert results[:50] == [None] * 50
    assert await pool.fetchval("SELECT count(*) FROM rows") == 50
    await pool.close()
