"""The archive of events, partitioned by day."""

from alembic import op

revision = "0001"
down_revision = None

_STATEMENTS = (
    """
    CREATE TABLE archive.events (
        stream   text NOT NULL,
        sequence bigint NOT NULL,
        subject  text NOT NULL,
        tenant   text,
        task     text,
        at       timestamptz NOT NULL,
        headers  bytea NOT NULL,
        payload  bytea NOT NULL,
        PRIMARY KEY (stream, sequence, at)
    ) PARTITION BY RANGE (at)
    """,
    "CREATE INDEX events_of_task ON archive.events (task, at) WHERE task IS NOT NULL",
    # Made beside the table and then attached, which does not stop its readers and writers. The lock is the one that
    # attaching takes; waiting for it (unlike for an advisory lock) also makes the other's partition visible.
    """
    CREATE FUNCTION archive.ensure_day(day date) RETURNS void LANGUAGE plpgsql AS $body$
    DECLARE
        name text := 'events_' || to_char(day, 'YYYYMMDD');
        start timestamptz := day::timestamp AT TIME ZONE 'UTC';
    BEGIN
        IF to_regclass('archive.' || name) IS NOT NULL THEN
            RETURN;
        END IF;
        LOCK TABLE archive.events IN SHARE UPDATE EXCLUSIVE MODE;
        IF to_regclass('archive.' || name) IS NOT NULL THEN
            RETURN;
        END IF;
        EXECUTE format('CREATE TABLE archive.%I (LIKE archive.events INCLUDING ALL)', name);
        EXECUTE format(
            'ALTER TABLE archive.events ATTACH PARTITION archive.%I FOR VALUES FROM (%L) TO (%L)',
            name, start, (day + 1)::timestamp AT TIME ZONE 'UTC'
        );
    END
    $body$
    """,
    """
    CREATE FUNCTION archive.drop_before(first date) RETURNS SETOF date LANGUAGE plpgsql AS $body$
    DECLARE
        name text;
    BEGIN
        FOR name IN
            SELECT child.relname FROM pg_inherits
            JOIN pg_class AS child ON child.oid = inhrelid
            WHERE inhparent = 'archive.events'::regclass AND child.relname < 'events_' || to_char(first, 'YYYYMMDD')
            ORDER BY child.relname
        LOOP
            EXECUTE format('DROP TABLE archive.%I', name);
            RETURN NEXT to_date(substr(name, 8), 'YYYYMMDD');
        END LOOP;
    END
    $body$
    """,
)


def upgrade() -> None:
    """Creates the table and the functions that make and drop its days."""
    for statement in _STATEMENTS:
        op.execute(statement)
