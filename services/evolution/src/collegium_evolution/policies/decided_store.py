"""The SQL of answers and how they came to be. One rule: an answer stands once, whoever tells of it how often."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from collegium_contracts.envelope import Envelope

from collegium_evolution.policies.decided import Decided

# Judged answers of a tenant that a policy is learned from, the newest.
JUDGED_MAX: Final = 10_000
KEPT_MS: Final = 180 * 86_400_000
TENANTS_MAX: Final = 10_000

_ADD: Final = """
INSERT INTO evolution.decided (
    tenant, task_id, number, model, rank, domain, at_ms, cost_picos, duration_ms, policy_version, propensity, explored,
    candidates, embedder, features_key, features_nonce, features
)
SELECT tenant, task_id, number, model, rank, domain, at_ms, cost_picos::numeric, duration_ms, policy_version,
       propensity, explored, string_to_array(candidates, chr(10)), embedder, features_key, features_nonce, features
FROM unnest(
    $1::text[], $2::text[], $3::int4[], $4::text[], $5::text[], $6::text[], $7::int8[], $8::text[], $9::int8[],
    $10::int8[], $11::float8[], $12::bool[], $13::text[], $14::text[], $15::text[], $16::bytea[], $17::bytea[]
) AS new (
    tenant, task_id, number, model, rank, domain, at_ms, cost_picos, duration_ms, policy_version, propensity, explored,
    candidates, embedder, features_key, features_nonce, features
)
ON CONFLICT DO NOTHING
"""
# Of several sources each counts the same. What a teacher said in an audit is one answer beside another, no word, where
# the two stand as a pair. Of a panel the others stand beside its first member, once; two that both said something else
# than was settled may have said the same or not.
_KNOWN: Final = """
SELECT decided.*, word.score, coalesce(word.heard_ns, 0) AS heard_ns,
       coalesce(again.others, '{}') AS others, coalesce(again.same, '{}') AS same
FROM evolution.decided
LEFT JOIN LATERAL (
    SELECT array_agg(
               CASE decided.model WHEN pairs.model THEN pairs.other ELSE pairs.model END
               ORDER BY pairs.at_ms, pairs.model, pairs.other
           ) AS others,
           array_agg(pairs.score = pairs.other_score ORDER BY pairs.at_ms, pairs.model, pairs.other) AS same
    FROM evolution.pairs
    WHERE pairs.tenant = decided.tenant AND pairs.id = decided.task_id AND CASE pairs.kind
              WHEN 'audit' THEN decided.model = pairs.model
              WHEN 'shadow' THEN decided.model = pairs.other
              WHEN 'panel' THEN decided.number = 1 AND decided.model IN (pairs.model, pairs.other)
                                AND greatest(pairs.score, pairs.other_score) > 0
              ELSE false
          END
) AS again ON true
LEFT JOIN LATERAL (
    SELECT avg(outcomes.score)::float8 AS score, max(outcomes.stored_ns) AS heard_ns FROM evolution.outcomes
    WHERE outcomes.tenant = decided.tenant AND outcomes.task_id = decided.task_id AND outcomes.model = decided.model
          AND (outcomes.source <> 'audit' OR again.others IS NULL)
) AS word ON true
WHERE decided.tenant = $1 AND (word.score IS NOT NULL OR again.others IS NOT NULL)
ORDER BY decided.at_ms DESC, decided.task_id LIMIT $2
"""
_HEARD: Final = """
SELECT tenant, max(heard_ns)::int8 AS heard_ns FROM (
    SELECT tenant, max(stored_ns) AS heard_ns FROM evolution.outcomes GROUP BY tenant
    UNION ALL SELECT tenant, max(at_ms) * 1000000 FROM evolution.pairs WHERE kind IN ('audit', 'shadow', 'panel')
    GROUP BY tenant
) AS told GROUP BY tenant ORDER BY 2 DESC LIMIT $1
"""
_MEANS: Final = """
SELECT decided.tenant, decided.model, count(*) AS rows, avg(outcomes.score)::float8 AS mean,
       avg(decided.cost_picos)::float8 AS cost_picos, avg(decided.duration_ms)::float8 / 1000 AS seconds
FROM evolution.decided JOIN evolution.outcomes USING (tenant, task_id, model)
GROUP BY decided.tenant, decided.model
"""


class Judged(NamedTuple):
    """An answer and what was said of it (0 to 1), the last word at ``heard_ns``; none where nothing was.

    ``again`` are other models that were asked the same, and whether they said the same.
    """

    of: Decided
    score: float | None
    heard_ns: int
    again: tuple[tuple[str, bool], ...] = ()


class TenantMean(NamedTuple):
    """What a tenant's words say of a model: how many, their mean, and what its answers cost and took."""

    tenant: str
    model: str
    rows: int
    mean: float
    cost_picos: float
    seconds: float


async def add(connection: Any, decided: Sequence[Decided]) -> None:
    """Adds answers that were not told of before."""
    if not decided:
        return
    rows = [
        (
            *one[:7],
            str(one.cost_picos),
            one.duration_ms,
            one.policy_version,
            one.propensity,
            one.explored,
            "\n".join(one.candidates),
            one.embedder,
            one.features.key_id if one.features is not None else None,
            one.features.nonce if one.features is not None else None,
            one.features.body if one.features is not None else None,
        )
        for one in decided
    ]
    await connection.execute(_ADD, *(list(column) for column in zip(*rows, strict=True)))


async def heard(pool: Any) -> dict[str, int]:
    """Returns until when each tenant was heard, in nanoseconds; what was asked again counts as heard."""
    return {row["tenant"]: row["heard_ns"] for row in await pool.fetch(_HEARD, TENANTS_MAX)}


async def judged(pool: Any, tenant: str) -> list[Judged]:
    """Returns a tenant's answers that were judged or asked again, the oldest of the newest first."""
    return [_judged(row) for row in reversed(await pool.fetch(_KNOWN, tenant, JUDGED_MAX))]


async def means(pool: Any) -> list[TenantMean]:
    """Returns what each tenant's words say of each model."""
    return [TenantMean(*row) for row in await pool.fetch(_MEANS)]


async def prune(pool: Any, now_ms: int) -> None:
    """Forgets answers that are too old to be learned from."""
    await pool.execute("DELETE FROM evolution.decided WHERE at_ms < $1", now_ms - KEPT_MS)


async def erase(pool: Any, tenant: str) -> int:
    """Removes what stands of a tenant and returns how many rows that was."""
    status: str = await pool.execute("DELETE FROM evolution.decided WHERE tenant = $1", tenant)
    return int(status.rpartition(" ")[2])


def _judged(row: Any) -> Judged:
    sealed = row["features"]
    features = Envelope(row["features_key"], row["features_nonce"], sealed) if sealed is not None else None
    found = Decided(
        row["tenant"],
        row["task_id"],
        row["number"],
        row["model"],
        row["rank"],
        row["domain"],
        row["at_ms"],
        int(row["cost_picos"]),
        row["duration_ms"],
        row["policy_version"],
        row["propensity"],
        row["explored"],
        tuple(name for name in row["candidates"] if name),
        row["embedder"],
        features,
    )
    return Judged(found, row["score"], row["heard_ns"], tuple(zip(row["others"], row["same"], strict=True)))
