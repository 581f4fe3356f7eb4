from pathlib import Path

import asyncpg
import pytest
from collegium_servers import FolderInUseError, StartError, postgres


async def test_first_and_later_starts_serve_the_same_database(tmp_path: Path) -> None:
    server = await postgres.start(tmp_path)
    connection = await asyncpg.connect(server.url)
    assert (await connection.fetchval("show server_version")).startswith("18.")
    await connection.execute("create table kept (n int)")
    await connection.execute("insert into kept values (7)")
    await connection.close()
    assert await server.stop() == 0
    server = await postgres.start(tmp_path)
    connection = await asyncpg.connect(server.url)
    assert await connection.fetchval("select n from kept") == 7
    await connection.close()
    await server.stop()


async def test_it_writes_to_disk_and_its_client_is_no_superuser(tmp_path: Path) -> None:
    server = await postgres.start(tmp_path)
    connection = await asyncpg.connect(server.url)
    try:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await connection.fetchval(f"show {setting}") == "on"
        assert await connection.fetchval("select current_setting('is_superuser')") == "off"
        await connection.execute("create database another")
        await connection.execute("create role billing")
    finally:
        await connection.close()
        await server.stop()


async def test_nobody_gets_in_without_the_password(tmp_path: Path) -> None:
    server = await postgres.start(tmp_path)
    try:
        for user in ("collegium", "postgres"):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(f"postgresql://{user}:guess@127.0.0.1:{server.port}/collegium")
    finally:
        await server.stop()
    assert (tmp_path / "postgres" / "password").stat().st_mode & 0o777 == 0o600
    assert server.url not in repr(server)


async def test_a_lost_password_file_is_made_again(tmp_path: Path) -> None:
    first = await postgres.start(tmp_path)
    await first.stop()
    (tmp_path / "postgres" / "password").unlink()
    second = await postgres.start(tmp_path)
    connection = await asyncpg.connect(second.url)
    await connection.close()
    await second.stop()
    assert second.url.split("@")[0] != first.url.split("@")[0]


async def test_an_interrupted_first_start_is_done_again(tmp_path: Path) -> None:
    draft = tmp_path / "postgres" / "data.new"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18\n")
    server = await postgres.start(tmp_path)
    await server.stop()
    assert not draft.exists()


async def test_one_folder_has_one_server_and_a_taken_port_is_named(tmp_path: Path) -> None:
    server = await postgres.start(tmp_path)
    try:
        with pytest.raises(FolderInUseError):
            await postgres.start(tmp_path)
        with pytest.raises(StartError, match="Address already in use"):
            await postgres.start(tmp_path / "other", port=server.port)
    finally:
        await server.stop()


async def test_a_stale_lock_file_that_names_a_living_foreign_process_does_not_stop_it(tmp_path: Path) -> None:
    server = await postgres.start(tmp_path)
    await server.stop()
    lock = server.data_dir / "postmaster.pid"
    lock.write_text(f"1\n{server.data_dir}\n1\n5432\n\n127.0.0.1\n0 0\nready\n")
    server = await postgres.start(tmp_path)
    assert await server.stop() == 0
