"""Answers that may be given to questions that are alike, and what was seen of them.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    op.execute(
        """
        CREATE TABLE context.kept_answers (
            id uuid PRIMARY KEY,
            tenant text NOT NULL,
            scope bytea NOT NULL,
            digest bytea NOT NULL,
            group_id uuid NOT NULL,
            task_id text NOT NULL,
            key_id text NOT NULL,
            nonce bytea NOT NULL,
            question bytea NOT NULL,
            vectors bytea NOT NULL,
            answer bytea NOT NULL,
            compared float8 NOT NULL DEFAULT 0,
            wrong float8 NOT NULL DEFAULT 0,
            expected float8 NOT NULL DEFAULT 0,
            stored_at_ms bigint NOT NULL,
            expires_at_ms bigint NOT NULL,
            UNIQUE (tenant, scope, digest)
        )
        """
    )
    op.execute("CREATE INDEX kept_answers_by_end ON context.kept_answers (expires_at_ms)")
    op.execute("CREATE INDEX kept_answers_by_task ON context.kept_answers (tenant, task_id)")
    op.execute(
        """
        CREATE TABLE context.kept_scopes (
            tenant text NOT NULL,
            scope bytea NOT NULL,
            compared float8 NOT NULL DEFAULT 0,
            wrong float8 NOT NULL DEFAULT 0,
            expected float8 NOT NULL DEFAULT 0,
            served bigint NOT NULL DEFAULT 0,
            explored bigint NOT NULL DEFAULT 0,
            explored_wrong bigint NOT NULL DEFAULT 0,
            said_wrong bigint NOT NULL DEFAULT 0,
            PRIMARY KEY (tenant, scope)
        )
        """
    )

    op.execute("CREATE TABLE context.kept_clears (tenant text PRIMARY KEY, cleared_at_ms bigint NOT NULL)")


def downgrade() -> None:
    """Drops the tables and what they hold."""
    op.execute("DROP TABLE context.kept_clears")
    op.execute("DROP TABLE context.kept_scopes")
    op.execute("DROP TABLE context.kept_answers")
