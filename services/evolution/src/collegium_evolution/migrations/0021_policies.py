"""Answers and how they came to be chosen, and the policies that were learned from them.

Revision ID: 0021
Revises: 0020
"""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE evolution.decided (
        tenant text NOT NULL,
        task_id text NOT NULL,
        number int NOT NULL,
        model text NOT NULL,
        rank text NOT NULL,
        domain text NOT NULL,
        at_ms bigint NOT NULL,
        cost_picos numeric(38, 0) NOT NULL,
        duration_ms bigint NOT NULL,
        policy_version bigint NOT NULL,
        propensity double precision NOT NULL,
        explored boolean NOT NULL,
        candidates text[] NOT NULL,
        embedder text NOT NULL,
        features_key text,
        features_nonce bytea,
        features bytea,
        PRIMARY KEY (tenant, task_id, number)
    )
    """,
    "CREATE INDEX decided_by_time ON evolution.decided (tenant, at_ms)",
    # ``value`` is what stands in the bucket; ``row`` is what operators see of it.
    """
    CREATE TABLE evolution.policies (
        tenant text NOT NULL,
        version bigint NOT NULL,
        state text NOT NULL,
        heard_ns bigint NOT NULL,
        value bytea NOT NULL,
        row jsonb NOT NULL,
        PRIMARY KEY (tenant, version)
    )
    """,
    "CREATE UNIQUE INDEX policies_live ON evolution.policies (tenant) WHERE state = 'live'",
)


def upgrade() -> None:
    """Makes the tables."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drops the tables and what they hold."""
    op.execute("DROP TABLE evolution.policies")
    op.execute("DROP TABLE evolution.decided")
