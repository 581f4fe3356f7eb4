"""The audit trail: chains of records, their ends, anchors and checkpoints, and where the sealer stands.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SIGNED = """
    tenant text NOT NULL,
    seq bigint NOT NULL,
    hash text NOT NULL,
    at_ms bigint NOT NULL,
    round bigint NOT NULL,
    key_id text NOT NULL,
    signature text NOT NULL
"""

_TABLES = (
    """
    CREATE TABLE billing.audit (
        tenant text NOT NULL,
        seq bigint NOT NULL CHECK (seq > 0),
        position bigint GENERATED ALWAYS AS IDENTITY,
        id text NOT NULL,
        at_ms bigint NOT NULL,
        sealed_at_ms bigint NOT NULL,
        service text NOT NULL,
        actor text NOT NULL,
        action text NOT NULL,
        object text NOT NULL,
        outcome text NOT NULL,
        reason text NOT NULL,
        details jsonb NOT NULL,
        trace text NOT NULL,
        count bigint NOT NULL,
        stream text NOT NULL,
        stream_sequence bigint NOT NULL,
        prev_hash text NOT NULL,
        hash text NOT NULL,
        PRIMARY KEY (tenant, seq)
    )
    """,
    "CREATE UNIQUE INDEX audit_once ON billing.audit (tenant, id)",
    "CREATE UNIQUE INDEX audit_by_stream ON billing.audit (stream, stream_sequence) WHERE stream_sequence > 0",
    "CREATE INDEX audit_by_position ON billing.audit (position)",
    f"CREATE TABLE billing.audit_heads ({_SIGNED}, PRIMARY KEY (tenant))",
    f"CREATE TABLE billing.audit_anchors ({_SIGNED}, PRIMARY KEY (tenant, round))",
    f"CREATE TABLE billing.audit_checkpoints ({_SIGNED}, PRIMARY KEY (tenant))",
    """
    CREATE TABLE billing.audit_cursor (
        id boolean PRIMARY KEY DEFAULT true CHECK (id),
        epoch bigint NOT NULL,
        stream text NOT NULL,
        sequence bigint NOT NULL
    )
    """,
    "INSERT INTO billing.audit_cursor (epoch, stream, sequence) VALUES (0, '', 0)",
)

# They stop mistakes and make intent plain; whoever may drop them is found by the chain.
_GUARDS = (
    """
    CREATE FUNCTION billing.audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $body$
    BEGIN
        RAISE EXCEPTION 'the audit trail is append-only: % of % is refused', TG_OP, TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END
    $body$
    """,
    # What a checkpoint covers may go; nothing else.
    """
    CREATE FUNCTION billing.audit_only_pruned() RETURNS trigger LANGUAGE plpgsql AS $body$
    BEGIN
        IF EXISTS (SELECT FROM billing.audit_checkpoints WHERE tenant = OLD.tenant AND seq >= OLD.seq) THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION 'the audit trail is append-only: record % of % is not pruned', OLD.seq, OLD.tenant
            USING ERRCODE = 'insufficient_privilege';
    END
    $body$
    """,
    """
    CREATE FUNCTION billing.audit_only_onward() RETURNS trigger LANGUAGE plpgsql AS $body$
    BEGIN
        IF NEW.tenant = OLD.tenant AND NEW.seq > OLD.seq THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'the audit trail is append-only: % goes onward only', TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END
    $body$
    """,
    *(
        f"CREATE TRIGGER audit_no_update BEFORE UPDATE ON billing.{table}"
        " FOR EACH ROW EXECUTE FUNCTION billing.audit_refuse()"
        for table in ("audit", "audit_anchors")
    ),
    *(
        f"CREATE TRIGGER audit_no_delete BEFORE DELETE ON billing.{table}"
        " FOR EACH ROW EXECUTE FUNCTION billing.audit_only_pruned()"
        for table in ("audit", "audit_anchors")
    ),
    *(
        f"CREATE TRIGGER audit_onward BEFORE UPDATE ON billing.{table}"
        " FOR EACH ROW EXECUTE FUNCTION billing.audit_only_onward()"
        for table in ("audit_heads", "audit_checkpoints")
    ),
    *(
        f"CREATE TRIGGER audit_no_removal BEFORE DELETE ON billing.{table}"
        " FOR EACH ROW EXECUTE FUNCTION billing.audit_refuse()"
        for table in ("audit_heads", "audit_checkpoints", "audit_cursor")
    ),
    *(
        f"CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON billing.{table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION billing.audit_refuse()"
        for table in ("audit", "audit_heads", "audit_anchors", "audit_checkpoints", "audit_cursor")
    ),
)


def upgrade() -> None:
    """Makes the tables and what guards them."""
    for statement in _TABLES + _GUARDS:
        op.execute(statement)


def downgrade() -> None:
    """Drops the tables and what they hold."""
    for table in ("audit", "audit_heads", "audit_anchors", "audit_checkpoints", "audit_cursor"):
        op.execute(f"DROP TABLE billing.{table}")
    for function in ("audit_refuse", "audit_only_pruned", "audit_only_onward"):
        op.execute(f"DROP FUNCTION billing.{function}()")
