"""What may be learned from: prompts and answers of tenants that agreed, sealed; and the students made of them.

Revision ID: 0022
Revises: 0021
"""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE evolution.samples (
        tenant text NOT NULL,
        task_id text NOT NULL,
        domain text NOT NULL,
        model text NOT NULL,
        rank text NOT NULL,
        tier text NOT NULL,
        confidence double precision,
        consent_ms bigint NOT NULL,
        settled_ms bigint NOT NULL,
        prompt bytea NOT NULL,
        answer bytea NOT NULL,
        PRIMARY KEY (tenant, task_id)
    )
    """,
    "CREATE INDEX samples_domain ON evolution.samples (tenant, domain, settled_ms DESC)",
    "CREATE INDEX samples_age ON evolution.samples (settled_ms)",
    """
    CREATE TABLE evolution.students (
        model text PRIMARY KEY,
        tenant text NOT NULL,
        domain text NOT NULL,
        kind text NOT NULL,
        state text NOT NULL,
        content text NOT NULL,
        digest text NOT NULL,
        made_ms bigint NOT NULL,
        retired_ms bigint NOT NULL DEFAULT 0,
        samples bigint NOT NULL,
        labels bigint NOT NULL,
        held_out bigint NOT NULL,
        held_out_right bigint NOT NULL,
        confidence double precision NOT NULL,
        made_by text NOT NULL,
        reason text NOT NULL DEFAULT ''
    )
    """,
    "CREATE INDEX students_tenant ON evolution.students (tenant, made_ms DESC)",
)


def upgrade() -> None:
    """Makes both tables."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drops both."""
    op.execute("DROP TABLE evolution.students")
    op.execute("DROP TABLE evolution.samples")
