"""What is stored of each tenant, counted.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from alembic import op
from collegium_store.storage import counted, counting

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Counts the turns, those that stand included."""
    for statement in (*counting("context"), *counted("context", "turns", "octet_length(body)")):
        op.execute(statement)
