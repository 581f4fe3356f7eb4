"""The read model's rows in PostgreSQL, schema ``gateway``. The callbacks' rows are webhook_store.py's.

One rule: every read has the scope of one tenant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from collegium_contracts.scope import Scope, one_tenant

from collegium_gateway.people import book
from collegium_gateway.readmodel.rows import State, TaskRow
from collegium_gateway.webhooks.store import apply_changes
from collegium_gateway.webhooks.values import Changes

_UPSERT = """
INSERT INTO gateway.tasks (
    task_id, tenant, state, progress, created_at_ms, settled_at_ms, reference, settled, trace_id
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::smallint[], $5::bigint[], $6::bigint[], $7::bytea[], $8::bytea[],
    $9::text[]
)
ON CONFLICT (task_id) DO UPDATE
SET state = excluded.state, progress = excluded.progress, settled_at_ms = excluded.settled_at_ms,
    settled = excluded.settled, trace_id = coalesce(nullif(excluded.trace_id, ''), gateway.tasks.trace_id)
WHERE excluded.progress > gateway.tasks.progress
"""
_COLUMNS = "task_id, tenant, state, created_at_ms, settled_at_ms, reference, settled, trace_id"


class TaskStore:
    """Reads and writes task rows."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def upsert(
        self, rows: Sequence[TaskRow], webhooks: Changes | None = None, people: book.PeopleChanges | None = None
    ) -> None:
        """Writes rows in one statement; a row never moves a task backwards.

        What becomes of callbacks goes into the same transaction, after the rows: their locks decide between two
        gateways which tell of a callback and of its task's end at the same time.
        """
        if webhooks is None and people is None:
            await self._write(self._pool, rows)
            return
        async with self._pool.acquire() as connection, connection.transaction():
            await self._write(connection, rows)
            if people is not None:
                await book.apply_changes(connection, people)
            if webhooks is not None:
                await apply_changes(connection, webhooks)

    async def _write(self, connection: Any, rows: Sequence[TaskRow]) -> None:
        await connection.execute(
            _UPSERT,
            [row.task_id for row in rows],
            [row.tenant for row in rows],
            [row.state for row in rows],
            [row.progress for row in rows],
            [row.created_at_ms for row in rows],
            [row.settled_at_ms for row in rows],
            [row.reference for row in rows],
            [row.settled for row in rows],
            [row.trace_id for row in rows],
        )

    async def get(self, scope: Scope, task_id: str) -> TaskRow | None:
        """Returns a tenant's task, or none."""
        record = await self._pool.fetchrow(
            f"SELECT {_COLUMNS} FROM gateway.tasks WHERE tenant = $1 AND task_id = $2",  # noqa: S608 - constant
            one_tenant(scope),
            task_id,
        )
        return _row(record) if record is not None else None

    async def get_all(self, tenant: str, task_ids: Sequence[str]) -> list[TaskRow]:
        """Returns those of a tenant's tasks that there are."""
        records = await self._pool.fetch(
            f"SELECT {_COLUMNS} FROM gateway.tasks WHERE tenant = $1 AND task_id = ANY($2::text[])",  # noqa: S608
            tenant,
            list(task_ids),
        )
        return [_row(record) for record in records]

    async def page(
        self, scope: Scope, *, state: State | None, since_ms: int, before: tuple[int, str] | None, limit: int
    ) -> list[TaskRow]:
        """Returns a tenant's tasks, newest first, created at or after ``since_ms`` and listed after ``before``."""
        created, task_id = before if before is not None else (2**62, "")
        records = await self._pool.fetch(
            f"SELECT {_COLUMNS} FROM gateway.tasks"  # noqa: S608 - constant
            " WHERE tenant = $1 AND created_at_ms >= $2 AND (created_at_ms, task_id) < ($3, $4)"
            " AND ($5::text IS NULL OR state = $5)"
            " ORDER BY created_at_ms DESC, task_id DESC LIMIT $6",
            one_tenant(scope),
            since_ms,
            created,
            task_id,
            state,
            limit,
        )
        return [_row(record) for record in records]


def _row(record: asyncpg.Record) -> TaskRow:
    return TaskRow(**dict(record))
