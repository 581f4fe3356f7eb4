"""What is stored of each tenant, counted.

Revision ID: 0005
Revises: 0003
"""

from __future__ import annotations

from alembic import op
from collegium_store.storage import counted, counting

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None

_SIZES = {
    "turns": "octet_length(body) + coalesce(octet_length(gist), 0)",
    "memories": "octet_length(body)",
    "shared": "octet_length(body)",
    # Chunks and their vectors are in stored_bytes.
    "documents": "octet_length(meta) + coalesce(octet_length(source), 0) + stored_bytes",
}


def upgrade() -> None:
    """Counts turns, memories, shared contexts and documents, those that stand included."""
    for statement in counting("context"):
        op.execute(statement)
    for table, size in _SIZES.items():
        for statement in counted("context", table, size):
            op.execute(statement)
