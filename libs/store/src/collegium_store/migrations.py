"""Migrations: one PostgreSQL schema a service, revisions as files beside the service.

A location holds ``0001_what.py``, ``0002_what.py`` …: Alembic revisions whose ``revision`` is the file's number and
whose ``down_revision`` is the number before. The version is kept in the schema's own table ``schema_version``. A start
that finds it at the newest file's number does nothing else and does not load Alembic. Otherwise Alembic writes the SQL
of the missing revisions (its offline mode, so that no second database driver is needed) and it is run in one
transaction under an advisory lock. One rule: a revision says what to change and reads nothing: ``op.get_bind()`` does
not exist here, data is moved by statements.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncpg

from collegium_store.errors import MigrationError, NewerSchemaError
from collegium_store.pool import open_connection

VERSION_TABLE: Final = "schema_version"

_FILE = re.compile(r"(\d{4})_\w+\.py", re.ASCII)
_SCHEMA = re.compile(r"[a-z][a-z0-9_]{0,40}", re.ASCII)

_ROLE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
        CREATE ROLE "{role}" NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
GRANT USAGE ON SCHEMA "{schema}" TO "{role}";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO "{role}";
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA "{schema}" TO "{role}";
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA "{schema}" TO "{role}";
ALTER DEFAULT PRIVILEGES IN SCHEMA "{schema}" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "{role}";
DO $$ DECLARE grown regclass; BEGIN
    FOR grown IN
        SELECT tgrelid::regclass FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
        WHERE tgname = 'append_only' AND relnamespace = '"{schema}"'::regnamespace
    LOOP
        EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %s FROM "{role}"', grown);
    END LOOP;
END $$;
"""


class Migrations(NamedTuple):
    """The revisions of one schema and the folder they are in."""

    schema: str
    location: Path


class Applied(NamedTuple):
    """A revision that was applied."""

    schema: str
    revision: str


async def migrate(url: str, migrations: Sequence[Migrations], *, roles: bool = False) -> list[Applied]:
    """Brings every schema to its newest revision and returns what was applied, in order.

    Safe to run from several processes at once: the second finds nothing to do. Each schema is one transaction. With
    ``roles``, a role ``collegium_<schema>`` without login is granted reading and writing of the schema, but only adding
    to tables that have a trigger ``append_only`` (the user of the URL must then be allowed to make roles). Raises
    MigrationError, NewerSchemaError or PostgreSQL's error.
    """
    newest = {one.schema: _newest(one) for one in migrations}
    connection = await open_connection(url, application_name="collegium-migrate")
    applied: list[Applied] = []
    try:
        for one in migrations:
            if await _version(connection, one.schema) != newest[one.schema]:
                applied += await _upgrade(connection, one, newest[one.schema], roles=roles)
    finally:
        await connection.close()
    return applied


async def is_current(url: str, migrations: Sequence[Migrations]) -> bool:
    """Tells whether every schema stands at its newest revision; changes nothing."""
    connection = await open_connection(url, application_name="collegium-migrate")
    try:
        return all([await _version(connection, one.schema) == _newest(one) for one in migrations])
    finally:
        await connection.close()


def _newest(migrations: Migrations) -> str:
    if _SCHEMA.fullmatch(migrations.schema) is None:
        raise MigrationError(f"{migrations.schema!r} is no name for a schema: a-z, 0-9 and _ after a letter")
    found = [match[1] for path in migrations.location.glob("*.py") if (match := _FILE.fullmatch(path.name))]
    if not found or len(found) != len(set(found)):
        raise MigrationError(f"{migrations.location} needs revisions named 0001_what.py, each number once")
    return max(found)


async def _version(connection: Any, schema: str) -> str | None:
    try:
        return await connection.fetchval(f'SELECT max(version_num) FROM "{schema}".{VERSION_TABLE}')  # noqa: S608 - checked
    except asyncpg.UndefinedTableError:
        return None


async def _upgrade(connection: Any, migrations: Migrations, newest: str, *, roles: bool) -> list[Applied]:
    schema = migrations.schema
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"collegium migrate {schema}")
        # Read from the catalog: IF NOT EXISTS may look into a cache from before the lock.
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema):
            await connection.execute(f'CREATE SCHEMA "{schema}"')
        # Read again: another process may have been here since. An error would end this transaction.
        present = await connection.fetchval("SELECT to_regclass($1)", f'"{schema}".{VERSION_TABLE}')
        version = await _version(connection, schema) if present else None
        if version == newest:
            return []
        if version is not None and version > newest:
            raise NewerSchemaError(f"schema {schema} is at {version}, this version knows revisions up to {newest}")
        sql, revisions = await asyncio.to_thread(_sql, migrations, version, newest)
        await connection.execute(sql)
        if roles:
            await connection.execute(_ROLE.format(role=f"collegium_{schema}", schema=schema))
    return [Applied(schema, revision) for revision in revisions]


def _sql(migrations: Migrations, version: str | None, newest: str) -> tuple[str, list[str]]:
    from collegium_store.revisions import upgrade_sql  # noqa: PLC0415 - Alembic and SQLAlchemy cost 0.5 s and 40 MB

    return upgrade_sql(migrations.schema, migrations.location, version, newest, VERSION_TABLE)
