"""What other models said to the prompts of samples, which exports were written, and an index over the age of words.

Revision ID: 0026
Revises: 0025
"""

from __future__ import annotations

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE evolution.tried (
        tenant text NOT NULL,
        task_id text NOT NULL,
        number int NOT NULL,
        model text NOT NULL,
        rank text NOT NULL,
        escalated boolean NOT NULL,
        same boolean,
        answer bytea,
        at_ms bigint NOT NULL,
        PRIMARY KEY (tenant, task_id, number, model)
    )
    """,
    "CREATE INDEX tried_age ON evolution.tried (at_ms)",
    # ``manifest`` says what was written; the lines themselves lie sealed elsewhere, and are gone before it.
    """
    CREATE TABLE evolution.exports (
        id text PRIMARY KEY,
        tenant text NOT NULL,
        domain text NOT NULL,
        made_ms bigint NOT NULL,
        content text NOT NULL,
        manifest jsonb NOT NULL
    )
    """,
    "CREATE INDEX exports_tenant ON evolution.exports (tenant, made_ms DESC)",
    "CREATE INDEX outcomes_age ON evolution.outcomes (stored_ns)",
)


def upgrade() -> None:
    """Makes the tables and the index."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drops them."""
    op.execute("DROP INDEX evolution.outcomes_age")
    op.execute("DROP TABLE evolution.exports")
    op.execute("DROP TABLE evolution.tried")
