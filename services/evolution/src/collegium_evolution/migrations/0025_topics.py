"""Domains that were discovered in tenants' questions with the map that assigns them; students that are prompts.

Revision ID: 0025
Revises: 0024
"""

from __future__ import annotations

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # ``terms`` is sealed with the tenant's key.
    """
    CREATE TABLE evolution.topics (
        tenant text NOT NULL,
        id text NOT NULL,
        number int NOT NULL,
        state text NOT NULL,
        into_id text NOT NULL DEFAULT '',
        named text NOT NULL DEFAULT '',
        made_by text NOT NULL DEFAULT '',
        questions bigint NOT NULL,
        of_questions bigint NOT NULL,
        first_ms bigint NOT NULL,
        last_ms bigint NOT NULL,
        terms bytea,
        PRIMARY KEY (tenant, id),
        UNIQUE (tenant, number)
    )
    """,
    # ``value`` is what stands in the bucket, made of ``rows`` questions.
    """
    CREATE TABLE evolution.topic_maps (
        tenant text PRIMARY KEY,
        version bigint NOT NULL,
        rows bigint NOT NULL,
        value bytea NOT NULL
    )
    """,
    "ALTER TABLE evolution.students ADD base text NOT NULL DEFAULT ''",
    # The tasks whose answers a prompt shows.
    "ALTER TABLE evolution.students ADD shown text[] NOT NULL DEFAULT '{}'",
)


def upgrade() -> None:
    """Makes the tables, and room for what prompts are made of."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drops the tables and what they hold."""
    op.execute("ALTER TABLE evolution.students DROP base, DROP shown")
    op.execute("DROP TABLE evolution.topic_maps")
    op.execute("DROP TABLE evolution.topics")
