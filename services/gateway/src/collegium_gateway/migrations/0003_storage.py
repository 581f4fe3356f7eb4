"""What is stored of each tenant, counted."""

from alembic import op
from collegium_store.storage import counted, counting

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Counts the tasks, those that stand included."""
    size = "octet_length(reference) + coalesce(octet_length(settled), 0)"
    for statement in (*counting("gateway"), *counted("gateway", "tasks", size)):
        op.execute(statement)
