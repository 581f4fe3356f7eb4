"""The SQL of sums by hour and tenant, and of how much has settled. One rule: as the sums of all time, added once."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from collegium_learning.ranks.decay import Window

from collegium_evolution.scoreboards.scoring import ScoreKey
from collegium_evolution.scoreboards.windows import HOUR_MS, DomainKey, DomainSum, WindowKey, WindowSum

# Scores older than this count less than a twentieth of a percent at the default half-life.
KEPT_DAYS: Final = 60
WINDOWS_READ_MAX: Final = 200_000

_ADD_WINDOWS: Final = """
INSERT INTO evolution.windows AS standing (
    tenant, model, domain, rank, hour, calls, succeeded, refused, duration_ms_total, cost_picos,
    judged, score_sum, square_sum
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::int8[], $6::int8[], $7::int8[], $8::int8[], $9::int8[],
    $10::numeric[], $11::int8[], $12::float8[], $13::float8[]
)
ON CONFLICT (tenant, model, domain, rank, hour) DO UPDATE
SET calls = standing.calls + excluded.calls,
    succeeded = standing.succeeded + excluded.succeeded,
    refused = standing.refused + excluded.refused,
    duration_ms_total = standing.duration_ms_total + excluded.duration_ms_total,
    cost_picos = standing.cost_picos + excluded.cost_picos,
    judged = standing.judged + excluded.judged,
    score_sum = standing.score_sum + excluded.score_sum,
    square_sum = standing.square_sum + excluded.square_sum
"""
_ADD_DOMAINS: Final = """
INSERT INTO evolution.domain_hours AS standing (
    tenant, domain, hour, settled, cost_picos, confident, confidence_sum, square_sum
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::int8[], $4::int8[], $5::numeric[], $6::int8[], $7::float8[], $8::float8[]
)
ON CONFLICT (tenant, domain, hour) DO UPDATE
SET settled = standing.settled + excluded.settled,
    cost_picos = standing.cost_picos + excluded.cost_picos,
    confident = standing.confident + excluded.confident,
    confidence_sum = standing.confidence_sum + excluded.confidence_sum,
    square_sum = standing.square_sum + excluded.square_sum
"""
_ADD_SETTLED: Final = "UPDATE evolution.progress SET settled = settled + $1"
_NAMED: Final = """
SELECT DISTINCT tenant, domain FROM evolution.windows WHERE tenant = ANY($1::text[])
UNION SELECT DISTINCT tenant, domain FROM evolution.domain_hours WHERE tenant = ANY($1::text[])
"""
_READ: Final = """
SELECT model, domain, rank, hour, sum(calls)::int8 AS calls, sum(succeeded)::int8 AS succeeded,
       sum(refused)::int8 AS refused, sum(duration_ms_total)::int8 AS duration_ms_total, sum(cost_picos) AS cost_picos,
       sum(judged)::int8 AS judged, sum(score_sum) AS score_sum, sum(square_sum) AS square_sum
FROM evolution.windows
WHERE hour >= $1 AND ($2 = '' OR tenant = $2) AND ($3 = '' OR model = $3) AND ($4::text IS NULL OR domain = $4)
GROUP BY model, domain, rank, hour ORDER BY hour DESC LIMIT $5
"""
_DOMAINS: Final = """
SELECT tenant, domain, sum(settled)::int8 AS settled, sum(cost_picos) AS cost_picos,
       sum(confident)::int8 AS confident, sum(confidence_sum) AS confidence_sum
FROM evolution.domain_hours WHERE hour >= $1 GROUP BY tenant, domain
"""
_JUDGED: Final = """
SELECT tenant, domain, sum(judged)::int8 AS judged, sum(score_sum) AS score_sum
FROM evolution.windows WHERE hour >= $1 GROUP BY tenant, domain HAVING sum(judged) > 0
"""
_PRUNE: Final = (
    "DELETE FROM evolution.windows WHERE hour < $1",
    "DELETE FROM evolution.domain_hours WHERE hour < $1",
)
_ERASE: Final = (
    "DELETE FROM evolution.windows WHERE tenant = $1",
    "DELETE FROM evolution.domain_hours WHERE tenant = $1",
)


async def add(connection: Any, windows: Mapping[WindowKey, WindowSum], domains: Mapping[DomainKey, DomainSum]) -> None:
    """Adds sums by two statements, in the caller's transaction."""
    if windows:
        await connection.execute(_ADD_WINDOWS, *_columns((*key, *windows[key]) for key in sorted(windows)))
    if domains:
        await connection.execute(_ADD_DOMAINS, *_columns((*key, *domains[key]) for key in sorted(domains)))
        await connection.execute(_ADD_SETTLED, sum(one.settled for one in domains.values()))


async def named(connection: Any, tenants: Collection[str]) -> list[tuple[str, str]]:
    """Returns the domains of some tenants' hours, each with whose it is."""
    return [(row["tenant"], row["domain"]) for row in await connection.fetch(_NAMED, sorted(tenants))]


async def read(
    pool: Any, since_ms: int, *, tenant: str = "", model: str = "", domain: str | None = None
) -> dict[ScoreKey, list[Window]]:
    """Returns the hours of each model, domain and rank since then, the newest first; of one tenant or of all."""
    rows = await pool.fetch(_READ, since_ms // HOUR_MS, tenant, model, domain, WINDOWS_READ_MAX)
    found: dict[ScoreKey, list[Window]] = {}
    for row in rows:
        window = Window(
            at_ms=(row["hour"] + 1) * HOUR_MS,
            calls=row["calls"],
            succeeded=row["succeeded"],
            refused=row["refused"],
            duration_ms_total=row["duration_ms_total"],
            cost_usd_picos=int(row["cost_picos"]),
            judged=row["judged"],
            score_sum=row["score_sum"],
            square_sum=row["square_sum"],
        )
        found.setdefault(ScoreKey(row["model"], row["domain"], row["rank"]), []).append(window)
    return found


async def settled(pool: Any) -> int:
    """Returns how many tasks have settled since the tables were made."""
    return await pool.fetchval("SELECT settled FROM evolution.progress")


async def domains(pool: Any, since_ms: int) -> tuple[list[Any], list[Any]]:
    """Returns what settled by tenant and domain since then, and what was said of it."""
    hour = since_ms // HOUR_MS
    return await pool.fetch(_DOMAINS, hour), await pool.fetch(_JUDGED, hour)


async def prune(pool: Any, now_ms: int) -> None:
    """Removes hours that are too old to count."""
    for statement in _PRUNE:
        await pool.execute(statement, now_ms // HOUR_MS - KEPT_DAYS * 24)


async def erase(pool: Any, tenant: str) -> int:
    """Removes a tenant's hours and returns how many rows that was."""
    return sum([int((await pool.execute(statement, tenant)).rpartition(" ")[2]) for statement in _ERASE])


def _columns(rows: Any) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
