"""Callbacks of tasks, and the keys that sign them."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Creates both tables, and the index that finds what is due receiver by receiver."""
    op.execute(
        """
        CREATE TABLE gateway.webhooks (
            task_id         text PRIMARY KEY,
            tenant          text NOT NULL,
            receiver        text NOT NULL,
            callback        bytea NOT NULL,
            state           text NOT NULL,
            attempts        integer NOT NULL DEFAULT 0,
            last_status     integer,
            last_error      text,
            first_try_at_ms bigint,
            next_try_at_ms  bigint
        )
        """
    )
    op.execute(
        "CREATE INDEX webhooks_due ON gateway.webhooks (receiver, next_try_at_ms) INCLUDE (tenant, task_id)"
        " WHERE state = 'due'"
    )
    op.execute("CREATE TABLE gateway.webhook_secrets (tenant text PRIMARY KEY, keys bytea NOT NULL)")
