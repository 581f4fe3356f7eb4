"""Documents, their chunks, what of them stands in the vector store without being found, and users' profiles.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    # A version is no other document's, also not of one that was removed and came again under its id.
    op.execute("CREATE SEQUENCE context.document_versions")
    # What was accepted stands in `source` until it is found; `served` is the version that is.
    op.execute(
        """
        CREATE TABLE context.documents (
            tenant text NOT NULL,
            id text NOT NULL,
            project text NOT NULL,
            kind text NOT NULL,
            state text NOT NULL,
            fingerprint bytea NOT NULL,
            version bigint NOT NULL DEFAULT nextval('context.document_versions'),
            served bigint NOT NULL DEFAULT 0,
            meta_key_id text NOT NULL,
            meta_nonce bytea NOT NULL,
            meta bytea NOT NULL,
            source_key_id text,
            source_nonce bytea,
            source bytea,
            source_bytes bigint NOT NULL,
            chunks int NOT NULL DEFAULT 0,
            tokens bigint NOT NULL DEFAULT 0,
            stored_bytes bigint NOT NULL DEFAULT 0,
            model text NOT NULL DEFAULT '',
            done int NOT NULL DEFAULT 0,
            total int NOT NULL DEFAULT 0,
            tries int NOT NULL DEFAULT 0,
            error_code text NOT NULL DEFAULT '',
            error_message text NOT NULL DEFAULT '',
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            indexed_at timestamptz,
            due_at timestamptz NOT NULL,
            PRIMARY KEY (tenant, id)
        )
        """
    )
    op.execute("CREATE INDEX documents_due ON context.documents (due_at) WHERE state = 'accepted'")
    op.execute(
        """
        CREATE TABLE context.chunks (
            tenant text NOT NULL,
            id uuid NOT NULL,
            document text NOT NULL,
            ordinal int NOT NULL,
            key_id text NOT NULL,
            nonce bytea NOT NULL,
            body bytea NOT NULL,
            tokens int NOT NULL,
            PRIMARY KEY (tenant, id)
        )
        """
    )
    op.execute("CREATE INDEX chunks_of_document ON context.chunks (tenant, document, ordinal)")
    op.execute(
        """
        CREATE TABLE context.loose_points (
            tenant text NOT NULL,
            id uuid NOT NULL,
            collection text NOT NULL,
            remove_at timestamptz NOT NULL,
            PRIMARY KEY (tenant, id, collection)
        )
        """
    )
    op.execute("CREATE INDEX loose_points_due ON context.loose_points (remove_at)")
    op.execute("CREATE TABLE context.knowledge (tenant text PRIMARY KEY, version bigint NOT NULL)")
    op.execute(
        """
        CREATE TABLE context.search_profiles (
            tenant text NOT NULL,
            user_id text NOT NULL,
            key_id text NOT NULL,
            nonce bytea NOT NULL,
            body bytea NOT NULL,
            PRIMARY KEY (tenant, user_id)
        )
        """
    )


def downgrade() -> None:
    """Drops the tables and what they hold."""
    for table in ("search_profiles", "knowledge", "loose_points", "chunks", "documents"):
        op.execute(f"DROP TABLE context.{table}")
    op.execute("DROP SEQUENCE context.document_versions")
