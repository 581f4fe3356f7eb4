"""Scores by hour and tenant, pairs of answers, changes of ranks, rounds of learning, gaps, and what operators are told.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE evolution.windows (
        tenant text NOT NULL,
        model text NOT NULL,
        domain text NOT NULL,
        rank text NOT NULL,
        hour bigint NOT NULL,
        calls bigint NOT NULL,
        succeeded bigint NOT NULL,
        refused bigint NOT NULL,
        duration_ms_total bigint NOT NULL,
        cost_picos numeric(38, 0) NOT NULL,
        judged bigint NOT NULL,
        score_sum double precision NOT NULL,
        square_sum double precision NOT NULL,
        PRIMARY KEY (tenant, model, domain, rank, hour)
    )
    """,
    "CREATE INDEX windows_by_hour ON evolution.windows (hour)",
    """
    CREATE TABLE evolution.domain_hours (
        tenant text NOT NULL,
        domain text NOT NULL,
        hour bigint NOT NULL,
        settled bigint NOT NULL,
        cost_picos numeric(38, 0) NOT NULL,
        confident bigint NOT NULL,
        confidence_sum double precision NOT NULL,
        square_sum double precision NOT NULL,
        PRIMARY KEY (tenant, domain, hour)
    )
    """,
    "CREATE INDEX domain_hours_by_hour ON evolution.domain_hours (hour)",
    "CREATE TABLE evolution.progress (settled bigint NOT NULL)",
    "INSERT INTO evolution.progress VALUES (0)",
    # The same work answered by two models; which of them is named first does not matter.
    """
    CREATE TABLE evolution.pairs (
        id text NOT NULL,
        tenant text NOT NULL,
        domain text NOT NULL,
        model text NOT NULL,
        other text NOT NULL,
        score double precision NOT NULL,
        other_score double precision NOT NULL,
        kind text NOT NULL,
        at_ms bigint NOT NULL,
        PRIMARY KEY (tenant, id, model, other)
    )
    """,
    "CREATE INDEX pairs_by_model ON evolution.pairs (model, domain, at_ms)",
    "CREATE INDEX pairs_by_other ON evolution.pairs (other, domain, at_ms)",
    """
    CREATE TABLE evolution.rank_changes (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id text NOT NULL UNIQUE,
        model text NOT NULL,
        domain text,
        tenant text NOT NULL,
        at_ms bigint NOT NULL,
        state text NOT NULL,
        row jsonb NOT NULL
    )
    """,
    "CREATE INDEX rank_changes_by_model ON evolution.rank_changes (model, number)",
    """
    CREATE TABLE evolution.cycles (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id text NOT NULL UNIQUE,
        state text NOT NULL,
        queries bigint NOT NULL,
        row jsonb NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX cycles_one_at_a_time ON evolution.cycles (state) WHERE state = 'running'",
    """
    CREATE TABLE evolution.gaps (
        id text PRIMARY KEY,
        tenant text NOT NULL,
        score double precision NOT NULL,
        first_at_ms bigint NOT NULL,
        row jsonb NOT NULL
    )
    """,
    """
    CREATE TABLE evolution.tellings (
        id text PRIMARY KEY,
        body bytea NOT NULL,
        at_ms bigint NOT NULL,
        tries int NOT NULL DEFAULT 0,
        due_at_ms bigint NOT NULL
    )
    """,
)


def upgrade() -> None:
    """Makes the tables."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drops the tables and what they hold."""
    for table in (
        "tellings", "gaps", "cycles", "rank_changes", "pairs", "progress", "domain_hours", "windows",
    ):  # fmt: skip
        op.execute(f"DROP TABLE evolution.{table}")
