"""Scores, their durations, and which events they hold.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE evolution.scores (
        model text NOT NULL,
        domain text NOT NULL,
        rank text NOT NULL,
        calls bigint NOT NULL,
        succeeded bigint NOT NULL,
        duration_ms_total bigint NOT NULL,
        cost_picos numeric(38, 0) NOT NULL,
        last_at timestamptz NOT NULL,
        PRIMARY KEY (model, domain, rank)
    )
    """,
    """
    CREATE TABLE evolution.durations (
        model text NOT NULL,
        domain text NOT NULL,
        rank text NOT NULL,
        bucket int NOT NULL,
        calls bigint NOT NULL,
        PRIMARY KEY (model, domain, rank, bucket)
    )
    """,
    # Everything up to the position was folded; of what lies after it, the events that were folded already.
    """
    CREATE TABLE evolution.position (
        durable text PRIMARY KEY,
        sequence bigint NOT NULL,
        stored_ns bigint NOT NULL
    )
    """,
    "INSERT INTO evolution.position VALUES ('scoreboard', 0, 0)",
    """
    CREATE TABLE evolution.folded (
        sequence bigint NOT NULL,
        stored_ns bigint NOT NULL,
        PRIMARY KEY (sequence, stored_ns)
    )
    """,
)


def upgrade() -> None:
    """Makes the tables; the schema itself is made by the migration runner."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drops the tables and what they hold."""
    for table in ("folded", "position", "durations", "scores"):
        op.execute(f"DROP TABLE evolution.{table}")
