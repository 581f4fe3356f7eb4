"""Everything about the audit trail that is asked of PostgreSQL.

Not here: how entries are linked (audit_sealing) and when (audit_sealer). One rule: whoever appends holds the cursor's
row with the epoch it took, so that of two sealers only the later one writes.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
from collegium_contracts import audit as a
from collegium_contracts.audit import AuditRecord, Signed
from collegium_contracts.audit_requests import AuditRead

from collegium_billing.audit.sealing import Head
from collegium_billing.errors import FencedError

_FIELDS: Final = tuple(name for name in AuditRecord.__struct_fields__ if name != "position")
_TYPES: Final = {"seq": "int8", "at_ms": "int8", "sealed_at_ms": "int8", "count": "int8", "stream_sequence": "int8"}
_COLUMNS: Final = ", ".join(_FIELDS)
_INSERT_RECORDS: Final = (
    f"INSERT INTO billing.audit ({_COLUMNS})"  # noqa: S608 - made of this module's constants alone
    f" SELECT {_COLUMNS.replace('details', 'details::jsonb')} FROM unnest("
    + ", ".join(f"${number}::{_TYPES.get(name, 'text')}[]" for number, name in enumerate(_FIELDS, 1))
    + f") WITH ORDINALITY AS new ({_COLUMNS}, place) ORDER BY place"
)
_SIGNED_COLUMNS: Final = "tenant, seq, hash, at_ms, round, key_id, signature"
_HEAD_COLUMNS: Final = "head.seq, head.hash, head.at_ms, head.round, head.key_id, head.signature"
_SIGNED_ROWS: Final = (
    f"SELECT {_SIGNED_COLUMNS} FROM unnest($1::text[], $2::int8[], $3::text[], $4::int8[], $5::int8[], $6::text[],"  # noqa: S608
    f" $7::text[]) AS new ({_SIGNED_COLUMNS})"
)
_ONWARD: Final = ", ".join(f"{name} = excluded.{name}" for name in _SIGNED_COLUMNS.split(", ")[1:])
PRUNE_BATCH: Final = 5_000


class Claim(NamedTuple):
    """What a sealer took: the epoch it may write under, and where it goes on."""

    epoch: int
    stream: str
    sequence: int


class End(NamedTuple):
    """How a chain ends: as the sealer signed it, and its last record, none where there is none."""

    signed: Signed | None
    last: Head | None


class Cursor:
    """An open transaction of the sealer that holds the cursor."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def ends(self, tenants: Collection[str] | None = None) -> dict[str, End]:
        """Returns how chains end: as it was signed, and as the records stand."""
        rows = await self._connection.fetch(
            f"""
            SELECT wanted.tenant, {_HEAD_COLUMNS}, last.seq AS last_seq, last.hash AS last_hash, last.sealed_at_ms
            FROM unnest(coalesce($1::text[], ARRAY(SELECT tenant FROM billing.audit_heads))) AS wanted (tenant)
            LEFT JOIN billing.audit_heads AS head ON head.tenant = wanted.tenant
            LEFT JOIN LATERAL (
                SELECT seq, hash, sealed_at_ms FROM billing.audit WHERE tenant = wanted.tenant ORDER BY seq DESC LIMIT 1
            ) AS last ON true
            """,  # noqa: S608 - constants
            None if tenants is None else list(tenants),
        )
        return {row["tenant"]: _end(row) for row in rows}

    async def standing(self, keys: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Returns which (tenant, id) are sealed already."""
        rows = await self._connection.fetch(
            "SELECT tenant, id FROM billing.audit WHERE (tenant, id) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
            [tenant for tenant, _ in keys],
            [entry_id for _, entry_id in keys],
        )
        return {(row[0], row[1]) for row in rows}

    async def append(self, records: Sequence[AuditRecord], heads: Sequence[Signed]) -> None:
        """Adds records and moves the ends of their chains."""
        if not records:
            return
        columns = [[_value(record, name) for record in records] for name in _FIELDS]
        await self._connection.execute(_INSERT_RECORDS, *columns)
        await self._connection.execute(
            f"INSERT INTO billing.audit_heads ({_SIGNED_COLUMNS}) {_SIGNED_ROWS}"
            f" ON CONFLICT (tenant) DO UPDATE SET {_ONWARD}",
            *_signed_columns(heads),
        )

    async def move(self, stream: str, sequence: int) -> None:
        """Notes up to where AUDIT is sealed."""
        await self._connection.execute("UPDATE billing.audit_cursor SET stream = $1, sequence = $2", stream, sequence)

    async def last_anchors(self) -> dict[str, Signed]:
        """Returns each chain's newest anchor."""
        return await _last_anchors(self._connection)

    async def add_anchors(self, anchors: Sequence[Signed]) -> None:
        """Adds anchors."""
        await self._connection.execute(
            f"INSERT INTO billing.audit_anchors ({_SIGNED_COLUMNS}) {_SIGNED_ROWS}",
            *_signed_columns(anchors),
        )

    async def prunable(self, before_ms: int) -> dict[str, Head]:
        """Returns up to which record each chain may be pruned: all of it was sealed before a time.

        The last record of a chain stays.
        """
        rows = await self._connection.fetch(
            """
            SELECT DISTINCT ON (old.tenant) old.tenant, old.seq, old.hash FROM billing.audit AS old
            JOIN billing.audit_heads AS heads ON heads.tenant = old.tenant AND old.seq < heads.seq
            WHERE old.sealed_at_ms < $1
            ORDER BY old.tenant, old.seq DESC
            """,
            before_ms,
        )
        return {row["tenant"]: Head(row["seq"], row["hash"]) for row in rows}

    async def checkpoints(self) -> dict[str, int]:
        """Returns up to which record chains were pruned."""
        rows = await self._connection.fetch("SELECT tenant, seq FROM billing.audit_checkpoints")
        return {row["tenant"]: row["seq"] for row in rows}

    async def set_checkpoint(self, checkpoint: Signed) -> None:
        """Sets from where on a chain is kept."""
        await self._connection.execute(
            f"INSERT INTO billing.audit_checkpoints ({_SIGNED_COLUMNS}) {_SIGNED_ROWS}"
            f" ON CONFLICT (tenant) DO UPDATE SET {_ONWARD}",
            *_signed_columns([checkpoint]),
        )

    async def delete_through(self, tenant: str, seq: int) -> int:
        """Deletes at most PRUNE_BATCH records that a checkpoint covers, oldest first; returns how many.

        Earlier anchors than the newest go with them.
        """
        status: str = await self._connection.execute(
            """
            DELETE FROM billing.audit WHERE tenant = $1 AND seq IN (
                SELECT seq FROM billing.audit WHERE tenant = $1 AND seq <= $2 ORDER BY seq LIMIT $3
            )
            """,
            tenant,
            seq,
            PRUNE_BATCH,
        )
        await self._connection.execute(
            """
            DELETE FROM billing.audit_anchors WHERE tenant = $1 AND seq <= $2
            AND round < (SELECT max(round) FROM billing.audit_anchors WHERE tenant = $1)
            """,
            tenant,
            seq,
        )
        return int(status.rsplit(maxsplit=1)[-1])


class AuditStore:
    """The audit trail's tables over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def claim(self) -> Claim:
        """Takes the right to append from whoever had it."""
        row = await self._pool.fetchrow(
            "UPDATE billing.audit_cursor SET epoch = epoch + 1 RETURNING epoch, stream, sequence"
        )
        return Claim(*row)

    @asynccontextmanager
    async def sealing(self, epoch: int) -> AsyncGenerator[Cursor]:
        """Opens a transaction for the sealer of an epoch; raises FencedError where a later one has taken over."""
        async with self._pool.acquire() as connection, connection.transaction():
            standing = await connection.fetchval("SELECT epoch FROM billing.audit_cursor FOR UPDATE")
            if standing != epoch:
                raise FencedError(f"the sealer of epoch {epoch} was followed by that of {standing}")
            yield Cursor(connection)

    async def read(self, asked: AuditRead, limit: int) -> list[AuditRecord]:
        """Returns records in the order asked for, at most ``limit``."""
        order = "seq" if asked.tenant is not None else "position"
        compare, direction = (">", "") if asked.ascending else ("<", "DESC")
        rows = await self._pool.fetch(
            f"""
            SELECT {_COLUMNS}, position FROM billing.audit
            WHERE ($1::text IS NULL OR tenant = $1) AND ($2::int8 = 0 OR {order} {compare} $2)
              AND ($3::int8 = 0 OR seq <= $3) AND ($4::int8 = 0 OR at_ms >= $4) AND ($5::int8 = 0 OR at_ms < $5)
              AND ($6 = '' OR action = $6 OR starts_with(action, $6 || '.'))
              AND ($7 = '' OR actor = $7) AND ($8 = '' OR outcome = $8)
            ORDER BY {order} {direction} LIMIT $9
            """,  # noqa: S608 - constants
            asked.tenant,
            asked.cursor,
            asked.through,
            asked.from_ms,
            asked.to_ms,
            asked.action,
            asked.actor,
            asked.outcome,
            limit,
        )
        return [_record(row) for row in rows]

    async def chain(self, tenant: str, after: int, limit: int) -> list[AuditRecord]:
        """Returns the records of a chain after one, in order."""
        rows = await self._pool.fetch(
            f"SELECT {_COLUMNS}, position FROM billing.audit WHERE tenant = $1 AND seq > $2 ORDER BY seq LIMIT $3",  # noqa: S608
            tenant,
            after,
            limit,
        )
        return [_record(row) for row in rows]

    async def chains(self, after: str, limit: int) -> list[str]:
        """Returns the names of chains that there is any trace of, in order."""
        rows = await self._pool.fetch(
            """
            SELECT tenant FROM (
                SELECT tenant FROM billing.audit_heads UNION SELECT tenant FROM billing.audit_anchors
                UNION SELECT tenant FROM billing.audit_checkpoints UNION (
                    WITH RECURSIVE found AS (
                        (SELECT tenant FROM billing.audit ORDER BY tenant LIMIT 1)
                        UNION ALL
                        SELECT (SELECT tenant FROM billing.audit WHERE tenant > found.tenant ORDER BY tenant LIMIT 1)
                        FROM found WHERE found.tenant IS NOT NULL
                    ) SELECT tenant FROM found WHERE tenant IS NOT NULL
                )
            ) AS names WHERE tenant > $1 ORDER BY tenant LIMIT $2
            """,
            after,
            limit,
        )
        return [row[0] for row in rows]

    async def head(self, tenant: str) -> Signed | None:
        """Returns a chain's signed end."""
        return await self._one("head", "audit_heads", tenant)

    async def checkpoint(self, tenant: str) -> Signed | None:
        """Returns from where on a chain is kept."""
        return await self._one("checkpoint", "audit_checkpoints", tenant)

    async def anchors(self, tenant: str) -> list[Signed]:
        """Returns a chain's anchors, oldest first."""
        rows = await self._pool.fetch(
            f"SELECT {_SIGNED_COLUMNS} FROM billing.audit_anchors WHERE tenant = $1 ORDER BY round",  # noqa: S608
            tenant,
        )
        return [_signed("anchor", row) for row in rows]

    async def last_anchors(self, through_round: int) -> dict[str, Signed]:
        """Returns each chain's newest anchor up to a round."""
        return await _last_anchors(self._pool, through_round)

    async def last_digest(self) -> AuditRecord | None:
        """Returns the newest record that tells of a round of anchors."""
        row = await self._pool.fetchrow(
            f"SELECT {_COLUMNS}, position FROM billing.audit WHERE tenant = $1 AND action = $2"  # noqa: S608
            " ORDER BY seq DESC LIMIT 1",
            a.PLATFORM,
            a.ANCHORED,
        )
        return None if row is None else _record(row)

    async def span(self, tenant: str, from_ms: int, to_ms: int) -> tuple[int, int]:
        """Returns the first and the last number of a chain's records whose times lie in [from, to); 0, 0 for none."""
        row = await self._pool.fetchrow(
            """
            SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) FROM billing.audit
            WHERE tenant = $1 AND ($2::int8 = 0 OR at_ms >= $2) AND ($3::int8 = 0 OR at_ms < $3)
            """,
            tenant,
            from_ms,
            to_ms,
        )
        return row[0], row[1]

    async def _one(self, kind: str, table: str, tenant: str) -> Signed | None:
        row = await self._pool.fetchrow(
            f"SELECT {_SIGNED_COLUMNS} FROM billing.{table} WHERE tenant = $1",  # noqa: S608 - constants
            tenant,
        )
        return None if row is None else _signed(kind, row)


async def _last_anchors(connection: Any, through_round: int = 2**62) -> dict[str, Signed]:
    rows = await connection.fetch(
        f"SELECT DISTINCT ON (tenant) {_SIGNED_COLUMNS} FROM billing.audit_anchors WHERE round <= $1"  # noqa: S608
        " ORDER BY tenant, round DESC",
        through_round,
    )
    return {row["tenant"]: _signed("anchor", row) for row in rows}


def _value(record: AuditRecord, name: str) -> Any:
    value = getattr(record, name)
    return json.dumps(value) if name == "details" else value


def _signed_columns(places: Iterable[Signed]) -> list[list[Any]]:
    every = list(places)
    return [[getattr(one, name) for one in every] for name in _SIGNED_COLUMNS.split(", ")]


def _signed(kind: Any, row: Any) -> Signed:
    return Signed(kind=kind, **{name: row[name] for name in _SIGNED_COLUMNS.split(", ")})


def _end(row: Any) -> End:
    signed = None if row["seq"] is None else _signed("head", row)
    last = None if row["last_seq"] is None else Head(row["last_seq"], row["last_hash"], row["sealed_at_ms"])
    return End(signed, last)


def _record(row: Any) -> AuditRecord:
    fields: dict[str, Any] = dict(row)
    fields["details"] = json.loads(fields["details"])
    return AuditRecord(**fields)
