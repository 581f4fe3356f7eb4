"""Students in PostgreSQL: which there are and were, and where their content is. One rule: a name is one tenant's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg
from collegium_contracts.students import StudentRow

from collegium_evolution.students.sample_store import WORTH, verified

ROWS_MAX = 500
# The first half of the locks under which students are made; the second is their name's.
_MAKING = 7_301_030

_PUT = """
INSERT INTO evolution.students AS standing
    (model, tenant, domain, kind, content, digest, made_ms, samples, labels, held_out, held_out_right,
     confidence, made_by, state, reason, base, shown)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
ON CONFLICT (model) DO UPDATE
SET kind = excluded.kind, domain = excluded.domain,
    state = excluded.state, reason = excluded.reason, content = excluded.content, digest = excluded.digest,
    made_ms = excluded.made_ms, retired_ms = 0, samples = excluded.samples, labels = excluded.labels,
    held_out = excluded.held_out,
    held_out_right = excluded.held_out_right, confidence = excluded.confidence, made_by = excluded.made_by,
    base = excluded.base, shown = excluded.shown
WHERE standing.tenant = excluded.tenant
"""
_ROWS = """
SELECT model, tenant, domain, kind, state, made_ms, samples, labels, held_out, held_out_right, confidence, digest,
       retired_ms, made_by, reason, content, base, shown, coalesce(examined.asked, 0) AS held_out_asked,
       coalesce(examined.as_good, 0) AS as_good
FROM evolution.students LEFT JOIN LATERAL (
    SELECT count(*) AS asked, count(*) FILTER (WHERE pairs.score >= pairs.other_score) AS as_good
    FROM evolution.held_out AS item
    JOIN evolution.pairs ON pairs.tenant = item.tenant AND pairs.id = item.task_id AND pairs.model = item.model
                             AND pairs.at_ms >= students.made_ms
    WHERE item.model = students.model AND students.kind = 'endpoint'
) AS examined ON true
WHERE ($1::text IS NULL OR tenant = $1) AND ($2 = '' OR model = $2)
ORDER BY made_ms DESC, model LIMIT $3
"""

_MADE = "SELECT model, made_ms FROM evolution.students WHERE kind = $1 AND state = 'serving'"


# Prompts that show what is no sample any more, or was objected to since; one with content serves while it is made anew.
_OUTDATED = f"""
SELECT model FROM evolution.students AS student
WHERE kind = 'prompt' AND content <> '' AND state <> 'retired' AND cardinality(shown) > (
    SELECT count(*) FROM (
        SELECT s.model, s.rank, s.confidence, {WORTH} AS worth
        FROM evolution.samples s
        WHERE s.tenant = student.tenant AND s.task_id = ANY(student.shown)
    ) AS known WHERE {verified("$1")}
)
"""  # noqa: S608 - constants


class Kept(NamedTuple):
    """A student as it is shown, the claim of its content, and the tasks whose answers it shows (of a prompt)."""

    row: StudentRow
    content: str
    shown: tuple[str, ...] = ()


async def made(pool: Any, kind: str) -> list[tuple[str, None, str, int]]:
    """Returns the serving students of a kind: model, all domains, none of the tenants alone, and when each was made."""
    rows = await pool.fetch(_MADE, kind)
    return [(row["model"], None, "", row["made_ms"]) for row in rows]


class StudentStore:
    """Students over a pool of connections."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def put(self, row: StudentRow, content: str, shown: Sequence[str] = ()) -> bool:
        """Keeps a student, in the place of an earlier one of the same name and tenant.

        Returns false, and keeps nothing, where the name is another tenant's.
        """
        status: str = await self._pool.execute(
            _PUT, row.model, row.tenant, row.domain, row.kind, content, row.digest, row.made_at_ms, row.samples,
            row.labels, row.held_out, row.held_out_right, row.confidence, row.by, row.state, row.reason, row.base,
            list(shown),
        )  # fmt: skip
        return not status.endswith(" 0")

    @asynccontextmanager
    async def claimed(self, model: str) -> AsyncGenerator[bool]:
        """Yields whether nobody else makes this student; the claim ends with the block, or with the process."""
        async with self._pool.acquire() as connection, connection.transaction():
            yield bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1, hashtext($2))", _MAKING, model))

    async def undo(self, row: StudentRow, before: Kept | None) -> None:
        """Takes back a row that was begun, for the one that stood ``before`` it; one that went on since stays."""
        status: str = await self._pool.execute(
            "DELETE FROM evolution.students WHERE model = $1 AND tenant = $2 AND state = 'training'",
            row.model,
            row.tenant,
        )
        if before is None or status.endswith(" 0"):
            return
        await self.put(before.row, before.content, before.shown)
        if before.row.state == "retired":
            # Only a change of state says when.
            await self._pool.execute(
                "UPDATE evolution.students SET retired_ms = $2 WHERE model = $1",
                row.model,
                before.row.retired_at_ms,
            )

    async def rows(self, tenant: str | None, model: str = "") -> list[Kept]:
        """Returns students of one tenant, or (none) of all, the newest first."""
        return [_kept(row) for row in await self._pool.fetch(_ROWS, tenant, model, ROWS_MAX)]

    async def outdated(self, confidence_min: float) -> set[str]:
        """Returns the prompts that show an answer which is no verified sample any more."""
        return {row["model"] for row in await self._pool.fetch(_OUTDATED, confidence_min)}

    async def retire(self, model: str, now_ms: int) -> None:
        """Marks a student as retired."""
        await self._pool.execute(
            "UPDATE evolution.students SET state = 'retired', retired_ms = $2 WHERE model = $1 AND state <> 'retired'",
            model,
            now_ms,
        )

    async def give_up(self, begun_before_ms: int) -> None:
        """Says of students whose training nobody ends any more that it was interrupted; what served before serves."""
        await self._pool.execute(
            """UPDATE evolution.students SET reason = 'interrupted',
                state = CASE WHEN content <> '' THEN 'serving' ELSE 'failed' END
            WHERE state = 'training' AND made_ms < $1""",
            begun_before_ms,
        )

    async def erase(self, tenant: str) -> tuple[list[Kept], int]:
        """Removes a tenant's samples and students; returns the students and how many rows went."""
        students = await self.rows(tenant)
        async with self._pool.acquire() as connection, connection.transaction():
            gone = 0
            for table in ("samples", "tried", "exports", "held_out", "students"):
                status: str = await connection.execute(f"DELETE FROM evolution.{table} WHERE tenant = $1", tenant)  # noqa: S608
                gone += int(status.rpartition(" ")[2])
        return students, gone


def _kept(row: Any) -> Kept:
    fields = dict(row)
    content = fields.pop("content")
    if as_good := fields.pop("as_good"):
        fields["held_out_right"] = as_good
    fields["made_at_ms"], fields["retired_at_ms"] = fields.pop("made_ms"), fields.pop("retired_ms")
    fields["by"] = fields.pop("made_by")
    shown = tuple(fields.pop("shown"))
    return Kept(StudentRow(**fields, exemplars=len(shown)), content, shown)
