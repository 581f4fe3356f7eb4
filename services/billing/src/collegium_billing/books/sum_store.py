"""The sums in PostgreSQL: what a booked batch adds, in its own transaction.

Not here: which rows were booked (store) and what each sum changes by (sums). One rule: one statement a batch, its rows
in one order everywhere, so that two replicas never wait for each other in a circle.

A sum is kept in several slots, and a process writes to one of them, so that replicas that book for the same tenant in
the same hour seldom wait for each other's commits; whoever reads adds the slots up.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none

from collegium_billing.books.booking import Books
from collegium_billing.books.sums import CallChanged, Changes

SLOTS = 8

_ADD = """
INSERT INTO billing.usage_sums AS standing (
    seconds, begins_at, digest, slot, tenant, project, key_id, model, rank, plan, tags, requests, input_tokens,
    cached_input_tokens, output_tokens, cost_picos, wasted_picos, charge_picos, saved_picos,
    cache_write_tokens, reasoning_tokens
)
SELECT seconds, timestamptz 'epoch' + begins_at_ms * interval '1 millisecond',
       sha256(convert_to(jsonb_build_array(tenant, project, key_id, model, rank, plan, tags::jsonb)::text, 'UTF8'))
           AS digest,
       $1, tenant, project, key_id, model, rank, plan, tags::jsonb, requests::numeric, input_tokens::numeric,
       cached_input_tokens::numeric, output_tokens::numeric, cost_picos::numeric, wasted_picos::numeric,
       charge_picos::numeric, saved_picos::numeric, cache_write_tokens::numeric, reasoning_tokens::numeric
FROM unnest(
    $2::int4[], $3::int8[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
    $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[],
    $19::text[], $20::text[]
) AS new (
    seconds, begins_at_ms, tenant, project, key_id, model, rank, plan, tags, requests, input_tokens,
    cached_input_tokens, output_tokens, cost_picos, wasted_picos, charge_picos, saved_picos,
    cache_write_tokens, reasoning_tokens
)
ORDER BY seconds, begins_at_ms, digest
ON CONFLICT (seconds, begins_at, digest, slot) DO UPDATE
SET requests = standing.requests + excluded.requests,
    input_tokens = standing.input_tokens + excluded.input_tokens,
    cached_input_tokens = standing.cached_input_tokens + excluded.cached_input_tokens,
    output_tokens = standing.output_tokens + excluded.output_tokens,
    cost_picos = standing.cost_picos + excluded.cost_picos,
    wasted_picos = standing.wasted_picos + excluded.wasted_picos,
    charge_picos = standing.charge_picos + excluded.charge_picos,
    saved_picos = standing.saved_picos + excluded.saved_picos,
    cache_write_tokens = standing.cache_write_tokens + excluded.cache_write_tokens,
    reasoning_tokens = standing.reasoning_tokens + excluded.reasoning_tokens
"""

_MOVED = """
INSERT INTO billing.sums_moved (begins_at, tenant, project, key_id, model, cost_picos, wasted_picos)
SELECT timestamptz 'epoch' + begins_at_ms * interval '1 millisecond', tenant, project, key_id, model,
       cost_picos::numeric, wasted_picos::numeric
FROM unnest($1::int8[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
     AS new (begins_at_ms, tenant, project, key_id, model, cost_picos, wasted_picos)
"""


async def add(
    connection: Any, slot: int, books: Books, new_tasks: Sequence[asyncpg.Record], calls: Sequence[asyncpg.Record]
) -> dict[str, int]:
    """Adds what was booked to the sums; returns the cost booked for the first time, in pico-dollars by model.

    ``new_tasks`` and ``calls`` are what the statements that booked the batch returned.
    """
    changes = Changes()
    # All of a batch is new but where some of it came before, which is seldom.
    if len(new_tasks) == len(books.tasks):
        changes.add_tasks(books.tasks)
    elif new_tasks:
        tasks = {row[0] for row in new_tasks}
        changes.add_tasks(row for row in books.tasks if row.task_id in tasks)
    new_calls = [row for row in calls if row[3] is None]
    if len(new_calls) == len(books.attempts):
        changes.add_calls(books.attempts)
    elif new_calls:
        keys = {(row[0], row[1], row[2]) for row in new_calls}
        changes.add_calls(row for row in books.attempts if row[:3] in keys)
    if len(new_calls) < len(calls):
        told = {row[:3]: row.at_ms for row in books.attempts}
        for row in calls:
            if row[3] is not None:
                changes.change_call(_changed(row[3], told[row[0], row[1], row[2]]))
        if moved := changes.moved():
            await connection.execute(_MOVED, *map(list, zip(*moved, strict=True)))
    rows = changes.rows()
    if rows:
        await connection.execute(_ADD, slot, *map(list, zip(*rows, strict=True)))
    return changes.costs()


def _changed(texts: Sequence[str], told_at_ms: int) -> CallChanged:
    """Reads what the statement that books calls tells of one that it changed."""
    *group, cost_picos, at_ms, wasted, earlier_at_ms, earlier_wasted = texts
    return CallChanged(
        tuple(group),
        int(cost_picos),
        int(at_ms),
        wasted == "true",
        int(earlier_at_ms),
        earlier_wasted == "true",
        told_at_ms,
    )
