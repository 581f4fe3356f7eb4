"""Tenants say since when their work may be learned from, and for whom else what was learned may answer.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds both; nobody agreed to anything yet."""
    op.execute("ALTER TABLE billing.tenants ADD COLUMN collects_since_ms bigint NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE billing.tenants ADD COLUMN grants text[] NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Drops both."""
    op.execute("ALTER TABLE billing.tenants DROP COLUMN grants")
    op.execute("ALTER TABLE billing.tenants DROP COLUMN collects_since_ms")
