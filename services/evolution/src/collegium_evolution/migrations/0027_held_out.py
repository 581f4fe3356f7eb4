"""Which tasks each export held out, and how far asking fine-tuned models about them has come.

Revision ID: 0027
Revises: 0026
"""

from __future__ import annotations

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "ALTER TABLE evolution.exports ADD COLUMN held text[] NOT NULL DEFAULT '{}'",
    # ``state``: waiting, asked, compared, unanswered (after the last try), or gone. ``waits`` says why one that is
    # waiting was not asked when it was due; it was asked ``tries`` times, last at ``asked_ms``.
    """
    CREATE TABLE evolution.held_out (
        model text NOT NULL,
        task_id text NOT NULL,
        tenant text NOT NULL,
        state text NOT NULL DEFAULT 'waiting',
        waits text NOT NULL DEFAULT '',
        due_ms bigint NOT NULL,
        tries int NOT NULL DEFAULT 0,
        asked_ms bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (model, task_id)
    )
    """,
    "CREATE INDEX held_out_due ON evolution.held_out (due_ms) WHERE state = 'waiting'",
    "CREATE INDEX held_out_asked ON evolution.held_out (model, asked_ms) WHERE state = 'asked'",
)


def upgrade() -> None:
    """Makes the column and the table."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drops them."""
    op.execute("DROP TABLE evolution.held_out")
    op.execute("ALTER TABLE evolution.exports DROP COLUMN held")
