"""What became of answers: the last word of each source about each task, and their sums by model and domain.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE evolution.outcomes (
        tenant text NOT NULL,
        task_id text NOT NULL,
        source text NOT NULL,
        model text NOT NULL,
        domain text NOT NULL,
        rank text NOT NULL,
        score double precision NOT NULL,
        stored_ns bigint NOT NULL,
        PRIMARY KEY (tenant, task_id, source)
    )
    """,
    "ALTER TABLE evolution.scores ADD judged bigint NOT NULL DEFAULT 0",
    "ALTER TABLE evolution.scores ADD score_sum double precision NOT NULL DEFAULT 0",
)


def upgrade() -> None:
    """Makes the table, and room for the sums beside those of calls."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drops the table and the sums."""
    op.execute("ALTER TABLE evolution.scores DROP judged, DROP score_sum")
    op.execute("DROP TABLE evolution.outcomes")
