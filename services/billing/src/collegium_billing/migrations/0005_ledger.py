"""The ledger: transactions and entries that only grow, and versions of prices.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLES = (
    # The key of a transaction is what happened; the number only keeps entries small.
    """
    CREATE TABLE billing.transactions (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        event_id text NOT NULL UNIQUE,
        kind text NOT NULL,
        at timestamptz NOT NULL,
        tenant text NOT NULL
    )
    """,
    """
    CREATE TABLE billing.entries (
        transaction bigint NOT NULL,
        line smallint NOT NULL,
        account text NOT NULL,
        amount_picos numeric(38, 0) NOT NULL CHECK (amount_picos <> 0),
        tenant text NOT NULL,
        project text NOT NULL,
        key_id text NOT NULL,
        model text NOT NULL,
        task text NOT NULL,
        PRIMARY KEY (transaction, line)
    )
    """,
    """
    CREATE TABLE billing.corrections (
        id text PRIMARY KEY,
        tenant text NOT NULL,
        amount_picos numeric(38, 0) NOT NULL,
        reason text NOT NULL,
        at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE billing.prices (
        model text NOT NULL,
        version bigint NOT NULL CHECK (version > 0),
        cost jsonb NOT NULL,
        charge jsonb NOT NULL,
        PRIMARY KEY (model, version)
    )
    """,
    "CREATE INDEX transactions_by_time ON billing.transactions USING brin (at)"
    " WITH (pages_per_range = 32, autosummarize = on)",
    # Which version of its model's prices a call had: 0 where it was pinned by a router that knew of none.
    "ALTER TABLE billing.attempts ADD COLUMN price_version bigint NOT NULL DEFAULT 0",
    "ALTER TABLE billing.attempts ADD COLUMN cache_write_tokens bigint NOT NULL DEFAULT 0"
    " CHECK (cache_write_tokens >= 0)",
)

# What was booked before there was a ledger, as it would have been posted.
_MOVED = (
    """
    INSERT INTO billing.transactions (event_id, kind, at, tenant)
    SELECT 'charge/' || task_id, 'charge', settled_at, tenant FROM billing.tasks WHERE charge_picos > 0
    UNION ALL
    SELECT concat_ws('/', 'call', task_id, attempt, delivery), 'call', at, tenant
    FROM billing.attempts WHERE cost_picos > 0
    UNION ALL
    SELECT concat_ws('/', 'waste', task_id, attempt, delivery), 'waste', at, tenant
    FROM billing.attempts WHERE cost_picos > 0 AND wasted
    """,
    """
    INSERT INTO billing.entries (transaction, line, account, amount_picos, tenant, project, key_id, model, task)
    SELECT id, lines.line, lines.account, lines.amount, posted.tenant, project, key_id, moved.model, task_id
    FROM (
        SELECT 'charge/' || task_id AS event_id, 'tenant/' || tenant || '/receivable' AS debit,
               'revenue/' || coalesce(nullif(model, ''), '-') AS credit, charge_picos AS picos, project, key_id,
               coalesce(nullif(model, ''), '-') AS model, task_id
        FROM billing.tasks
        UNION ALL
        SELECT concat_ws('/', 'call', task_id, attempt, delivery), 'cost/' || coalesce(nullif(model, ''), '-'),
               'provider/' || coalesce(nullif(model, ''), '-') || '/payable', cost_picos, project, key_id,
               coalesce(nullif(model, ''), '-'), task_id
        FROM billing.attempts
        UNION ALL
        SELECT concat_ws('/', 'waste', task_id, attempt, delivery), 'waste/' || coalesce(nullif(model, ''), '-'),
               'cost/' || coalesce(nullif(model, ''), '-'), cost_picos, project, key_id,
               coalesce(nullif(model, ''), '-'), task_id
        FROM billing.attempts
    ) AS moved
    JOIN billing.transactions AS posted USING (event_id)
    CROSS JOIN LATERAL (VALUES (1::int2, debit, picos), (2::int2, credit, -picos)) AS lines (line, account, amount)
    """,
)

# One check a statement over all it adds: as entries never change, a transaction that was whole once stays so, and
# entries added to it by a later statement must be whole by themselves.
_GUARDS = (
    """
    CREATE FUNCTION billing.entries_sum_to_zero() RETURNS trigger LANGUAGE plpgsql AS $body$
    BEGIN
        IF EXISTS (SELECT FROM added GROUP BY transaction HAVING sum(amount_picos) <> 0) THEN
            RAISE EXCEPTION 'entries of a transaction do not sum to zero' USING ERRCODE = 'check_violation';
        END IF;
        RETURN NULL;
    END
    $body$
    """,
    """
    CREATE TRIGGER entries_sum_to_zero AFTER INSERT ON billing.entries
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION billing.entries_sum_to_zero()
    """,
    """
    CREATE FUNCTION billing.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $body$
    BEGIN
        RAISE EXCEPTION '% is append-only: add a correction', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END
    $body$
    """,
)

_APPEND_ONLY = ("transactions", "entries", "corrections", "prices")


def upgrade() -> None:
    """Makes the tables and what keeps them whole."""
    for statement in _TABLES + _MOVED + _GUARDS:
        op.execute(statement)
    for table in _APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.{table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change()"
        )


def downgrade() -> None:
    """Drops the tables and what they hold."""
    for table in reversed(_APPEND_ONLY):
        op.execute(f"DROP TABLE billing.{table}")
    op.execute("DROP FUNCTION billing.entries_sum_to_zero()")
    op.execute("DROP FUNCTION billing.refuse_change()")
    op.execute("ALTER TABLE billing.attempts DROP COLUMN cache_write_tokens, DROP COLUMN price_version")
