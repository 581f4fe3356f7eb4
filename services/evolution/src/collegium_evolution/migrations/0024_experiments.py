"""Experiments and flags, and what became of the tasks that were part of them.

Revision ID: 0024
Revises: 0022
"""

from __future__ import annotations

from alembic import op

revision = "0024"
down_revision = "0022"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # ``row`` is a contract's ExperimentRow or FlagRow as it travels; its instructions are sealed.
    """
    CREATE TABLE evolution.experiments (
        id text PRIMARY KEY,
        tenant text NOT NULL,
        state text NOT NULL,
        created_ms bigint NOT NULL,
        ended_ms bigint NOT NULL DEFAULT 0,
        row bytea NOT NULL
    )
    """,
    "CREATE INDEX experiments_tenant ON evolution.experiments (tenant, created_ms DESC)",
    """
    CREATE TABLE evolution.flags (
        tenant text NOT NULL,
        name text NOT NULL,
        row bytea NOT NULL,
        PRIMARY KEY (tenant, name)
    )
    """,
    # One row a tenant, '' the operator's, which every change locks: surfaces of all tenants are compared under it.
    """
    CREATE TABLE evolution.experiment_sets (
        tenant text PRIMARY KEY,
        version bigint NOT NULL DEFAULT 0,
        killed boolean NOT NULL DEFAULT false,
        holdout double precision NOT NULL DEFAULT 0
    )
    """,
    "INSERT INTO evolution.experiment_sets (tenant) VALUES ('')",
    # ``number`` and ``word_number`` are the order in which tasks and words came: evidence goes by it, whatever is late.
    """
    CREATE TABLE evolution.trial_tasks (
        number bigserial,
        experiment text NOT NULL,
        arm text NOT NULL,
        unit text NOT NULL,
        tenant text NOT NULL,
        task_id text NOT NULL,
        at_ms bigint NOT NULL,
        failed boolean NOT NULL,
        refused boolean NOT NULL,
        duration_ms bigint NOT NULL,
        cost_picos double precision NOT NULL,
        score double precision,
        word_number bigint,
        PRIMARY KEY (tenant, task_id)
    )
    """,
    "CREATE INDEX trial_tasks_order ON evolution.trial_tasks (experiment, number)",
    "CREATE INDEX trial_tasks_words ON evolution.trial_tasks (experiment, word_number) WHERE word_number IS NOT NULL",
    "CREATE INDEX trial_tasks_age ON evolution.trial_tasks (at_ms)",
    "CREATE SEQUENCE evolution.trial_words",
    """
    CREATE TABLE evolution.trial_pairs (
        experiment text NOT NULL,
        tenant text NOT NULL,
        task_id text NOT NULL,
        asked text NOT NULL,
        same boolean,
        at_ms bigint NOT NULL,
        PRIMARY KEY (tenant, task_id)
    )
    """,
    "CREATE INDEX trial_pairs_experiment ON evolution.trial_pairs (experiment)",
)


def upgrade() -> None:
    """Makes the tables."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drops them and what they hold."""
    for table in ("trial_pairs", "trial_tasks", "experiment_sets", "flags", "experiments"):
        op.execute(f"DROP TABLE evolution.{table}")
    op.execute("DROP SEQUENCE evolution.trial_words")
