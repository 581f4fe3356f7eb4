"""How much a schema stores of each tenant, counted by the database as rows come, change and go.

    for statement in (*counting("gateway"), *counted("gateway", "tasks", "octet_length(body)")): op.execute(statement)

in a migration; the table has a column ``tenant``. Triggers add what each statement changed to ``storage_changes``, so
that writers never wait for each other; one replica sums that up in ``storage_totals`` every few seconds (:func:`fold`).
Bytes are those of the content before compression: sealed content is not compressed anyway. One rule: every byte is
counted in the transaction that stores it.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,40}", re.ASCII)
# Of no meaning but to be this: the first part of an advisory lock, the second is the schema's.
_LOCK: Final = 7_304_001

_COUNTING = (
    "CREATE TABLE {schema}.storage_changes (tenant text NOT NULL, items bigint NOT NULL, bytes bigint NOT NULL)",
    "CREATE TABLE {schema}.storage_totals (tenant text PRIMARY KEY, items bigint NOT NULL, bytes bigint NOT NULL)",
)
_COUNTED = (
    """
    CREATE FUNCTION {schema}.count_{table}() RETURNS trigger LANGUAGE plpgsql AS $body$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO {schema}.storage_changes (tenant, items, bytes)
            SELECT tenant, count(*), sum({size}) FROM new_rows GROUP BY tenant;
        ELSIF TG_OP = 'DELETE' THEN
            INSERT INTO {schema}.storage_changes (tenant, items, bytes)
            SELECT tenant, -count(*), -sum({size}) FROM old_rows GROUP BY tenant;
        ELSE
            INSERT INTO {schema}.storage_changes (tenant, items, bytes)
            SELECT tenant, sum(item), sum(size) FROM (
                SELECT tenant, 1 AS item, {size} AS size FROM new_rows
                UNION ALL SELECT tenant, -1, -({size}) FROM old_rows
            ) AS changed GROUP BY tenant HAVING sum(size) <> 0 OR sum(item) <> 0;
        END IF;
        RETURN NULL;
    END $body$
    """,
    """
    CREATE TRIGGER storage_added AFTER INSERT ON {schema}.{table} REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.count_{table}()
    """,
    """
    CREATE TRIGGER storage_changed AFTER UPDATE ON {schema}.{table}
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.count_{table}()
    """,
    """
    CREATE TRIGGER storage_removed AFTER DELETE ON {schema}.{table} REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.count_{table}()
    """,
    # What stands already.
    """
    INSERT INTO {schema}.storage_changes (tenant, items, bytes)
    SELECT tenant, count(*), sum({size}) FROM {schema}.{table} GROUP BY tenant
    """,
)
_FOLD = """
WITH gone AS (DELETE FROM {schema}.storage_changes RETURNING tenant, items, bytes),
     summed AS (SELECT tenant, sum(items)::int8 AS items, sum(bytes)::int8 AS bytes FROM gone GROUP BY tenant)
INSERT INTO {schema}.storage_totals AS standing (tenant, items, bytes)
SELECT tenant, items, bytes FROM summed
ON CONFLICT (tenant) DO UPDATE
SET items = standing.items + excluded.items, bytes = standing.bytes + excluded.bytes
RETURNING tenant, items, bytes
"""


class Stored(NamedTuple):
    """What a schema stores of a tenant."""

    tenant: str
    items: int
    bytes: int


def counting(schema: str) -> list[str]:
    """Returns the statements that make a schema's two tables of sums; once in a schema."""
    return [statement.format(schema=_name(schema)) for statement in _COUNTING]


def counted(schema: str, table: str, size: str) -> list[str]:
    """Returns the statements from which on a table's rows are counted, those that stand included.

    ``size`` is an SQL expression over one row that gives its bytes, and is the author's own: it is not escaped.
    """
    return [
        statement.format(schema=_name(schema), table=_name(table), size=f"coalesce(({size})::int8, 0)")
        for statement in _COUNTED
    ]


async def take_turn(connection: Any, schema: str) -> bool:
    """Whether this transaction is the one that sums up now; it stays so until its end."""
    mine: bool = await connection.fetchval("SELECT pg_try_advisory_xact_lock($1, hashtext($2))", _LOCK, schema)
    return mine


async def fold(connection: Any, schema: str) -> list[Stored]:
    """Sums up what changed, in the caller's transaction; returns the new totals of the tenants concerned."""
    return [Stored(*row) for row in await connection.fetch(_FOLD.format(schema=_name(schema)))]


async def totals(connection: Any, schema: str) -> list[Stored]:
    """Returns what was summed up so far, of all tenants."""
    rows = await connection.fetch(f"SELECT tenant, items, bytes FROM {_name(schema)}.storage_totals")  # noqa: S608 - checked
    return [Stored(*row) for row in rows]


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no name of a schema or table")
    return text
