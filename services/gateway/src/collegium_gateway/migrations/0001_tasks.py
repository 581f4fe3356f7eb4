"""The tasks' read model."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the table of tasks and the index that lists them."""
    op.execute(
        """
        CREATE TABLE gateway.tasks (
            task_id       text PRIMARY KEY,
            tenant        text NOT NULL,
            state         text NOT NULL,
            progress      smallint NOT NULL,
            created_at_ms bigint NOT NULL,
            settled_at_ms bigint,
            reference     bytea NOT NULL,
            settled       bytea
        )
        """
    )
    op.execute("CREATE INDEX tasks_of_tenant ON gateway.tasks (tenant, created_at_ms DESC, task_id DESC)")
