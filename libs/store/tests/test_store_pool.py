"""Pools: what they tell the server, what they wait for, and what is tried again."""

import asyncio
import socket

import asyncpg
import pytest
from collegium_store import (
    DatabaseUnreachableError,
    is_transient,
    is_unstorable,
    open_connection,
    open_pool,
    retry_transient,
)
from collegium_store.pool import connect_options


async def test_a_pool_names_itself_and_compiles_nothing(database_url: str) -> None:
    pool = await open_pool(database_url, application_name="collegium-billing")
    assert await pool.fetchval("SHOW application_name") == "collegium-billing"
    assert await pool.fetchval("SHOW jit") == "off"
    await pool.close()


@pytest.mark.parametrize(
    ("statement", "value"),
    [("SELECT $1::text", "a\0b"), ("SELECT $1::text[]", ["a\0b"]), ("SELECT $1::jsonb->>'a'", '{"a": "\\u0000"}')],
)
async def test_a_text_that_no_column_takes_is_told_from_a_defect(database_url: str, statement: str, value: object):
    connection = await open_connection(database_url, application_name="t")
    with pytest.raises(asyncpg.PostgresError) as refused:
        await connection.fetchval(statement, value)
    assert is_unstorable(refused.value)
    with pytest.raises(asyncpg.PostgresError) as defect:
        await connection.fetchval("SELECT no_such_column")
    assert not is_unstorable(defect.value)
    await connection.close()


async def test_a_transaction_left_open_does_not_leak_into_the_next_use(database_url: str) -> None:
    pool = await open_pool(database_url, application_name="t", max_size=1)
    async with pool.acquire() as connection:
        await connection.execute("BEGIN")
    async with pool.acquire() as connection:
        assert not connection.is_in_transaction()
    await pool.close()


async def test_a_pool_works_behind_a_transaction_pooler(database_url: str) -> None:
    separator = "&" if "?" in database_url else "?"
    pool = await open_pool(f"{database_url}{separator}pgbouncer=true", application_name="t")
    for number in range(3):
        assert await pool.fetchval("SELECT $1::int", number) == number
    assert await pool.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0
    await pool.close()


def test_a_pooler_is_told_nothing_it_refuses() -> None:
    options = connect_options("postgresql://u@h/d?pgbouncer=true&sslmode=require", "t")
    assert options["dsn"] == "postgresql://u@h/d?sslmode=require"
    assert options["server_settings"] == {"application_name": "t"}
    assert options["statement_cache_size"] == 0


async def test_nobody_at_the_address_is_a_typed_error_without_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DatabaseUnreachableError, match=rf"127\.0\.0\.1:{port} within 0\.1 s") as caught:
        await open_pool(f"postgresql://u:hunter2@127.0.0.1:{port}/d", application_name="t", connect_seconds=0.1)
    assert "hunter2" not in str(caught.value)


async def test_a_server_that_takes_the_connection_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/d"
        async with asyncio.timeout(30):
            with pytest.raises(DatabaseUnreachableError, match="TimeoutError"):
                await open_pool(url, application_name="t", connect_seconds=0.2)
            with pytest.raises(DatabaseUnreachableError, match="TimeoutError"):
                await open_connection(url, application_name="t", connect_seconds=0.2)


async def test_a_wrong_database_is_told_at_once(database_url: str) -> None:
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await open_pool(database_url.rsplit("/", 1)[0] + "/nowhere", application_name="t")


async def test_what_passes_is_tried_again() -> None:
    failures: list[Exception] = [
        asyncpg.SerializationError("a"),
        asyncpg.DeadlockDetectedError("b"),
        ConnectionResetError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.CannotConnectNowError("starting"),
    ]

    async def work() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert await retry_transient(work, deadline_seconds=5, jitter=lambda: 0.0) == "done"
    assert failures == []


@pytest.mark.parametrize(
    "error", [asyncpg.UniqueViolationError("a"), ValueError("b"), asyncpg.InterfaceError("pool misuse")]
)
async def test_what_does_not_pass_is_raised_at_once(error: Exception) -> None:
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        raise error

    assert not is_transient(error)
    with pytest.raises(type(error)):
        await retry_transient(work, deadline_seconds=5)
    assert tries == 1


async def test_the_deadline_ends_the_tries() -> None:
    async def work() -> None:
        raise asyncpg.DeadlockDetectedError("always")

    with pytest.raises(asyncpg.DeadlockDetectedError):
        await retry_transient(work, deadline_seconds=0.05, jitter=lambda: 1.0)


async def test_two_transactions_in_conflict_both_get_through(database_url: str) -> None:
    pool = await open_pool(database_url, application_name="t")
    await pool.execute("CREATE TABLE counter (n int); INSERT INTO counter VALUES (0)")
    both_read = asyncio.Barrier(2)
    tries = 0

    async def add() -> None:
        nonlocal tries
        tries += 1
        async with pool.acquire() as connection, connection.transaction(isolation="serializable"):
            seen = await connection.fetchval("SELECT n FROM counter")
            if tries <= 2:
                await both_read.wait()
            await connection.execute("UPDATE counter SET n = $1", seen + 1)

    await asyncio.gather(*(retry_transient(add, deadline_seconds=10) for _ in range(2)))
    assert (await pool.fetchval("SELECT n FROM counter"), tries) == (2, 3)
    await pool.close()
