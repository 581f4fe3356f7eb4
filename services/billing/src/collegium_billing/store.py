"""What billing asks of PostgreSQL about the books: what happened and what it cost.

Not here: tenants and keys (identity_store), what events mean (booking) and what figures mean (usage). One rule: what a
batch of events adds is one transaction with one statement a table, and doing it again changes nothing.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
from collegium_contracts.scope import AnyScope, tenant_of
from collegium_runtime.failpoints import failpoint
from collegium_store import archive, retry_transient
from collegium_store.archive import ArchivedEvent

from collegium_billing import ledger_store
from collegium_billing.booking import AttemptRow, Books, StartRow, TaskRow
from collegium_billing.usage import ROWS_MAX, Sums, UsageQuery

# Shorter than a caller waits for its answer.
REPORT_SECONDS = 4.0
POSSIBLE_SPEND_MAX = 10_000
# Shorter than the lease of a batch, which would come again elsewhere.
CONFLICT_SECONDS = 3.0

_INSERT_STARTS = """
INSERT INTO billing.starts (task_id, attempt, delivery, tenant, model, at)
SELECT task_id, attempt, delivery, tenant, model, timestamptz 'epoch' + at_ms * interval '1 millisecond'
FROM unnest($1::text[], $2::int4[], $3::int4[], $4::text[], $5::text[], $6::int8[])
     AS new (task_id, attempt, delivery, tenant, model, at_ms)
ON CONFLICT DO NOTHING
"""

# Two tellings of one call merge as booking.merge does: earliest time, wasted once anybody said so.
# A row that was there before has an xmax, so that only what was booked just now is summed up.
_INSERT_ATTEMPTS = """
WITH booked AS (
INSERT INTO billing.attempts AS standing (
    task_id, attempt, delivery, tenant, project, key_id, model, rank, plan, tags, at, input_tokens,
    cached_input_tokens, output_tokens, reasoning_tokens, estimated, cost_picos, wasted, succeeded, error_code,
    duration_ms, price_version, cache_write_tokens
)
SELECT task_id, attempt, delivery, tenant, project, key_id, model, rank, plan, tags::jsonb,
       timestamptz 'epoch' + at_ms * interval '1 millisecond', input_tokens, cached_input_tokens, output_tokens,
       reasoning_tokens, estimated, cost_picos::numeric, wasted, succeeded, error_code, duration_ms, price_version,
       cache_write_tokens
FROM unnest(
    $1::text[], $2::int4[], $3::int4[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::text[], $11::int8[], $12::int8[], $13::int8[], $14::int8[], $15::int8[], $16::bool[], $17::text[],
    $18::bool[], $19::bool[], $20::text[], $21::int8[], $22::int8[], $23::int8[]
) AS new (
    task_id, attempt, delivery, tenant, project, key_id, model, rank, plan, tags, at_ms, input_tokens,
    cached_input_tokens, output_tokens, reasoning_tokens, estimated, cost_picos, wasted, succeeded, error_code,
    duration_ms, price_version, cache_write_tokens
)
ON CONFLICT (task_id, attempt, delivery) DO UPDATE
SET wasted = standing.wasted OR excluded.wasted, at = least(standing.at, excluded.at)
WHERE (excluded.wasted AND NOT standing.wasted) OR excluded.at < standing.at
RETURNING model, cost_picos, standing.xmax = 0 AS is_new
)
SELECT model, sum(cost_picos) FROM booked WHERE is_new GROUP BY model
"""

_INSERT_TASKS = """
INSERT INTO billing.tasks (
    task_id, tenant, project, key_id, model, rank, plan, tags, settled_at, state, stop_reason, input_tokens,
    cached_input_tokens, output_tokens, reasoning_tokens, estimated, charge_picos, cache, saved_picos
)
SELECT task_id, tenant, project, key_id, model, rank, plan, tags::jsonb,
       timestamptz 'epoch' + settled_at_ms * interval '1 millisecond', state, stop_reason, input_tokens,
       cached_input_tokens, output_tokens, reasoning_tokens, estimated, charge_picos::numeric, cache,
       saved_picos::numeric
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int8[],
    $10::text[], $11::text[], $12::int8[], $13::int8[], $14::int8[], $15::int8[], $16::bool[], $17::text[],
    $18::text[], $19::text[]
) AS new (
    task_id, tenant, project, key_id, model, rank, plan, tags, settled_at_ms, state, stop_reason, input_tokens,
    cached_input_tokens, output_tokens, reasoning_tokens, estimated, charge_picos, cache, saved_picos
)
ON CONFLICT DO NOTHING
"""

_POSSIBLE_SPEND = """
SELECT task_id, attempt, delivery, tenant, model, (extract(epoch FROM at) * 1000)::int8
FROM billing.starts AS started
WHERE at >= timestamptz 'epoch' + $1::int8 * interval '1 millisecond'
  AND at < timestamptz 'epoch' + $2::int8 * interval '1 millisecond'
  AND ($3::text IS NULL OR tenant = $3)
  AND NOT EXISTS (
      SELECT FROM billing.attempts AS ended
      WHERE (ended.task_id, ended.attempt, ended.delivery) = (started.task_id, started.attempt, started.delivery)
  )
ORDER BY at, task_id, attempt, delivery
LIMIT $4
"""

# The only expressions that a report may group by; requests name them and never spell them.
_TASK_GROUPS = {
    "tenant": "tenant",
    "project": "project",
    "key": "key_id",
    "model": "model",
    "rank": "rank",
    "plan": "plan",
    "tag": "coalesce(tag.key || '=' || tag.value, '')",
    "day": "to_char(settled_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}
_ATTEMPT_GROUPS = _TASK_GROUPS | {"day": "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD')"}


class PossibleSpend(NamedTuple):
    """A call that was started and of whose end nothing is known; the fields are those of StartRow."""

    task_id: str
    attempt: int
    delivery: int
    tenant: str
    model: str
    at_ms: int


class Store:
    """Billing's tables over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def book(self, books: Books, archived: Sequence[ArchivedEvent]) -> dict[str, int]:
        """Adds a batch of events and its rows in one transaction; what stands already stays.

        Returns the cost booked for the first time, in pico-dollars by model. Where a value cannot be
        held or is below zero, nothing of the batch is stored and ``collegium_store.is_poison`` knows the error. What
        another replica's batch stood in the way of is tried again.
        """
        return await retry_transient(
            lambda: self._book(books, archived), deadline_seconds=CONFLICT_SECONDS, is_transient=_is_conflict
        )

    async def _book(self, books: Books, archived: Sequence[ArchivedEvent]) -> dict[str, int]:
        async with self._pool.acquire() as connection, connection.transaction():
            await archive.append(connection, archived)
            await _insert(connection, _INSERT_STARTS, books.starts)
            costs = await _insert(connection, _INSERT_ATTEMPTS, books.attempts)
            await _insert(connection, _INSERT_TASKS, books.tasks)
            await ledger_store.book(connection, books)
            failpoint("billing.before-commit")
        failpoint("billing.after-commit")
        return {model: int(picos) for model, picos in costs}

    async def usage(self, asked: UsageQuery) -> tuple[list[Sums], Sums]:
        """Returns the sums by group (at most ROWS_MAX + 1 rows) and the totals, of one moment.

        Raises TimeoutError after REPORT_SECONDS.
        """
        arguments = (asked.from_ms, asked.to_ms, tenant_of(asked.scope))
        async with (
            asyncio.timeout(REPORT_SECONDS),
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            found = await connection.fetch(_usage_sql(()), *arguments)
            totals = _sums(found[0], 0)
            if not asked.groups:
                return [totals], totals
            rows = await connection.fetch(_usage_sql(asked.groups), *arguments)
            return [_sums(row, len(asked.groups)) for row in rows], totals

    async def possible_spend(
        self, scope: AnyScope, from_ms: int, to_ms: int, *, limit: int = POSSIBLE_SPEND_MAX
    ) -> list[PossibleSpend]:
        """Lists calls started in [from, to) of whose end nothing is booked, oldest first.

        A call that still runs is among them: let ``to_ms`` lie further back than a call may take.
        """
        rows = await self._pool.fetch(_POSSIBLE_SPEND, from_ms, to_ms, tenant_of(scope), min(limit, POSSIBLE_SPEND_MAX))
        return [PossibleSpend(*row) for row in rows]


def _is_conflict(error: BaseException) -> bool:
    return isinstance(error, (asyncpg.SerializationError, asyncpg.DeadlockDetectedError))


async def _insert(
    connection: Any, statement: str, rows: Sequence[StartRow | AttemptRow | TaskRow]
) -> list[asyncpg.Record]:
    return await connection.fetch(statement, *map(list, zip(*rows, strict=True))) if rows else []


def _usage_sql(groups: Sequence[str]) -> str:
    """Writes the report's statement: two sums side by side, of settled tasks and of booked calls, then their sum."""
    names = [f"group_{number}" for number in range(len(groups))]
    lead = "".join(f"{name}, " for name in names)
    tag = "LEFT JOIN LATERAL jsonb_each_text(tags) AS tag ON true" if "tag" in groups else ""
    by = f"GROUP BY {', '.join(names)}" if names else ""

    def expressions(of: dict[str, str]) -> str:
        return "".join(f"{of[group]} AS {name}, " for group, name in zip(groups, names, strict=True))

    def during(column: str) -> str:
        return (
            f"WHERE {column} >= timestamptz 'epoch' + $1::int8 * interval '1 millisecond'"
            f" AND {column} < timestamptz 'epoch' + $2::int8 * interval '1 millisecond'"
            " AND ($3::text IS NULL OR tenant = $3)"
        )

    return f"""
    SELECT {lead} coalesce(sum(requests), 0), coalesce(sum(input_tokens), 0), coalesce(sum(cached_input_tokens), 0),
           coalesce(sum(output_tokens), 0), coalesce(sum(cost), 0), coalesce(sum(wasted), 0), coalesce(sum(charge), 0),
           coalesce(sum(saved), 0)
    FROM (
        SELECT {expressions(_TASK_GROUPS)}
               count(*) FILTER (WHERE state = 'completed' OR charge_picos > 0) AS requests,
               sum(input_tokens) AS input_tokens, sum(cached_input_tokens) AS cached_input_tokens,
               sum(output_tokens) AS output_tokens, 0 AS cost, 0 AS wasted, sum(charge_picos) AS charge,
               sum(saved_picos) AS saved
        FROM billing.tasks {tag} {during("settled_at")} {by}
        UNION ALL
        SELECT {expressions(_ATTEMPT_GROUPS)} 0, 0, 0, 0,
               sum(cost_picos), sum(cost_picos) FILTER (WHERE attempts.wasted), 0, 0
        FROM billing.attempts {tag} {during("at")} {by}
    ) AS parts {by} LIMIT {ROWS_MAX + 1}
    """  # noqa: S608 - made of this module's constants alone


def _sums(row: asyncpg.Record, groups: int) -> Sums:
    values = tuple(row)
    return Sums(values[:groups], *(int(value) for value in values[groups:]))
