"""Storage counted by the database: whatever statements do to the rows, the sums are those of the rows."""

import asyncio
import random
from collections.abc import AsyncIterator

import asyncpg
import pytest
from collegium_store import open_pool, storage


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await open_pool(database_url, application_name="test", max_size=8)
    await pool.execute("CREATE SCHEMA shelf")
    await pool.execute("CREATE TABLE shelf.things (id int PRIMARY KEY, tenant text NOT NULL, body bytea)")
    yield pool
    await pool.execute("DROP SCHEMA shelf CASCADE")
    await pool.close()


async def begin(pool: asyncpg.Pool) -> None:
    for statement in (*storage.counting("shelf"), *storage.counted("shelf", "things", "octet_length(body)")):
        await pool.execute(statement)


async def folded(pool: asyncpg.Pool) -> dict[str, tuple[int, int]]:
    async with pool.acquire() as connection, connection.transaction():
        assert await storage.take_turn(connection, "shelf")
        await storage.fold(connection, "shelf")
        return {one.tenant: (one.items, one.bytes) for one in await storage.totals(connection, "shelf") if one.items}


async def counted_by_rows(pool: asyncpg.Pool) -> dict[str, tuple[int, int]]:
    rows = await pool.fetch(
        "SELECT tenant, count(*), coalesce(sum(octet_length(body)), 0) FROM shelf.things GROUP BY tenant"
    )
    return {row[0]: (row[1], row[2]) for row in rows}


async def change(pool: asyncpg.Pool, chance: random.Random) -> None:
    keys = chance.sample(range(40), 5)
    # Large ones are compressed and moved out of the row, which must not change what is counted.
    bodies = [chance.choice([None, b"", b"x" * chance.randrange(20_000), chance.randbytes(5_000)]) for _ in keys]
    tenants = [chance.choice(["acme", "globex"]) for _ in keys]
    match chance.randrange(4):
        case 0:
            await pool.execute("DELETE FROM shelf.things WHERE id = ANY($1::int[])", keys)
        case 1:
            await pool.execute("UPDATE shelf.things SET body = $2 WHERE id = ANY($1::int[])", keys, bodies[0])
        case 2:
            await pool.execute("UPDATE shelf.things SET tenant = $2 WHERE id = $1", keys[0], tenants[0])
        case _:
            await pool.execute(
                "INSERT INTO shelf.things SELECT * FROM unnest($1::int[], $2::text[], $3::bytea[]) AS new (a, b, c)"
                " ORDER BY 1 ON CONFLICT (id) DO UPDATE SET body = excluded.body",
                keys,
                tenants,
                bodies,
            )


@pytest.mark.parametrize("seed", range(3))
async def test_sums_are_those_of_the_rows_whatever_was_done(pool: asyncpg.Pool, seed: int):
    chance = random.Random(seed)
    for _ in range(20):
        await change(pool, chance)
    await begin(pool)
    assert await folded(pool) == await counted_by_rows(pool), "what stood before is counted"
    for number in range(120):
        await change(pool, chance)
        if number % 10 == 0:
            assert await folded(pool) == await counted_by_rows(pool)
    assert await folded(pool) == await counted_by_rows(pool)


async def test_writers_at_once_wait_for_nobody_and_one_sums_up(pool: asyncpg.Pool):
    await begin(pool)

    async def write(number: int) -> None:
        await pool.execute("INSERT INTO shelf.things VALUES ($1, 'acme', $2)", number, b"x" * 10)

    async with pool.acquire() as holder, holder.transaction():
        assert await storage.take_turn(holder, "shelf")
        await storage.fold(holder, "shelf")
        await asyncio.gather(*(write(number) for number in range(50)))
        async with pool.acquire() as second, second.transaction():
            assert not await storage.take_turn(second, "shelf")
    assert await folded(pool) == {"acme": (50, 500)}


async def test_what_was_rolled_back_is_not_counted(pool: asyncpg.Pool):
    await begin(pool)
    with pytest.raises(asyncpg.UniqueViolationError):
        await pool.execute("INSERT INTO shelf.things VALUES (1, 'acme', 'x'), (1, 'acme', 'y')")
    assert await folded(pool) == {}


@pytest.mark.parametrize("name", ["", "a b", "a;b", "A", 'a"b'])
def test_a_name_that_is_none_is_refused(name: str):
    with pytest.raises(ValueError, match="no name of a schema"):
        storage.counting(name)
