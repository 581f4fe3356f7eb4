"""Memories, views between paths, shared contexts, what was recalled; gists of turns.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Paths are compared byte by byte, so that what lies below one is a range.
_MEMORIES = """
CREATE TABLE context.memories (
    id text PRIMARY KEY,
    tenant text NOT NULL,
    path text COLLATE "C" NOT NULL,
    line text NOT NULL,
    kind text NOT NULL,
    cause text NOT NULL CHECK (cause IN ('remembered', 'corrected', 'kept')),
    supersedes text,
    valid_from bigint NOT NULL,
    valid_to bigint NOT NULL CHECK (valid_to > valid_from),
    recorded_from bigint NOT NULL,
    recorded_to bigint NOT NULL,
    refreshed_at bigint NOT NULL,
    refreshes int NOT NULL DEFAULT 0,
    key_id text,
    nonce bytea,
    body bytea,
    bytes int NOT NULL,
    digest bytea,
    similar_to text,
    similarity real,
    embedded_by text,
    forgotten_at bigint,
    is_pending boolean NOT NULL DEFAULT true,
    CHECK ((forgotten_at IS NULL) = (body IS NOT NULL))
)
"""
_TABLES = (
    _MEMORIES,
    "CREATE INDEX memories_at_path ON context.memories (tenant, path, recorded_from DESC)",
    "CREATE INDEX memories_of_line ON context.memories (tenant, line)",
    "CREATE INDEX memories_pending ON context.memories (tenant, recorded_from) WHERE is_pending",
    """
    CREATE TABLE context.memory_paths (
        tenant text NOT NULL,
        path text COLLATE "C" NOT NULL,
        is_off boolean NOT NULL DEFAULT false,
        inherits boolean NOT NULL DEFAULT true,
        PRIMARY KEY (tenant, path)
    )
    """,
    """
    CREATE TABLE context.memory_grants (
        tenant text NOT NULL,
        id text NOT NULL,
        reader text COLLATE "C" NOT NULL,
        source text COLLATE "C" NOT NULL,
        at_ms bigint NOT NULL,
        PRIMARY KEY (tenant, id),
        UNIQUE (tenant, reader, source)
    )
    """,
    """
    CREATE TABLE context.recalls (
        tenant text NOT NULL,
        task_id text NOT NULL,
        memory_id text NOT NULL,
        rank int NOT NULL,
        signals bytea NOT NULL,
        at_ms bigint NOT NULL,
        PRIMARY KEY (tenant, task_id, memory_id)
    )
    """,
    "CREATE INDEX recalls_by_age ON context.recalls (at_ms)",
    """
    CREATE TABLE context.shared (
        tenant text NOT NULL,
        id text COLLATE "C" NOT NULL,
        version int NOT NULL,
        key_id text,
        nonce bytea,
        body bytea,
        bytes int NOT NULL,
        by_key text NOT NULL,
        at_ms bigint NOT NULL,
        is_newest boolean NOT NULL,
        PRIMARY KEY (tenant, id, version)
    )
    """,
    "CREATE UNIQUE INDEX shared_newest ON context.shared (tenant, id) WHERE is_newest",
    "ALTER TABLE context.turns ADD COLUMN gist_key_id text, ADD COLUMN gist_nonce bytea, ADD COLUMN gist bytea",
    "CREATE INDEX turns_without_gist ON context.turns (created_at) WHERE gist IS NULL",
    "CREATE INDEX turns_by_age ON context.turns (created_at)",
    """
    CREATE TABLE context.forgotten_turns (
        tenant text NOT NULL,
        conversation text NOT NULL,
        task_id text NOT NULL DEFAULT '',
        up_to_sequence bigint NOT NULL,
        at_ms bigint NOT NULL,
        PRIMARY KEY (tenant, conversation, task_id)
    )
    """,
)


def upgrade() -> None:
    """Makes the tables, and room for gists beside the turns."""
    for statement in _TABLES:
        op.execute(statement)


def downgrade() -> None:
    """Drops the tables and what they hold."""
    for table in ("forgotten_turns", "shared", "recalls", "memory_grants", "memory_paths", "memories"):
        op.execute(f"DROP TABLE context.{table}")
    op.execute("DROP INDEX context.turns_by_age")
    op.execute("ALTER TABLE context.turns DROP COLUMN gist, DROP COLUMN gist_nonce, DROP COLUMN gist_key_id")
