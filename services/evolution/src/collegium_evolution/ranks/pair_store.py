"""The SQL of pairs. One rule: a pair stands once, whichever of its models is named first when it is read."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from collegium_evolution.ranks.pairing import ComparedPair

KEPT_MS: Final = 90 * 86_400_000
# The latest pairs of a model in a domain that are looked at one by one.
LATEST_MAX: Final = 2_000
# Sums that a round looks at, those with the newest pairs.
MODELS_READ_MAX: Final = 20_000

_ADD: Final = """
INSERT INTO evolution.pairs (id, tenant, domain, model, other, score, other_score, kind, at_ms)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::float8[], $7::float8[], $8::text[], $9::int8[]
)
ON CONFLICT DO NOTHING
"""
# What a client or a program says is said of the settled answer. Where a cheaper model had said something else and the
# settled answer was wrong, nothing tells the two apart; where the settled answer was the cheaper one's (an audit) and
# was right, who was asked again was wrong.
_HEARD_OF: Final = """
WITH heard AS (
    SELECT pairs.id, pairs.tenant, pairs.domain, pairs.model, pairs.other, pairs.at_ms,
           CASE
               WHEN pairs.kind = 'held_out' AND word.score IS NOT NULL THEN 'held_out_told'
               ELSE pairs.kind
           END AS kind,
           CASE
               WHEN word.score IS NULL THEN pairs.score
               WHEN pairs.kind = 'audit' OR word.score < 0.5 THEN word.score
               ELSE pairs.score * word.score
           END AS score,
           CASE
               WHEN word.score IS NULL THEN pairs.other_score
               WHEN pairs.kind = 'audit' AND pairs.score < pairs.other_score
                   THEN CASE WHEN word.score < 0.5 THEN 1 ELSE 0 END
               ELSE word.score
           END AS other_score
    FROM evolution.pairs LEFT JOIN LATERAL (
        SELECT outcomes.score FROM evolution.outcomes
        WHERE pairs.kind <> 'panel' AND outcomes.tenant = pairs.tenant AND outcomes.task_id = pairs.id
              AND outcomes.source IN ('client', 'outcome')
        ORDER BY outcomes.source DESC LIMIT 1
    ) AS word ON true
    WHERE pairs.at_ms >= $1 {of}
), both_ways AS (
    SELECT id, tenant, domain, model, other, kind, at_ms, score, other_score FROM heard
    UNION ALL SELECT id, tenant, domain, other, model, kind, at_ms, other_score, score FROM heard
)
"""  # fmt: skip
# It is read twice, so PostgreSQL makes it as it stands here: what is not wanted is left out inside.
_HEARD_OF_ONE: Final = """AND pairs.domain = $4 AND pairs.kind <> 'escalation' AND (
        (pairs.model = $3 AND pairs.other = ANY($5::text[])) OR (pairs.other = $3 AND pairs.model = ANY($5::text[]))
    )"""
_COUNT: Final = (
    _HEARD_OF.format(of="")  # noqa: S608 - made of this module's constants alone
    + """
SELECT model, other, tenant, domain, kind, since,
       count(*) FILTER (WHERE score - other_score > $2)::int8 AS wins,
       count(*) FILTER (WHERE other_score - score > $2)::int8 AS losses,
       count(*) FILTER (WHERE abs(score - other_score) <= $2)::int8 AS ties,
       sum(score) AS score_sum
FROM (
    SELECT both_ways.*, at_ms > coalesce(
        (SELECT max(changed.at_ms) FROM unnest($3::text[], $4::text[], $5::text[], $6::int8[])
             AS changed (model, domain, tenant, at_ms)
         WHERE changed.model = both_ways.model AND (changed.domain IS NULL OR changed.domain = both_ways.domain)
           AND changed.tenant IN ('', both_ways.tenant)), -1
    ) AS since
    FROM both_ways
) AS told
WHERE since
GROUP BY model, other, tenant, domain, kind, since
ORDER BY max(at_ms) DESC, model, other, tenant, domain, kind LIMIT $7
"""
)
_LATEST: Final = (
    _HEARD_OF.format(of=_HEARD_OF_ONE)
    + """
SELECT tenant, other, sign(CASE WHEN abs(score - other_score) <= $2 THEN 0 ELSE score - other_score END)::int AS won
FROM both_ways
WHERE model = $3 AND other = ANY($5::text[]) AND at_ms > $1
ORDER BY at_ms DESC, id DESC LIMIT $6
"""
)

_BY_KIND: Final = """
SELECT model, kind, count(*)::int8 AS pairs FROM evolution.pairs WHERE at_ms >= $1 GROUP BY model, kind ORDER BY 1, 2
"""


class Counted(NamedTuple):
    """How often a model's answer was better, worse or as good as another's, for one tenant in one domain.

    Of ``kind`` ``held_out`` are those that nobody said were right, ``held_out_told`` the others.
    """

    model: str
    other: str
    tenant: str
    domain: str
    kind: str
    wins: int
    losses: int
    ties: int
    score_sum: float


class Changed(NamedTuple):
    """When a model's rank changed in a domain (none: in all, it was made), for one tenant or (empty) for all."""

    model: str
    domain: str | None
    tenant: str
    at_ms: int


async def add(connection: Any, pairs: Sequence[ComparedPair]) -> None:
    """Adds pairs, in the caller's transaction; those that stand already stay as they are."""
    if pairs:
        await connection.execute(_ADD, *[list(column) for column in zip(*sorted(pairs), strict=True)])


async def counted(pool: Any, since_ms: int, tie_within: float, changes: Sequence[Changed]) -> list[Counted]:
    """Returns pairs by model, other, tenant and domain since then, and since the model's rank changed there."""
    columns = [list(column) for column in zip(*changes, strict=True)] if changes else [[], [], [], []]
    rows = await pool.fetch(_COUNT, since_ms, tie_within, *columns, MODELS_READ_MAX)
    return [
        Counted(
            row["model"], row["other"], row["tenant"], row["domain"], row["kind"],
            row["wins"], row["losses"], row["ties"], row["score_sum"],
        )
        for row in rows
    ]  # fmt: skip


async def latest(
    pool: Any, model: str, domain: str, others: Sequence[str], since_ms: int, tie_within: float
) -> list[tuple[str, int]]:
    """Returns the latest pairs with these others, the oldest first: whose they are, and 1, 0 or −1."""
    rows = await pool.fetch(_LATEST, since_ms, tie_within, model, domain, list(others), LATEST_MAX)
    return [(row["tenant"], row["won"]) for row in reversed(rows)]


async def by_kind(pool: Any, since_ms: int) -> list[tuple[str, str, int]]:
    """Returns how many pairs of each kind there are of each model since then."""
    rows = await pool.fetch(_BY_KIND, since_ms)
    return [(row["model"], row["kind"], row["pairs"]) for row in rows]


async def forget(pool: Any, model: str, tenant: str, before_ms: int) -> None:
    """Removes a tenant's pairs with a model that stood under this name before then."""
    statement = "DELETE FROM evolution.pairs WHERE tenant = $2 AND (model = $1 OR other = $1) AND at_ms < $3"
    await pool.execute(statement, model, tenant, before_ms)


async def prune(pool: Any, now_ms: int) -> None:
    """Removes pairs that are too old to say anything of the models of today."""
    await pool.execute("DELETE FROM evolution.pairs WHERE at_ms < $1", now_ms - KEPT_MS)


async def erase(pool: Any, tenant: str) -> int:
    """Removes a tenant's pairs and returns how many that was."""
    status: str = await pool.execute("DELETE FROM evolution.pairs WHERE tenant = $1", tenant)
    return int(status.rpartition(" ")[2])
