"""The table of calibration: weighed answers until they are old, beside what became of them. All of its SQL stands here.

One rule: keeping an answer again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import asyncpg
import msgspec
from collegium_contracts.parts import Evidence, Said
from collegium_learning.confidence.cases import Case

from collegium_evolution.calibration.cases import Kept

# What is learned from at most: the newest of a tenant, or of all.
CASES_MAX: Final = 20_000
# What all share is made of so many tenants at least, and none of them is more than its part of so many.
TENANTS_MIN: Final = 3
# Answers are forgotten after so many days: models and questions change.
KEEP_DAYS: Final = 90
# Words about answers are kept longest, for routing learns from as old ones; then removed so many at a time.
WORDS_KEPT_DAYS: Final = 180
WORDS_AT_ONCE: Final = 5_000
# Who is believed about an answer where several have judged it, the first of them first.
SOURCES: Final = ("outcome", "person", "audit", "client")
RIGHT_MIN: Final = 0.5

_KEEP = """
INSERT INTO evolution.verdicts (tenant, task_id, domain, plan, confidence, evidence, settled_at_ms)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::float8[], $6::bytea[], $7::int8[])
ON CONFLICT (tenant, task_id) DO NOTHING
"""
# A tenant's own, each with the word that is believed.
_OWN = """
SELECT domain, plan, evidence, score FROM (
    SELECT v.domain, v.plan, v.evidence, v.settled_at_ms, v.task_id, o.score
    FROM evolution.verdicts AS v LEFT JOIN LATERAL (
        SELECT score FROM evolution.outcomes AS o WHERE o.tenant = v.tenant AND o.task_id = v.task_id
        ORDER BY array_position($3::text[], o.source) NULLS LAST LIMIT 1
    ) AS o ON true
    WHERE v.tenant = $1 ORDER BY v.settled_at_ms DESC, v.task_id DESC LIMIT $2
) AS newest ORDER BY settled_at_ms, task_id
"""
_OWN_SINGLES = """
SELECT model, domain, rank, score FROM evolution.outcomes AS o
WHERE tenant = $1
  AND NOT EXISTS (SELECT 1 FROM evolution.verdicts AS v WHERE v.tenant = o.tenant AND v.task_id = o.task_id)
ORDER BY stored_ns DESC, task_id DESC LIMIT $2
"""
# Of all: each tenant brings its newest, as many judged ones (and as many others) as the tenant at place $2 has. What
# is beyond the limit is left out of all alike, by the place within each tenant.
_SHARED = """
WITH told AS (
    SELECT v.tenant, v.domain, v.plan, v.evidence, v.settled_at_ms, v.task_id, o.score,
           row_number() OVER (
               PARTITION BY v.tenant, o.score IS NULL ORDER BY v.settled_at_ms DESC, v.task_id DESC
           ) AS place
    FROM evolution.verdicts AS v LEFT JOIN LATERAL (
        SELECT score FROM evolution.outcomes AS o WHERE o.tenant = v.tenant AND o.task_id = v.task_id
        ORDER BY array_position($3::text[], o.source) NULLS LAST LIMIT 1
    ) AS o ON true
), sizes AS (
    SELECT score IS NULL AS is_mute, count(*) AS size,
           row_number() OVER (PARTITION BY score IS NULL ORDER BY count(*) DESC) AS at
    FROM told GROUP BY tenant, score IS NULL
)
SELECT domain, plan, evidence, score FROM (
    SELECT told.* FROM told JOIN sizes ON sizes.at = $2 AND sizes.is_mute = (told.score IS NULL)
    WHERE told.place <= sizes.size ORDER BY told.place, told.settled_at_ms DESC, told.task_id DESC LIMIT $1
) AS newest ORDER BY settled_at_ms, task_id
"""
_SHARED_SINGLES = """
WITH told AS (
    SELECT tenant, model, domain, rank, score, stored_ns, task_id,
           row_number() OVER (PARTITION BY tenant ORDER BY stored_ns DESC, task_id DESC) AS place
    FROM evolution.outcomes AS o
    WHERE NOT EXISTS (SELECT 1 FROM evolution.verdicts AS v WHERE v.tenant = o.tenant AND v.task_id = o.task_id)
), share AS (
    SELECT count(*) AS size FROM told GROUP BY tenant ORDER BY 1 DESC OFFSET $2 - 1 LIMIT 1
)
SELECT model, domain, rank, score FROM (
    SELECT * FROM told WHERE place <= (SELECT size FROM share)
    ORDER BY place, stored_ns DESC, task_id DESC LIMIT $1
) AS newest ORDER BY stored_ns DESC, task_id DESC
"""
_LABELS = """
SELECT v.tenant, count(*) AS judged, max(o.heard_ns)::int8 AS heard_ns
FROM evolution.verdicts AS v JOIN LATERAL (
    SELECT max(stored_ns) AS heard_ns FROM evolution.outcomes AS o WHERE o.tenant = v.tenant AND o.task_id = v.task_id
) AS o ON o.heard_ns IS NOT NULL
GROUP BY v.tenant
"""
_FORGET_WORDS = """
DELETE FROM evolution.outcomes WHERE (tenant, task_id, source) IN (
    SELECT tenant, task_id, source FROM evolution.outcomes WHERE stored_ns < $1 LIMIT $2
)
"""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Evidence).decode


async def keep(connection: Any, kept: Sequence[Kept]) -> None:
    """Keeps answers, in the transaction that folds their events."""
    rows = [(*one[:5], _encode(one.evidence), one.settled_at_ms) for one in kept]
    if rows:
        await connection.execute(_KEEP, *[list(column) for column in zip(*rows, strict=True)])


class Labels(NamedTuple):
    """How many answers were judged, and when the newest word about them was stored (broker's nanoseconds)."""

    judged: int
    heard_ns: int = 0


def shared(labels: Mapping[str, Labels]) -> Labels:
    """Returns what all tenants' judged answers count for together: none of fewer than TENANTS_MIN tenants.

    Each counts for at most as many as the tenant at that place has, so that none is more than its part.
    """
    most = sorted((one.judged for one in labels.values()), reverse=True)
    if len(most) < TENANTS_MIN:
        return Labels(0)
    share = most[TENANTS_MIN - 1]
    judged = sum(min(one, share) for one in most)
    return Labels(judged, max(one.heard_ns for one in labels.values()))


class CalibrationStore:
    """What is learned from, over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def labels(self) -> dict[str, Labels]:
        """Returns how many weighed answers were judged, by tenant, and when the last word about them was told."""
        rows = await self._pool.fetch(_LABELS)
        return {row["tenant"]: Labels(row["judged"], row["heard_ns"]) for row in rows}

    async def cases(self, tenant: str = "") -> list[Case]:
        """Returns what is learned from, oldest first: of a tenant, or of all, where none counts for more than a third.

        Of fewer than TENANTS_MIN tenants nothing is learned for all.
        """
        if tenant:
            weighed = await self._pool.fetch(_OWN, tenant, CASES_MAX, list(SOURCES))
            singles = await self._pool.fetch(_OWN_SINGLES, tenant, CASES_MAX)
        else:
            weighed = await self._pool.fetch(_SHARED, CASES_MAX, TENANTS_MIN, list(SOURCES))
            singles = await self._pool.fetch(_SHARED_SINGLES, CASES_MAX, TENANTS_MIN)
        return [*(_single(row) for row in reversed(singles)), *(_case(row) for row in weighed)]

    async def forget(self, before_ms: int) -> int:
        """Forgets old answers and returns how many those were."""
        status: str = await self._pool.execute("DELETE FROM evolution.verdicts WHERE settled_at_ms < $1", before_ms)
        return int(status.rpartition(" ")[2])

    async def forget_words(self, before_ns: int) -> int:
        """Forgets old words about answers, a batch after the other, and returns how many those were; sums stay."""
        gone = 0
        while True:
            status: str = await self._pool.execute(_FORGET_WORDS, before_ns, WORDS_AT_ONCE)
            now_gone = int(status.rpartition(" ")[2])
            gone += now_gone
            if now_gone < WORDS_AT_ONCE:
                return gone

    async def erase(self, tenant: str) -> int:
        """Forgets a tenant's answers and returns how many those were."""
        status: str = await self._pool.execute("DELETE FROM evolution.verdicts WHERE tenant = $1", tenant)
        return int(status.rpartition(" ")[2])


def _case(row: asyncpg.Record) -> Case:
    score = row["score"]
    return Case(row["domain"], row["plan"], _decode(row["evidence"]), None if score is None else score >= RIGHT_MIN)


def _single(row: asyncpg.Record) -> Case:
    said = Said(model=row["model"], rank=row["rank"], camp=1)
    evidence = Evidence(answer_type="text", camp=1, said=[said], probability=1.0)
    return Case(row["domain"], "single", evidence, row["score"] >= RIGHT_MIN)
