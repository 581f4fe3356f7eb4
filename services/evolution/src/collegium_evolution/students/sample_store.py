"""Samples in PostgreSQL: as sealed as they came, by tenant and domain, for so long and so many.

One rule: every question for content names its tenant; there is no other way to a sample.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import asyncpg
import msgspec
from collegium_bus.slices import in_slices
from collegium_contracts.envelope import Envelope
from collegium_contracts.students import SamplesRow

from collegium_evolution.students.samples import Sample
from collegium_evolution.students.tries import Try

KEPT_MS: Final = 90 * 86_400_000
# How long what other models said waits for the sample it belongs to; no task runs longer.
LONE_MS: Final = 2 * 86_400_000
# The newest stay; a domain is whatever a tenant calls one, so that a tenant has a bound too.
PER_DOMAIN_MAX: Final = 20_000
PER_TENANT_MAX: Final = 100_000
# What is taken into memory at once: sealed bytes of the newest.
ROWS_BYTES_MAX: Final = 64 * 1024 * 1024
# Rows that one statement removes, so that none holds its locks for long.
REMOVED_AT_ONCE: Final = 1_000
# A word of feedback below it does not verify, however often others said better.
WORTH_MIN: Final = 0.75

_INSERT = """
INSERT INTO evolution.samples
    (tenant, task_id, domain, model, rank, tier, confidence, consent_ms, settled_ms, prompt, answer)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::float8[], $8::int8[],
                     $9::int8[], $10::bytea[], $11::bytea[])
ON CONFLICT DO NOTHING
"""
# The least word of all who judged an answer counts; of what a person said instead of a model, the person's no to that
# model is none.
WORTH = """
(SELECT min(o.score) FROM evolution.outcomes o
 WHERE o.tenant = s.tenant AND o.task_id = s.task_id
   AND (o.model = s.model OR split_part(s.model, ':', 1) <> 'person'))
"""
# Somebody said how good it was: the client, or a program of its.
_TOLD = """
EXISTS (SELECT FROM evolution.outcomes o
        WHERE o.tenant = s.tenant AND o.task_id = s.task_id AND o.source IN ('client', 'outcome'))
"""


def verified(sure: str) -> str:
    """Returns the condition that a sample is verified: without any word, a person's, or of a teacher ``sure`` enough.

    ``sure`` is SQL; ``worth``, ``model``, ``rank`` and ``confidence`` are the sample's.
    """
    person = "split_part(model, ':', 1) = 'person'"
    return f"coalesce(worth >= {WORTH_MIN}, {person} OR rank = 'teacher' AND confidence >= {sure})"


_WITH_WORTH = f"""
SELECT s.task_id, s.domain, s.model, s.rank, s.tier, s.confidence, s.consent_ms, s.settled_ms, s.prompt, s.answer,
       {WORTH} AS worth, {_TOLD} AS told
FROM evolution.samples s
WHERE s.tenant = $1 AND ($2::text IS NULL OR s.domain = $2)
"""  # noqa: S608 - constants
_VERIFIED = verified("$3")
_ROWS = f"""
SELECT * FROM (
    SELECT *, sum(octet_length(prompt) + octet_length(answer)) OVER (ORDER BY settled_ms DESC, task_id) AS bytes_so_far
    FROM ({_WITH_WORTH}) AS known WHERE ($4 OR {_VERIFIED}) ORDER BY settled_ms DESC, task_id LIMIT $5
) AS newest WHERE bytes_so_far <= $6 ORDER BY settled_ms DESC, task_id
"""  # noqa: S608 - constants
_OF_TASKS = f"SELECT * FROM ({_WITH_WORTH}) AS known WHERE task_id = ANY($3::text[])"  # noqa: S608 - constants
_VERIFIED_OF = f"SELECT * FROM ({_WITH_WORTH}) AS known WHERE task_id = ANY($4::text[]) AND {_VERIFIED}"  # noqa: S608
_COUNTS = f"""
SELECT domain, count(*) AS samples, count(*) FILTER (WHERE {_VERIFIED}) AS verified,
       array_agg(task_id) FILTER (WHERE {_VERIFIED}) AS ids
FROM ({_WITH_WORTH}) AS known GROUP BY domain ORDER BY samples DESC, domain LIMIT 200
"""  # noqa: S608 - constants
_MANY = f"""
SELECT tenant, domain, count(*) AS verified, (array_agg(tier ORDER BY settled_ms DESC))[1] AS tier FROM (
    SELECT s.tenant, s.domain, s.tier, s.model, s.rank, s.confidence, s.settled_ms,
           {WORTH} AS worth
    FROM evolution.samples s
) AS known
WHERE {verified("$1::float8")}
GROUP BY tenant, domain HAVING count(*) >= $2 ORDER BY verified DESC LIMIT 1000
"""  # noqa: S608 - constants
_OLD = """
DELETE FROM evolution.samples WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM evolution.samples WHERE settled_ms < $1 ORDER BY settled_ms LIMIT $2))
"""
_FULL = """
SELECT tenant, domain, count(*) AS samples FROM evolution.samples
GROUP BY GROUPING SETS ((tenant, domain), (tenant))
HAVING count(*) > CASE WHEN GROUPING(domain) = 0 THEN $1::bigint ELSE $2::bigint END
ORDER BY domain NULLS LAST, tenant
"""
_BEYOND = """
DELETE FROM evolution.samples WHERE tenant = $1 AND task_id = ANY(ARRAY(
    SELECT task_id FROM evolution.samples WHERE tenant = $1 AND ($2::text IS NULL OR domain = $2)
    ORDER BY settled_ms DESC, task_id OFFSET $3 LIMIT $4))
"""

_INSERT_TRIES = """
INSERT INTO evolution.tried (tenant, task_id, number, model, rank, escalated, same, at_ms, answer)
SELECT * FROM unnest($1::text[], $2::text[], $3::int4[], $4::text[], $5::text[], $6::bool[], $7::bool[], $8::int8[],
                     $9::bytea[])
ON CONFLICT DO NOTHING
"""
_TRIES = """
SELECT task_id, number, model, rank, escalated, same, at_ms, answer FROM (
    SELECT *, sum(coalesce(octet_length(answer), 0)) OVER (ORDER BY place, number, model) AS bytes_so_far
    FROM evolution.tried JOIN unnest($2::text[]) WITH ORDINALITY AS asked(task_id, place) USING (task_id)
    WHERE tenant = $1
) AS first WHERE bytes_so_far <= $3 ORDER BY place, number, model
"""
# Tries are of use beside a sample alone, which may settle a while after them.
_LONE_TRIES = """
DELETE FROM evolution.tried WHERE ctid = ANY(ARRAY(
    SELECT t.ctid FROM evolution.tried t
    WHERE t.at_ms < $1 AND NOT EXISTS (
        SELECT FROM evolution.samples s WHERE s.tenant = t.tenant AND s.task_id = t.task_id)
    ORDER BY t.at_ms LIMIT $2))
"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode


class Known(NamedTuple):
    """A sample as it is kept, and what its answer was worth (none: nobody said); ``told``: a client or a program
    said."""

    task_id: str
    domain: str
    model: str
    rank: str
    tier: str
    confidence: float | None
    consent_ms: int
    prompt: Envelope
    answer: Envelope
    worth: float | None
    told: bool = False


class Many(NamedTuple):
    """A tenant's domain with many verified samples, and the tier of the tenant's newest."""

    tenant: str
    domain: str
    verified: int
    tier: str


async def add(connection: Any, samples: Sequence[Sample]) -> None:
    """Keeps samples within the transaction that folds their events; one that stands already stays."""
    if samples:
        rows = [(*one[:9], _encode(one.prompt), _encode(one.answer)) for one in samples]
        await connection.execute(_INSERT, *(list(column) for column in zip(*rows, strict=True)))


async def add_tries(connection: Any, tries: Sequence[Try]) -> None:
    """Keeps tries within the transaction that folds their events; one that stands already stays."""
    if tries:
        rows = [(*one[:8], _encode(one.answer) if one.answer is not None else None) for one in tries]
        await connection.execute(_INSERT_TRIES, *(list(column) for column in zip(*rows, strict=True)))


class SampleStore:
    """Samples over a pool of connections; ``confidence_min`` is from which on an unjudged teacher is believed."""

    def __init__(self, pool: asyncpg.Pool, confidence_min: float) -> None:
        self._pool = pool
        self.confidence_min = confidence_min
        # Held by whoever has many opened: one at a time.
        self.turn = asyncio.Lock()

    async def rows(
        self, tenant: str, domain: str | None, *, everything: bool = False, limit: int = PER_DOMAIN_MAX
    ) -> list[Known]:
        """Returns a tenant's verified samples, the newest first, of at most ROWS_BYTES_MAX bytes together.

        ``everything``: those that are not verified too.
        """
        wanted = (tenant, domain, self.confidence_min, everything, limit, ROWS_BYTES_MAX)
        known: list[Known] = []
        async for rows in in_slices(await self._pool.fetch(_ROWS, *wanted)):
            known += [_known(row) for row in rows]
        return known

    async def tries(self, tenant: str, task_ids: Sequence[str]) -> list[Try]:
        """Returns what other models said to the prompts of samples, of at most ROWS_BYTES_MAX bytes together.

        In the order of the samples, so that what is beyond belongs to the last of them.
        """
        tries: list[Try] = []
        async for rows in in_slices(await self._pool.fetch(_TRIES, tenant, list(task_ids), ROWS_BYTES_MAX)):
            tries += [_try(tenant, row) for row in rows]
        return tries

    async def of_tasks(self, tenant: str, tasks: Sequence[str]) -> list[Known]:
        """Returns a tenant's samples of these tasks, verified or not."""
        return [_known(row) for row in await self._pool.fetch(_OF_TASKS, tenant, None, list(tasks))]

    async def verified_of(self, tenant: str, task: str) -> Known | None:
        """Returns a tenant's sample of a task where it is verified now, none else."""
        row = await self._pool.fetchrow(_VERIFIED_OF, tenant, None, self.confidence_min, [task])
        return _known(row) if row is not None else None

    async def counts(self, tenant: str, is_held_out: Any) -> list[SamplesRow]:
        """Returns how many samples stand by domain; ``is_held_out`` tells of a task's id."""
        return [
            SamplesRow(
                domain=row["domain"],
                samples=row["samples"],
                verified=row["verified"],
                held_out=sum(map(is_held_out, row["ids"] or ())),
            )
            for row in await self._pool.fetch(_COUNTS, tenant, None, self.confidence_min)
        ]

    async def many(self, least: int) -> list[Many]:
        """Returns the domains of all tenants with at least so many verified samples: counts, and nothing of content."""
        rows = await self._pool.fetch(_MANY, self.confidence_min, least)
        return [Many(row["tenant"], row["domain"], row["verified"], row["tier"]) for row in rows]

    async def forget_old(self, now_ms: int) -> int:
        """Removes what is older than samples are kept, and returns how many that was."""
        removed = await self._remove(_OLD, now_ms - KEPT_MS)
        return removed + await self._remove(_LONE_TRIES, now_ms - LONE_MS)

    async def forget_beyond(self, per_domain: int = PER_DOMAIN_MAX, per_tenant: int = PER_TENANT_MAX) -> int:
        """Removes the oldest beyond so many of a tenant's domain and of a tenant, and returns how many that was."""
        removed = 0
        for row in await self._pool.fetch(_FULL, per_domain, per_tenant):
            kept = per_tenant if row["domain"] is None else per_domain
            removed += await self._remove(_BEYOND, row["tenant"], row["domain"], kept)
        return removed

    async def _remove(self, statement: str, *about: Any) -> int:
        removed = 0
        while True:
            status: str = await self._pool.execute(statement, *about, REMOVED_AT_ONCE)
            removed += (count := int(status.rpartition(" ")[2]))
            if count < REMOVED_AT_ONCE:
                return removed


def _try(tenant: str, row: Any) -> Try:
    return Try(
        tenant, row["task_id"], row["number"], row["model"], row["rank"], row["escalated"], row["same"], row["at_ms"],
        _decode(row["answer"]) if row["answer"] is not None else None,
    )  # fmt: skip


def _known(row: Any) -> Known:
    return Known(
        row["task_id"], row["domain"], row["model"], row["rank"], row["tier"], row["confidence"], row["consent_ms"],
        _decode(row["prompt"]), _decode(row["answer"]), row["worth"], row["told"],
    )  # fmt: skip
