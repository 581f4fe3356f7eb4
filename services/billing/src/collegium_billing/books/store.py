"""The books in PostgreSQL: what happened and what it cost.

Not here: sums (sum_store), reports (usage_store), tenants and keys (identity_store), what events mean (booking) and
what figures mean (usage). One rule: what a batch of events adds is one transaction with one statement a table, and
doing it again changes nothing.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
from collegium_contracts.scope import AnyScope, tenant_of
from collegium_runtime.failpoints import failpoint
from collegium_store import archive, retry_transient
from collegium_store.archive import ArchivedEvent

from collegium_billing.books import ledger_store, sum_store
from collegium_billing.books.booking import AttemptRow, Books, StartRow, TaskRow

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
# A row that changes keeps what stood before it, so that the sums can be put right; one without was booked just now.
_INSERT_ATTEMPTS = """
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
SET wasted = standing.wasted OR excluded.wasted, at = least(standing.at, excluded.at),
    earlier_wasted = standing.wasted, earlier_at = standing.at
WHERE (excluded.wasted AND NOT standing.wasted) OR excluded.at < standing.at
RETURNING task_id, attempt, delivery,
          CASE WHEN earlier_at IS NOT NULL THEN ARRAY[
              tenant, project, key_id, model, rank, plan, tags::text, cost_picos::text,
              (extract(epoch FROM at) * 1000)::int8::text, wasted::text,
              (extract(epoch FROM earlier_at) * 1000)::int8::text, earlier_wasted::text
          ] END
"""

_INSERT_TASKS = """
INSERT INTO billing.tasks (
    task_id, tenant, project, key_id, model, rank, plan, tags, settled_at, state, stop_reason, input_tokens,
    cached_input_tokens, output_tokens, reasoning_tokens, estimated, charge_picos, cache, saved_picos, created_at,
    error_code, reference_model, reference_picos, cache_write_tokens, price_version
)
SELECT task_id, tenant, project, key_id, model, rank, plan, tags::jsonb,
       timestamptz 'epoch' + settled_at_ms * interval '1 millisecond', state, stop_reason, input_tokens,
       cached_input_tokens, output_tokens, reasoning_tokens, estimated, charge_picos::numeric, cache,
       saved_picos::numeric, timestamptz 'epoch' + created_at_ms * interval '1 millisecond', error_code,
       reference_model, reference_picos::numeric, cache_write_tokens, price_version
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int8[],
    $10::text[], $11::text[], $12::int8[], $13::int8[], $14::int8[], $15::int8[], $16::bool[], $17::text[],
    $18::text[], $19::text[], $20::int8[], $21::text[], $22::text[], $23::text[], $24::int8[], $25::int8[]
) AS new (
    task_id, tenant, project, key_id, model, rank, plan, tags, settled_at_ms, state, stop_reason, input_tokens,
    cached_input_tokens, output_tokens, reasoning_tokens, estimated, charge_picos, cache, saved_picos, created_at_ms,
    error_code, reference_model, reference_picos, cache_write_tokens, price_version
)
ON CONFLICT DO NOTHING
RETURNING task_id
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
        self._slot = random.randrange(sum_store.SLOTS)  # noqa: S311 - spreads replicas

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
            calls = await _insert(connection, _INSERT_ATTEMPTS, books.attempts)
            tasks = await _insert(connection, _INSERT_TASKS, books.tasks)
            costs = await sum_store.add(connection, self._slot, books, tasks, calls)
            await ledger_store.book(connection, books)
            failpoint("billing.before-commit")
        failpoint("billing.after-commit")
        return costs

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
