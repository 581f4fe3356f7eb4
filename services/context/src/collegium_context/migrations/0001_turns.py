"""The turns of conversations.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table; the schema itself is made by the migration runner."""
    op.execute(
        """
        CREATE TABLE context.turns (
            task_id text PRIMARY KEY,
            tenant text NOT NULL,
            conversation text NOT NULL,
            sequence bigint NOT NULL,
            key_id text NOT NULL,
            nonce bytea NOT NULL,
            body bytea NOT NULL,
            messages int NOT NULL,
            bytes int NOT NULL,
            created_at timestamptz NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX turns_of_conversation ON context.turns (tenant, conversation, sequence)")


def downgrade() -> None:
    """Drops the table and what it holds."""
    op.execute("DROP TABLE context.turns")
