"""Keys that follow each other are of one lineage, which is named by its first key and has its budgets and limits.

Until now a successor had copies: of each lineage the newest key's budgets become the lineage's, and the copies that its
former keys had are gone.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_UP = (
    # Empty: the key is the first of its own.
    "ALTER TABLE billing.keys ADD COLUMN lineage text NOT NULL DEFAULT ''",
    """
    WITH RECURSIVE followed AS (
        SELECT id, rotated_to, id AS first FROM billing.keys
        WHERE NOT EXISTS (SELECT FROM billing.keys AS earlier WHERE earlier.rotated_to = keys.id)
        UNION ALL
        SELECT successor.id, successor.rotated_to, first
        FROM followed JOIN billing.keys AS successor ON successor.id = followed.rotated_to
    )
    UPDATE billing.keys SET lineage = first FROM followed WHERE followed.id = keys.id AND first <> keys.id
    """,
    "CREATE INDEX keys_of_lineage ON billing.keys (lineage) WHERE lineage <> ''",
    """
    DELETE FROM billing.budgets USING billing.keys
    WHERE scope = 'key' AND keys.id = of_id AND rotated_to IS NOT NULL AND EXISTS (
        SELECT FROM billing.budgets AS newer JOIN billing.keys AS later ON later.id = newer.of_id
        WHERE newer.tenant = budgets.tenant AND newer.scope = 'key' AND later.created_at > keys.created_at
          AND coalesce(nullif(later.lineage, ''), later.id) = coalesce(nullif(keys.lineage, ''), keys.id)
    )
    """,
    """
    UPDATE billing.budgets
    SET of_id = lineage,
        id = CASE WHEN budgets.id <> 'key-' || of_id OR EXISTS (
                      SELECT FROM billing.budgets AS other
                      WHERE other.tenant = budgets.tenant AND other.id = 'key-' || lineage
                  ) THEN budgets.id ELSE 'key-' || lineage END
    FROM billing.keys WHERE scope = 'key' AND keys.id = of_id AND lineage <> ''
    """,
)


def upgrade() -> None:
    """Adds the lineage, and leaves each with one set of budgets."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Drops it; a lineage's budgets bind its first key alone from then on."""
    op.execute("DROP INDEX billing.keys_of_lineage")
    op.execute("ALTER TABLE billing.keys DROP COLUMN lineage")
