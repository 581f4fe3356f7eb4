"""Tenants' states and limits, projects, keys' ends and rights, budgets.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_UP = (
    """
    ALTER TABLE billing.tenants
        ADD COLUMN state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended', 'deleted')),
        ADD COLUMN state_at timestamptz,
        ADD COLUMN limits text
    """,
    """
    ALTER TABLE billing.keys
        ADD COLUMN role text NOT NULL DEFAULT '',
        ADD COLUMN models text[] NOT NULL DEFAULT '{}',
        ADD COLUMN limits text,
        ADD COLUMN expires_at timestamptz,
        ADD COLUMN last_used_at timestamptz,
        ADD COLUMN rotated_to text REFERENCES billing.keys (id)
    """,
    """
    CREATE TABLE billing.projects (
        tenant text NOT NULL REFERENCES billing.tenants (id),
        id text NOT NULL,
        name text NOT NULL,
        created_at timestamptz NOT NULL,
        archived_at timestamptz,
        PRIMARY KEY (tenant, id)
    )
    """,
    # What keys belong to so far becomes a project, and every tenant has the default one.
    """
    INSERT INTO billing.projects (tenant, id, name, created_at)
    SELECT tenant, project, '', min(created_at)
    FROM (
        SELECT tenant, project, created_at FROM billing.keys
        UNION ALL
        SELECT id, 'default', created_at FROM billing.tenants
    ) AS known
    GROUP BY tenant, project
    """,
    """
    CREATE TABLE billing.budgets (
        tenant text NOT NULL REFERENCES billing.tenants (id),
        id text NOT NULL,
        scope text NOT NULL CHECK (scope IN ('tenant', 'project', 'key')),
        of_id text NOT NULL,
        limit_picos numeric(38, 0) NOT NULL CHECK (limit_picos > 0),
        window_kind text NOT NULL CHECK (window_kind IN ('rolling', 'calendar_day', 'calendar_month')),
        window_seconds int NOT NULL CHECK (window_seconds > 0),
        alert_percents int[] NOT NULL,
        created_at timestamptz NOT NULL,
        changed_at timestamptz NOT NULL,
        PRIMARY KEY (tenant, id)
    )
    """,
)


def upgrade() -> None:
    """Adds columns and tables; what stands keeps its meaning."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Drops them and what they hold."""
    op.execute("DROP TABLE billing.budgets")
    op.execute("DROP TABLE billing.projects")
    for column in ("role", "models", "limits", "expires_at", "last_used_at", "rotated_to"):
        op.execute(f"ALTER TABLE billing.keys DROP COLUMN {column}")
    for column in ("state", "state_at", "limits"):
        op.execute(f"ALTER TABLE billing.tenants DROP COLUMN {column}")
