"""Rows for measuring reports: tasks, calls and their sums, as so many requests of the past days would have left them.

The same seed gives the same rows. One rule: sums are made from the rows, by the database, so that a report can be
checked against them.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from typing import Any

DAYS = 30
TENANTS = 50
PART_ROWS = 250_000

# Tenants differ in size; each has two keys, which belong to a project and a team each; every fifth request is tagged.
_TASKS = """
INSERT INTO billing.tasks (
    task_id, tenant, project, key_id, model, rank, plan, tags, settled_at, state, stop_reason, input_tokens,
    cached_input_tokens, output_tokens, reasoning_tokens, estimated, charge_picos, created_at, reference_model,
    reference_picos
)
SELECT 'tsk_' || lpad(number::text, 26, '0'), 'bench' || tenant, 'project-' || key, 'key-' || tenant || '-' || key,
       (ARRAY['small', 'middle', 'large', 'sim'])[1 + number % 4],
       (ARRAY['student', 'student', 'ta', 'teacher'])[1 + number % 4], 'single',
       CASE WHEN number % 5 = 0 THEN jsonb_build_object('team', 'team-' || key) ELSE '{}' END,
       at, 'completed', 'completed', tokens, tokens / 4, tokens / 2, 0, false, tokens * 300000::numeric,
       at - interval '1 second', CASE WHEN number % 4 < 3 THEN 'sim' ELSE '' END,
       CASE WHEN number % 4 < 3 THEN tokens * 900000::numeric ELSE 0 END
FROM (
    SELECT number, (random() * random() * ($3 - 1))::int AS tenant, 50 + (random() * 2000)::int AS tokens,
           (random() < 0.3)::int AS key,
           now() - $4::float8 * interval '1 day' * (1 - number::float8 / $5) AS at
    FROM generate_series($1::int8, $2::int8) AS number
) AS drawn
"""
_CALLS = """
INSERT INTO billing.attempts (
    task_id, attempt, delivery, tenant, project, key_id, model, rank, plan, tags, at, input_tokens, cached_input_tokens,
    output_tokens, reasoning_tokens, estimated, cost_picos, wasted, succeeded, error_code, duration_ms
)
SELECT task_id, 1, 1, tenant, project, key_id, model, rank, plan, tags, settled_at, input_tokens, cached_input_tokens,
       output_tokens, 0, false, charge_picos / 2, false, true, '', 900
FROM billing.tasks WHERE task_id BETWEEN $1 AND $2
"""
_SUMS = """
INSERT INTO billing.usage_sums
SELECT seconds, begins_at, sha256(convert_to(grouping::text, 'UTF8')), 0, grouping ->> 0, grouping ->> 1,
       grouping ->> 2, grouping ->> 3, grouping ->> 4, grouping ->> 5, grouping -> 6, count(*), sum(input_tokens),
       sum(cached_input_tokens), sum(output_tokens), sum(charge_picos / 2), 0, sum(charge_picos),
       sum(CASE WHEN reference_model <> '' THEN reference_picos - charge_picos ELSE 0 END)
FROM (
    SELECT *, jsonb_build_array(tenant, project, key_id, model, rank, plan, tags) AS grouping
    FROM billing.tasks WHERE tenant LIKE 'bench%'
) AS booked
CROSS JOIN LATERAL (VALUES (3600, date_trunc('hour', settled_at, 'UTC')), (86400, date_trunc('day', settled_at, 'UTC')))
     AS spans (seconds, begins_at)
GROUP BY seconds, begins_at, grouping
"""


async def fill(connection: Any, rows: int, *, seed: float = 0.25, tenants: int = TENANTS) -> None:
    """Fills billing's tables with so many tasks, a call each, and their sums; ``seed`` is from -1 to 1."""
    # Kept by the session, so that the parts draw on from each other.
    await connection.execute("SELECT setseed($1)", seed)
    for begin in range(1, rows + 1, PART_ROWS):
        end = min(begin + PART_ROWS - 1, rows)
        await connection.execute(_TASKS, begin, end, tenants, float(DAYS), rows, timeout=600)
        await connection.execute(_CALLS, f"tsk_{begin:026d}", f"tsk_{end:026d}", timeout=600)
    await connection.execute(_SUMS, timeout=3600)
    for table in ("tasks", "attempts", "usage_sums"):
        await connection.execute(f"VACUUM (ANALYZE) billing.{table}", timeout=3600)
