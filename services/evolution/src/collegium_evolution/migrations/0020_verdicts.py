"""Weighed answers: who agreed with whom, and how sure a verdict was, beside what became of it.

Revision ID: 0020
Revises: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0003"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE evolution.verdicts (
        tenant text NOT NULL,
        task_id text NOT NULL,
        domain text NOT NULL,
        plan text NOT NULL,
        confidence double precision,
        evidence bytea NOT NULL,
        settled_at_ms bigint NOT NULL,
        PRIMARY KEY (tenant, task_id)
    )
    """,
    "CREATE INDEX verdicts_by_time ON evolution.verdicts (settled_at_ms)",
)


def upgrade() -> None:
    """Makes the table."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drops the table and what it holds."""
    op.execute("DROP TABLE evolution.verdicts")
