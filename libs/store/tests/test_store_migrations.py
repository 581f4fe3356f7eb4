"""Migrations on a real database: once, in order, by many at the same time, and cheap when there is nothing to do."""

import asyncio
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from collegium_store import Applied, MigrationError, Migrations, NewerSchemaError, is_current, migrate, open_connection
from collegium_store.archive import ARCHIVE_MIGRATIONS

REVISION = """
from alembic import op
import sqlalchemy as sa

revision = "{number:04}"
down_revision = {before!r}

def upgrade():
    {body}
"""


def write(folder: Path, number: int, body: str) -> None:
    before = f"{number - 1:04}" if number > 1 else None
    (folder / f"{number:04}_step.py").write_text(REVISION.format(number=number, before=before, body=body))


@pytest.fixture
def ledger(tmp_path: Path) -> Migrations:
    write(tmp_path, 1, 'op.create_table("holds", sa.Column("id", sa.Text, primary_key=True), schema="ledger")')
    write(tmp_path, 2, "op.execute(\"INSERT INTO ledger.holds VALUES ('100%' || E'\\\\n' || '1'::text)\")")
    return Migrations("ledger", tmp_path)


async def test_all_that_is_missing_is_applied_once(database_url: str, ledger: Migrations) -> None:
    assert not await is_current(database_url, [ledger])
    assert await migrate(database_url, [ledger]) == [Applied("ledger", "0001"), Applied("ledger", "0002")]
    assert await migrate(database_url, [ledger]) == []
    write(ledger.location, 3, 'op.execute("DELETE FROM ledger.holds")')
    assert not await is_current(database_url, [ledger])
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT id FROM ledger.holds") == "100%\n1"
    assert await migrate(database_url, [ledger, ARCHIVE_MIGRATIONS]) == [
        Applied("ledger", "0003"),
        Applied("archive", "0001"),
    ]
    assert await is_current(database_url, [ledger, ARCHIVE_MIGRATIONS])
    await connection.close()


async def test_many_at_the_same_time_apply_each_revision_once(database_url: str, ledger: Migrations) -> None:
    applied = await asyncio.gather(*(migrate(database_url, [ledger, ARCHIVE_MIGRATIONS]) for _ in range(5)))
    assert sorted(one for part in applied for one in part) == [
        Applied("archive", "0001"),
        Applied("ledger", "0001"),
        Applied("ledger", "0002"),
    ]


async def test_a_failing_revision_leaves_nothing_behind(database_url: str, ledger: Migrations) -> None:
    write(ledger.location, 2, 'op.execute("SELECT 1 / 0")')
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(database_url, [ledger])
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'ledger'") == 0
    await connection.close()


async def test_an_older_version_of_the_program_is_refused(database_url: str, ledger: Migrations) -> None:
    await migrate(database_url, [ledger])
    (ledger.location / "0002_step.py").unlink()
    with pytest.raises(NewerSchemaError, match="ledger is at 0002"):
        await migrate(database_url, [ledger])


@pytest.mark.parametrize(
    ("schema", "files"),
    [("Ledger", ["0001_a.py"]), ("a b", ["0001_a.py"]), ("x", []), ("x", ["0001_a.py", "0001_b.py"]), ("x", ["a.py"])],
)
async def test_a_folder_that_is_no_line_of_revisions_is_refused(tmp_path: Path, schema: str, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(MigrationError):
        await migrate("postgresql://nobody@127.0.0.1:1/none", [Migrations(schema, tmp_path)])


async def test_a_revision_that_does_not_follow_its_file_is_refused(database_url: str, ledger: Migrations) -> None:
    (ledger.location / "0002_step.py").rename(ledger.location / "0007_step.py")
    with pytest.raises(MigrationError, match="do not end in 0007"):
        await migrate(database_url, [ledger])


async def test_a_schemas_role_may_read_and_write_and_no_more(database_url: str, ledger: Migrations) -> None:
    await migrate(database_url, [ledger], roles=True)
    connection = await open_connection(database_url, application_name="test")
    try:
        may = await connection.fetchrow(
            """
            SELECT has_table_privilege('collegium_ledger', 'ledger.holds', 'INSERT') AS write,
                   has_schema_privilege('collegium_ledger', 'ledger', 'CREATE') AS make
            """
        )
        assert tuple(may) == (True, False)
    finally:
        # Roles belong to the whole server, which other tests use too.
        await connection.execute(
            "GRANT collegium_ledger TO CURRENT_USER; DROP OWNED BY collegium_ledger; DROP ROLE collegium_ledger"
        )
        await connection.close()


async def test_an_up_to_date_start_does_not_load_alembic(database_url: str) -> None:
    await migrate(database_url, [ARCHIVE_MIGRATIONS])
    code = """
import asyncio, sys
from collegium_store import migrate
from collegium_store.archive import ARCHIVE_MIGRATIONS
assert asyncio.run(migrate(sys.argv[1], [ARCHIVE_MIGRATIONS])) == []
assert "alembic" not in sys.modules and "sqlalchemy" not in sys.modules
"""
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code, database_url], check=True)
