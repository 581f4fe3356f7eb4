"""The archive of events: what streams forget after days, in PostgreSQL partitions of one day (UTC) each.

Not here: who archives and when. One rule: an event is stored once, however often it is appended: it is known by its
stream, its sequence and its time there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncpg

from collegium_store.migrations import Migrations

ARCHIVE_MIGRATIONS: Final = Migrations("archive", Path(__file__).parent / "archive_migrations")
# A week of days ahead, so that a night without an archiver's start creates nothing inside a batch.
DAYS_AHEAD: Final = 7
READ_MAX: Final = 10_000

_APPEND = """
INSERT INTO archive.events (stream, sequence, subject, tenant, task, at, headers, payload)
SELECT stream, sequence, subject, nullif(tenant, ''), nullif(task, ''), at, headers, payload
FROM unnest($1::text[], $2::int8[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::bytea[], $8::bytea[])
     AS new (stream, sequence, subject, tenant, task, at, headers, payload)
ON CONFLICT DO NOTHING
"""

_READ = """
SELECT stream, sequence, subject, tenant, task, at, headers, payload FROM archive.events
WHERE ($1::text IS NULL OR starts_with(subject, $1))
  AND ($2::text IS NULL OR task = $2)
  AND ($3::text IS NULL OR tenant = $3)
  AND at >= $4::timestamptz
  AND at < $5::timestamptz
  AND ($6::timestamptz IS NULL OR (at, stream, sequence) > ($6, $7::text, $8::int8))
ORDER BY at, stream, sequence
LIMIT $9
"""

_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)


class ArchivedEvent(NamedTuple):
    """One message of a stream: ``at`` is the broker's time of it (aware), headers and payload are as published.

    ``tenant`` and ``task`` are empty or None where the subject names none; they come back as None.
    """

    stream: str
    sequence: int
    subject: str
    tenant: str | None
    task: str | None
    at: datetime
    headers: bytes
    payload: bytes


async def append(connection: Any, rows: Sequence[ArchivedEvent]) -> None:
    """Adds events by one statement, in the caller's transaction; those that stand already stay.

    Makes a day's partition where none is there. Raises asyncpg.DataError where PostgreSQL cannot hold a value.
    """
    if not rows:
        return
    await ensure_days(connection, {row.at.astimezone(UTC).date() for row in rows})
    await connection.execute(_APPEND, *map(list, zip(*rows, strict=True)))


async def ensure_days(connection: Any, days: Iterable[date]) -> None:
    """Makes the partitions of days that have none."""
    await connection.execute("SELECT archive.ensure_day(day) FROM unnest($1::date[]) AS day ORDER BY day", sorted(days))


async def ensure_ahead(connection: Any, today: date, days: int = DAYS_AHEAD) -> None:
    """Makes the partitions of today and of the days to come."""
    await ensure_days(connection, [today + timedelta(days=number) for number in range(days + 1)])


async def drop_before(connection: Any, day: date) -> list[date]:
    """Drops the partitions of all days before ``day`` and returns those days, oldest first."""
    rows = await connection.fetch("SELECT archive.drop_before($1::date) AS day", day)
    return [row["day"] for row in rows]


async def read(
    pool: asyncpg.Pool | Any,
    *,
    subject_prefix: str | None = None,
    task: str | None = None,
    tenant: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: ArchivedEvent | None = None,
    limit: int = 1000,
) -> list[ArchivedEvent]:
    """Returns events by time, at most ``limit`` (up to READ_MAX); the next page comes ``after`` the last one.

    ``since`` is included, ``until`` is not; without them all days are searched, which only a ``task`` makes quick.
    """
    place = (None, None, None) if after is None else (after.at, after.stream, after.sequence)
    rows = await pool.fetch(
        _READ,
        subject_prefix,
        task,
        tenant,
        since or _EARLIEST,
        until or _LATEST,
        *place,
        min(limit, READ_MAX),
    )
    return [ArchivedEvent(*row) for row in rows]


async def last_sequence(pool: asyncpg.Pool | Any, stream: str) -> int:
    """Returns the highest archived sequence of a stream, 0 where there is none."""
    return await pool.fetchval("SELECT coalesce(max(sequence), 0) FROM archive.events WHERE stream = $1", stream)
