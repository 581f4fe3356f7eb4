"""The SQL of discovered domains. One rule: whatever is read or written names the tenant whose it is."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from collegium_contracts.domain_requests import DomainRow
from collegium_contracts.envelope import Envelope

from collegium_evolution.domains.discovering import Topic

LIST_MAX: Final = 1_000
TENANTS_MAX: Final = 10_000

# Tasks whose questions were looked at.
_COUNTS: Final = """
SELECT tenant, count(DISTINCT task_id) AS rows FROM evolution.decided
WHERE features IS NOT NULL
GROUP BY tenant HAVING count(DISTINCT task_id) >= $1 ORDER BY 2 DESC LIMIT $2
"""
_ASKED: Final = """
SELECT * FROM (
    SELECT DISTINCT ON (task_id) task_id, domain, embedder, features_key, features_nonce, features, at_ms, cost_picos,
           (SELECT avg(o.score)::float8 FROM evolution.outcomes o
            WHERE o.tenant = d.tenant AND o.task_id = d.task_id AND o.model = d.model) AS score,
           (SELECT v.confidence FROM evolution.verdicts v
            WHERE v.tenant = d.tenant AND v.task_id = d.task_id) AS confidence
    FROM evolution.decided d
    WHERE tenant = $1 AND features IS NOT NULL AND at_ms >= $2
    ORDER BY task_id, number
) AS asked ORDER BY at_ms DESC, task_id LIMIT $3
"""
_PUT: Final = """
INSERT INTO evolution.topics AS standing
    (tenant, id, number, state, into_id, named, made_by, questions, of_questions, first_ms, last_ms, terms)
SELECT $1, * FROM unnest($2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int8[], $9::int8[],
                         $10::int8[], $11::int8[], $12::bytea[])
ON CONFLICT (tenant, id) DO UPDATE
SET state = excluded.state, into_id = excluded.into_id, named = excluded.named, made_by = excluded.made_by,
    questions = excluded.questions, of_questions = excluded.of_questions, last_ms = excluded.last_ms,
    terms = coalesce(excluded.terms, standing.terms)
"""
_MAP: Final = """
INSERT INTO evolution.topic_maps AS standing (tenant, version, rows, value) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant) DO UPDATE SET version = excluded.version, rows = excluded.rows, value = excluded.value
WHERE standing.version = excluded.version - 1
"""
_LIST: Final = """
SELECT * FROM evolution.topics WHERE ($1::text IS NULL OR tenant = $1) AND ($2 = '' OR id = $2)
ORDER BY state, questions DESC, id LIMIT $3
"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode


class Asked(NamedTuple):
    """A question that was looked at: its task, the domain the task was given, and its row, sealed.

    ``score`` is the mean of all words about its answer, none where nobody said any; ``confidence`` how sure its verdict
    was, none where that was not told.
    """

    task_id: str
    domain: str
    embedder: str
    features: Envelope
    cost_picos: int
    score: float | None
    confidence: float | None = None


class StandingMap(NamedTuple):
    """A tenant's map as it stands in the bucket, of how many questions."""

    tenant: str
    version: int
    rows: int
    value: bytes


async def counts(pool: Any, least: int) -> dict[str, int]:
    """Returns how many questions of each tenant were looked at, of those with at least so many."""
    return {row["tenant"]: row["rows"] for row in await pool.fetch(_COUNTS, least, TENANTS_MAX)}


async def asked_since(pool: Any, tenant: str, since_ms: int) -> int:
    """Returns how many of a tenant's questions that were looked at were asked after a time (Unix ms)."""
    statement = """
    SELECT count(DISTINCT task_id) FROM evolution.decided
    WHERE tenant = $1 AND features IS NOT NULL AND at_ms > $2
    """
    return await pool.fetchval(statement, tenant, since_ms)


async def asked(pool: Any, tenant: str, limit: int, since_ms: int = 0) -> list[Asked]:
    """Returns a tenant's questions that were looked at, the newest first, each once."""
    return [
        Asked(
            row["task_id"],
            row["domain"],
            row["embedder"],
            Envelope(row["features_key"], row["features_nonce"], row["features"]),
            int(row["cost_picos"]),
            row["score"],
            row["confidence"],
        )
        for row in await pool.fetch(_ASKED, tenant, since_ms, limit)
    ]


async def put(
    pool: Any, standing: StandingMap, topics: Sequence[Topic], terms: Mapping[str, Envelope] | None = None
) -> bool:
    """Keeps a tenant's next map and its domains; false where another map came first. Terms that are none stay."""
    sealed = terms or {}
    rows = [
        (
            row.id, number, row.state, row.into, row.named, row.by, row.questions, row.of_questions, row.first_at_ms,
            row.last_at_ms, _encode(sealed[row.id]) if row.id in sealed else None,
        )
        for row, number in topics
    ]  # fmt: skip
    async with pool.acquire() as connection, connection.transaction():
        status: str = await connection.execute(_MAP, *standing)
        if not status.endswith(" 1"):
            return False
        if rows:
            await connection.execute(_PUT, standing.tenant, *(list(column) for column in zip(*rows, strict=True)))
    return True


async def maps(pool: Any, tenant: str | None = None) -> list[StandingMap]:
    """Returns the map of one tenant, or (none) those of all."""
    found = await pool.fetch(
        "SELECT tenant, version, rows, value FROM evolution.topic_maps WHERE $1::text IS NULL OR tenant = $1", tenant
    )
    return [StandingMap(row["tenant"], row["version"], row["rows"], bytes(row["value"])) for row in found]


async def topics(pool: Any, tenant: str | None, topic: str = "") -> list[tuple[Topic, Envelope | None]]:
    """Returns domains of one tenant or (none) of all, the largest first, with their terms sealed."""
    found: list[tuple[Topic, Envelope | None]] = []
    for row in await pool.fetch(_LIST, tenant, topic, LIST_MAX):
        shown = DomainRow(
            id=row["id"], tenant=row["tenant"], state=row["state"], questions=row["questions"],
            of_questions=row["of_questions"], first_at_ms=row["first_ms"], last_at_ms=row["last_ms"],
            named=row["named"], into=row["into_id"], by=row["made_by"],
        )  # fmt: skip
        found.append((Topic(shown, row["number"]), _decode(row["terms"]) if row["terms"] is not None else None))
    return found


async def erase(pool: Any, tenant: str) -> int:
    """Removes what stands of a tenant and returns how many rows that was."""
    gone = 0
    for table in ("topics", "topic_maps"):
        status: str = await pool.execute(f"DELETE FROM evolution.{table} WHERE tenant = $1", tenant)  # noqa: S608
        gone += int(status.rpartition(" ")[2])
    return gone
