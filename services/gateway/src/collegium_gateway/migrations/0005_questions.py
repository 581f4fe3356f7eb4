"""Questions to people about tasks, as they stand, and who is at work on them."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Creates the table, and the indexes that find what is open, by tenant, by queue and by when it expires."""
    op.execute(
        """
        CREATE TABLE gateway.questions (
            task_id          text NOT NULL,
            question         text NOT NULL,
            tenant           text NOT NULL,
            stage            text NOT NULL,
            kind             text NOT NULL,
            whom             text NOT NULL,
            queue            text NOT NULL,
            reason           text NOT NULL,
            rule             text NOT NULL,
            labels           text[] NOT NULL,
            state            text NOT NULL,
            created_at_ms    bigint NOT NULL,
            expires_at_ms    bigint NOT NULL,
            answered_at_ms   bigint,
            decision         text,
            answered_by      text,
            claimed_by       text,
            claimed_until_ms bigint,
            claims           integer NOT NULL DEFAULT 0,
            PRIMARY KEY (task_id, question)
        )
        """
    )
    op.execute("CREATE INDEX questions_open ON gateway.questions (whom, queue, created_at_ms) WHERE state = 'open'")
    op.execute("CREATE INDEX questions_due ON gateway.questions (expires_at_ms) WHERE state = 'open'")
    op.execute("CREATE INDEX questions_of_tenant ON gateway.questions (tenant, created_at_ms)")
