"""Reused answers: what came of the look into the cache, what that saved, and who may see old answers.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; constant defaults rewrite no row."""
    op.execute(
        "ALTER TABLE billing.tasks ADD COLUMN cache text NOT NULL DEFAULT 'off',"
        " ADD COLUMN saved_picos numeric(38, 0) NOT NULL DEFAULT 0 CHECK (saved_picos >= 0)"
    )
    op.execute("ALTER TABLE billing.tenants ADD COLUMN stale_answers boolean NOT NULL DEFAULT false")


def downgrade() -> None:
    """Drops the columns and what they hold."""
    op.execute("ALTER TABLE billing.tasks DROP COLUMN cache, DROP COLUMN saved_picos")
    op.execute("ALTER TABLE billing.tenants DROP COLUMN stale_answers")
