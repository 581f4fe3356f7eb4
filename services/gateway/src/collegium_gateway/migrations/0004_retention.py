"""Finding tasks by when they settled, to remove what is older than it is kept."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Indexes what has settled; a task that has not is never removed."""
    op.execute("CREATE INDEX tasks_settled ON gateway.tasks (settled_at_ms) WHERE settled_at_ms IS NOT NULL")
