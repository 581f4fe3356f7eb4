"""The trace of each task, so that whoever looks a task up is told where to see its journey."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds the trace's id; tasks of before have none."""
    op.execute("ALTER TABLE gateway.tasks ADD COLUMN trace_id text NOT NULL DEFAULT ''")
