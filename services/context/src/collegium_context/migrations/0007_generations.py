"""Generations of the documents' index: one answers, and another may be built for a new embedder meanwhile.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table, and says of each document in which collections it stands with all its vectors."""
    op.execute("CREATE SEQUENCE context.generation_numbers")
    op.execute(
        """
        CREATE TABLE context.generations (
            collection text PRIMARY KEY,
            model text NOT NULL,
            dimensions int NOT NULL,
            layout int NOT NULL,
            state text NOT NULL,
            owner text NOT NULL DEFAULT '',
            lease_until timestamptz NOT NULL DEFAULT now(),
            began_at timestamptz NOT NULL DEFAULT now(),
            served_at timestamptz,
            retired_at timestamptz
        )
        """
    )
    op.execute("CREATE UNIQUE INDEX generations_by_state ON context.generations (state) WHERE state <> 'retired'")
    op.execute("ALTER TABLE context.documents ADD COLUMN collections text[] NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Drops the table; documents are embedded anew."""
    op.execute("ALTER TABLE context.documents DROP COLUMN collections")
    op.execute("DROP TABLE context.generations")
    op.execute("DROP SEQUENCE context.generation_numbers")
