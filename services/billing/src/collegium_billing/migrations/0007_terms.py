"""What a transaction was made of, classes of tokens in the sums, where sums and ledger differ by the hour, own pools.

Revision ID: 0007
Revises: 0006

A transaction keeps the tokens and the version of prices that made its amount, so that laws and invoices need no row
that is purged. Where sums and ledger of an hour differ already, that is taken as it stands.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TOKENS = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
_COLUMNS = (
    "ALTER TABLE billing.tenants ADD pool text NOT NULL DEFAULT ''",
    "ALTER TABLE billing.tasks ADD cache_write_tokens bigint NOT NULL DEFAULT 0,"
    " ADD price_version bigint NOT NULL DEFAULT 0",
    """
    ALTER TABLE billing.usage_sums
        ADD cache_write_tokens numeric(38, 0) NOT NULL DEFAULT 0,
        ADD reasoning_tokens numeric(38, 0) NOT NULL DEFAULT 0
    """,
    # None where nothing is priced by tokens, and of what was posted before and has no row any more.
    f"ALTER TABLE billing.transactions ADD price_version bigint, {', '.join(f'ADD {name} bigint' for name in _TOKENS)}",
    "CREATE INDEX transactions_of_tenant ON billing.transactions (tenant, at) WHERE kind IN ('charge', 'correction')",
    # A call that is told of again may move to another hour's sum; its transaction stays where it was.
    """
    CREATE TABLE billing.sums_moved (
        begins_at timestamptz NOT NULL,
        tenant text NOT NULL,
        project text NOT NULL,
        key_id text NOT NULL,
        model text NOT NULL,
        cost_picos numeric(38, 0) NOT NULL,
        wasted_picos numeric(38, 0) NOT NULL
    )
    """,
    "CREATE INDEX sums_moved_by_time ON billing.sums_moved (begins_at)",
)
_ROWS = (
    """
    UPDATE billing.tasks SET cache_write_tokens = written
    FROM (SELECT task_id, sum(cache_write_tokens)::int8 AS written FROM billing.attempts
          WHERE cache_write_tokens > 0 GROUP BY task_id) AS calls
    WHERE calls.task_id = tasks.task_id
    """,
    """
    UPDATE billing.tasks SET price_version = version
    FROM (SELECT DISTINCT ON (task_id, model) task_id, model, price_version AS version FROM billing.attempts
          WHERE succeeded AND price_version > 0 ORDER BY task_id, model, attempt DESC, delivery DESC) AS calls
    WHERE calls.task_id = tasks.task_id AND calls.model = tasks.model
    """,
    """
    UPDATE billing.usage_sums AS standing
    SET cache_write_tokens = booked.written, reasoning_tokens = booked.reasoned
    FROM (
        SELECT seconds, begins_at, sha256(convert_to(grouping::text, 'UTF8')) AS digest,
               sum(cache_write_tokens) AS written, sum(reasoning_tokens) AS reasoned
        FROM (SELECT *, jsonb_build_array(tenant, project, key_id, model, rank, plan, tags) AS grouping
              FROM billing.tasks WHERE cache_write_tokens > 0 OR reasoning_tokens > 0) AS rows
        CROSS JOIN LATERAL (VALUES (3600, date_trunc('hour', settled_at, 'UTC')),
                                   (86400, date_trunc('day', settled_at, 'UTC'))) AS spans (seconds, begins_at)
        GROUP BY seconds, begins_at, grouping
    ) AS booked
    WHERE (standing.seconds, standing.begins_at, standing.digest) = (booked.seconds, booked.begins_at, booked.digest)
      AND standing.slot = (SELECT min(slot) FROM billing.usage_sums AS one
                           WHERE (one.seconds, one.begins_at, one.digest)
                               = (standing.seconds, standing.begins_at, standing.digest))
    """,
    "ALTER TABLE billing.transactions DISABLE TRIGGER append_only",
    f"""
    UPDATE billing.transactions SET (price_version, {", ".join(_TOKENS)})
        = (calls.price_version, {", ".join(f"calls.{name}" for name in _TOKENS)})
    FROM billing.attempts AS calls WHERE event_id = concat_ws('/', 'call', task_id, attempt, delivery)
    """,  # noqa: S608 - constants
    f"""
    UPDATE billing.transactions SET (price_version, {", ".join(_TOKENS)})
        = (settled.price_version, {", ".join(f"settled.{name}" for name in _TOKENS)})
    FROM billing.tasks AS settled WHERE event_id = 'charge/' || task_id
    """,  # noqa: S608 - constants
    "ALTER TABLE billing.transactions ENABLE TRIGGER append_only",
    """
    INSERT INTO billing.sums_moved
    SELECT begins_at, tenant, project, key_id, model, sum(cost), sum(wasted)
    FROM (
        SELECT begins_at, tenant, project, key_id, coalesce(nullif(model, ''), '-') AS model, cost_picos AS cost,
               wasted_picos AS wasted
        FROM billing.usage_sums WHERE seconds = 3600
        UNION ALL
        SELECT date_trunc('hour', at, 'UTC'), posted.tenant, project, key_id, model,
               CASE WHEN kind = 'call' THEN -amount_picos ELSE 0 END,
               CASE WHEN kind = 'waste' THEN -amount_picos ELSE 0 END
        FROM billing.transactions AS posted JOIN billing.entries ON transaction = id AND line = 1
        WHERE kind IN ('call', 'waste')
    ) AS both_sides
    GROUP BY begins_at, tenant, project, key_id, model HAVING sum(cost) <> 0 OR sum(wasted) <> 0
    """,
)


def upgrade() -> None:
    """Adds columns and tables, and fills them from what stands."""
    for statement in _COLUMNS + _ROWS:
        op.execute(statement)


def downgrade() -> None:
    """Drops them and what they hold."""
    op.execute("DROP TABLE billing.sums_moved")
    op.execute("DROP INDEX billing.transactions_of_tenant")
    for table, columns in (
        ("transactions", ("price_version", *_TOKENS)),
        ("usage_sums", ("cache_write_tokens", "reasoning_tokens")),
        ("tasks", ("cache_write_tokens", "price_version")),
        ("tenants", ("pool",)),
    ):
        for column in columns:
            op.execute(f"ALTER TABLE billing.{table} DROP COLUMN {column}")
