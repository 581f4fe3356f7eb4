import asyncio
import os
import random
from collections.abc import Generator
from pathlib import Path

import asyncpg
import nats as nats_client
import pytest
from collegium_servers import MissingServerError
from collegium_testing import fixtures
from collegium_testing.fixtures import Background, Databases

MADE: list[str] = []


async def make_table(url: str) -> None:
    MADE.append(url)
    connection = await asyncpg.connect(url)
    await connection.execute("create table migrated (n int)")
    await connection.close()


async def rows(url: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(sql)
    finally:
        await connection.close()


class TestMigratedDatabase:
    @pytest.fixture
    def database_migrations(self) -> fixtures.Migrations:
        return make_table

    @pytest.mark.parametrize("turn", [1, 2])
    async def test_each_test_has_its_own_copy_of_a_template_made_once(self, database_url: str, turn: int) -> None:
        await rows(database_url, f"insert into migrated values ({turn})")
        assert [record["n"] for record in await rows(database_url, "select n from migrated")] == [turn]
        assert len(MADE) == 1


async def test_a_database_starts_empty(database_url: str) -> None:
    assert await rows(database_url, "select 1 from information_schema.tables where table_schema = 'public'") == []


async def test_a_dropped_database_is_gone_even_with_a_client_in_it(databases: Databases) -> None:
    url = databases.create()
    connection = await asyncpg.connect(url)
    await asyncio.to_thread(databases.drop, url)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(url)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
        await connection.fetchval("select 1")
    await connection.close()


@pytest.mark.parametrize("turn", [1, 2])
async def test_a_clean_broker_has_no_streams(clean_nats_url: str, turn: int) -> None:
    client = await nats_client.connect(clean_nats_url)
    assert await client.jetstream().streams_info() == []
    await client.jetstream().add_stream(name="LEFT", subjects=["left"])
    await client.close()


def sources(*results: str | Exception) -> list[fixtures.Source]:
    def source(result: str | Exception) -> fixtures.Source:
        def give(_folder: Path, _background: Background) -> Generator[str]:
            if isinstance(result, Exception):
                raise result
            yield result

        return give

    return [source(result) for result in results]


def first_of(tmp_path_factory: pytest.TempPathFactory, background: Background, *results: str | Exception) -> str:
    bundled, container = sources(*results)
    with fixtures._first_of("COLLEGIUM_TEST_NONE_URL", bundled, container, tmp_path_factory, background) as url:
        return url


def test_the_environment_comes_first_then_the_bundle_then_containers(
    tmp_path_factory: pytest.TempPathFactory, server_background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = MissingServerError("no wheel")
    assert first_of(tmp_path_factory, server_background, "bundled", "container") == "bundled"
    assert first_of(tmp_path_factory, server_background, missing, "container") == "container"
    monkeypatch.setenv("COLLEGIUM_TEST_NONE_URL", "given")
    assert first_of(tmp_path_factory, server_background, "bundled", "container") == "given"


def test_without_any_source_the_test_fails_with_every_reason(
    tmp_path_factory: pytest.TempPathFactory, server_background: Background
) -> None:
    reasons = (MissingServerError("no wheel"), fixtures.NoEngineError("no engine"))
    with pytest.raises(pytest.fail.Exception) as caught:
        first_of(tmp_path_factory, server_background, *reasons)
    assert str(caught.value) == ("no server for this test: COLLEGIUM_TEST_NONE_URL is not set; no wheel; no engine")


def test_a_server_that_breaks_is_an_error_and_not_a_reason_to_look_further(
    tmp_path_factory: pytest.TempPathFactory, server_background: Background
) -> None:
    with pytest.raises(ZeroDivisionError):
        first_of(tmp_path_factory, server_background, ZeroDivisionError(), "container")


def test_an_engine_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(fixtures.NoEngineError, match="no Docker engine answers"):
        fixtures._require_engine()


def test_randomness_is_seeded(rng: random.Random, request: pytest.FixtureRequest) -> None:
    seed = os.environ.get(fixtures.SEED_VARIABLE, "collegium")
    assert random.random() == random.Random(seed).random()
    assert rng.random() == random.Random(f"{seed}:{request.node.nodeid}").random()
