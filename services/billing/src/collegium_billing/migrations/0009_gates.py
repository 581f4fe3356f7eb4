"""Tenants have gates of their own, and what their operator vouches for of their users.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds both; nobody has any."""
    op.execute("ALTER TABLE billing.tenants ADD COLUMN gates text[] NOT NULL DEFAULT '{}'")
    op.execute("ALTER TABLE billing.tenants ADD COLUMN verified jsonb NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Drops both."""
    op.execute("ALTER TABLE billing.tenants DROP COLUMN verified")
    op.execute("ALTER TABLE billing.tenants DROP COLUMN gates")
