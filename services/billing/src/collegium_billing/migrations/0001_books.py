"""The books (starts, attempts, tasks), and tenants with their keys.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = (
    """
    CREATE TABLE billing.tenants (
        id text PRIMARY KEY,
        tier text NOT NULL,
        created_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE billing.keys (
        id text PRIMARY KEY,
        tenant text NOT NULL REFERENCES billing.tenants (id),
        secret_sha256 text NOT NULL,
        project text NOT NULL,
        scopes text[] NOT NULL,
        name text NOT NULL,
        created_at timestamptz NOT NULL,
        revoked_at timestamptz
    )
    """,
    "CREATE INDEX keys_of_tenant ON billing.keys (tenant, created_at)",
    """
    CREATE TABLE billing.starts (
        task_id text NOT NULL,
        attempt int NOT NULL,
        delivery int NOT NULL,
        tenant text NOT NULL,
        model text NOT NULL,
        at timestamptz NOT NULL,
        PRIMARY KEY (task_id, attempt, delivery)
    )
    """,
    """
    CREATE TABLE billing.attempts (
        task_id text NOT NULL,
        attempt int NOT NULL,
        delivery int NOT NULL,
        tenant text NOT NULL,
        project text NOT NULL,
        key_id text NOT NULL,
        model text NOT NULL,
        rank text NOT NULL,
        plan text NOT NULL,
        tags jsonb NOT NULL,
        at timestamptz NOT NULL,
        input_tokens bigint NOT NULL,
        cached_input_tokens bigint NOT NULL,
        output_tokens bigint NOT NULL,
        reasoning_tokens bigint NOT NULL,
        estimated boolean NOT NULL,
        cost_picos numeric(38, 0) NOT NULL,
        wasted boolean NOT NULL,
        succeeded boolean NOT NULL,
        error_code text NOT NULL,
        duration_ms bigint NOT NULL,
        PRIMARY KEY (task_id, attempt, delivery),
        CHECK (cost_picos >= 0 AND least(input_tokens, cached_input_tokens, output_tokens, reasoning_tokens) >= 0)
    )
    """,
    """
    CREATE TABLE billing.tasks (
        task_id text PRIMARY KEY,
        tenant text NOT NULL,
        project text NOT NULL,
        key_id text NOT NULL,
        model text NOT NULL,
        rank text NOT NULL,
        plan text NOT NULL,
        tags jsonb NOT NULL,
        settled_at timestamptz NOT NULL,
        state text NOT NULL,
        stop_reason text NOT NULL,
        input_tokens bigint NOT NULL,
        cached_input_tokens bigint NOT NULL,
        output_tokens bigint NOT NULL,
        reasoning_tokens bigint NOT NULL,
        estimated boolean NOT NULL,
        charge_picos numeric(38, 0) NOT NULL,
        CHECK (charge_picos >= 0 AND least(input_tokens, cached_input_tokens, output_tokens, reasoning_tokens) >= 0)
    )
    """,
)

# Rows arrive in the order of their time, so a block range index finds a report's days at almost no cost for a write.
_INDEXES = (
    "CREATE INDEX starts_by_time ON billing.starts USING brin (at) WITH (pages_per_range = 32, autosummarize = on)",
    "CREATE INDEX attempts_by_time ON billing.attempts USING brin (at) WITH (pages_per_range = 32, autosummarize = on)",
    "CREATE INDEX tasks_by_time ON billing.tasks USING brin (settled_at)"
    " WITH (pages_per_range = 32, autosummarize = on)",
)


def upgrade() -> None:
    """Makes the tables; the schema itself is made by the migration runner."""
    for statement in _TABLES + _INDEXES:
        op.execute(statement)


def downgrade() -> None:
    """Drops the tables and what they hold."""
    for table in ("tasks", "attempts", "starts", "keys", "tenants"):
        op.execute(f"DROP TABLE billing.{table}")
