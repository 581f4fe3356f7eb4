"""Reports: sums by the hour and day, what the request log shows, invoices, budgets' alerts, the purge's horizon.

Revision ID: 0006
Revises: 0005

The sums of what stands already are made here. Billing must not book while this runs: a row that an older version books
afterwards is in no sum.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# The updates of a sum touch no index, so that most stay on their page.
_TABLES = (
    """
    CREATE TABLE billing.usage_sums (
        seconds int NOT NULL,
        begins_at timestamptz NOT NULL,
        digest bytea NOT NULL,
        slot smallint NOT NULL,
        tenant text NOT NULL,
        project text NOT NULL,
        key_id text NOT NULL,
        model text NOT NULL,
        rank text NOT NULL,
        plan text NOT NULL,
        tags jsonb NOT NULL,
        requests numeric(38, 0) NOT NULL,
        input_tokens numeric(38, 0) NOT NULL,
        cached_input_tokens numeric(38, 0) NOT NULL,
        output_tokens numeric(38, 0) NOT NULL,
        cost_picos numeric(38, 0) NOT NULL,
        wasted_picos numeric(38, 0) NOT NULL,
        charge_picos numeric(38, 0) NOT NULL,
        saved_picos numeric(38, 0) NOT NULL,
        PRIMARY KEY (seconds, begins_at, digest, slot)
    ) WITH (fillfactor = 70)
    """,
    "CREATE INDEX usage_sums_of_tenant ON billing.usage_sums (tenant, seconds, begins_at)",
    "CREATE TABLE billing.purges (one boolean PRIMARY KEY DEFAULT true CHECK (one), horizon timestamptz NOT NULL)",
    """
    CREATE TABLE billing.invoices (
        id text PRIMARY KEY,
        tenant text NOT NULL,
        month text NOT NULL,
        total_cents numeric(38, 0) NOT NULL,
        document bytea NOT NULL,
        made_at timestamptz NOT NULL,
        UNIQUE (tenant, month)
    )
    """,
    """
    CREATE TABLE billing.budget_alerts (
        tenant text NOT NULL,
        budget text NOT NULL,
        began_at_ms bigint NOT NULL,
        percent int NOT NULL,
        body bytea NOT NULL,
        told_at_ms bigint NOT NULL,
        tries int NOT NULL DEFAULT 0,
        next_try_at_ms bigint,
        PRIMARY KEY (tenant, budget, began_at_ms, percent)
    )
    """,
    "CREATE INDEX budget_alerts_due ON billing.budget_alerts (next_try_at_ms) WHERE next_try_at_ms IS NOT NULL",
)
_COLUMNS = (
    # What stood before a call was last told of otherwise; none where it was told of once.
    "ALTER TABLE billing.attempts ADD earlier_at timestamptz, ADD earlier_wasted boolean",
    """
    ALTER TABLE billing.tasks
        ADD created_at timestamptz,
        ADD error_code text NOT NULL DEFAULT '',
        ADD reference_model text NOT NULL DEFAULT '',
        ADD reference_picos numeric(38, 0) NOT NULL DEFAULT 0
    """,
    "CREATE INDEX tasks_of_tenant ON billing.tasks (tenant, settled_at, task_id)",
)
_BACKFILL = """
INSERT INTO billing.usage_sums
SELECT seconds, begins_at, sha256(convert_to(grouping::text, 'UTF8')), 0, grouping ->> 0, grouping ->> 1,
       grouping ->> 2, grouping ->> 3, grouping ->> 4, grouping ->> 5, grouping -> 6, sum(requests), sum(input_tokens),
       sum(cached_input_tokens), sum(output_tokens), sum(cost), sum(wasted), sum(charge), sum(saved)
FROM (
    SELECT settled_at AS at, jsonb_build_array(tenant, project, key_id, model, rank, plan, tags) AS grouping,
           (state = 'completed' OR charge_picos > 0)::int AS requests, input_tokens, cached_input_tokens,
           output_tokens, 0::numeric AS cost, 0::numeric AS wasted, charge_picos AS charge,
           saved_picos AS saved
    FROM billing.tasks
    UNION ALL
    SELECT at, jsonb_build_array(tenant, project, key_id, model, rank, plan, tags), 0, 0, 0, 0, cost_picos,
           CASE WHEN wasted THEN cost_picos ELSE 0 END, 0, 0
    FROM billing.attempts
) AS booked
CROSS JOIN LATERAL (VALUES (3600, date_trunc('hour', at, 'UTC')), (86400, date_trunc('day', at, 'UTC')))
     AS spans (seconds, begins_at)
GROUP BY seconds, begins_at, grouping
"""


def upgrade() -> None:
    """Makes the tables and columns, and sums up what stands."""
    for statement in (*_TABLES, *_COLUMNS, _BACKFILL):
        op.execute(statement)


def downgrade() -> None:
    """Drops them; what was purged meanwhile is in no report any more."""
    op.execute("DROP INDEX billing.tasks_of_tenant")
    op.execute("ALTER TABLE billing.tasks DROP created_at, DROP error_code, DROP reference_model, DROP reference_picos")
    op.execute("ALTER TABLE billing.attempts DROP earlier_at, DROP earlier_wasted")
    for table in ("budget_alerts", "invoices", "purges", "usage_sums"):
        op.execute(f"DROP TABLE billing.{table}")
