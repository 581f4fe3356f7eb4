"""Everything that the semantic cache asks of PostgreSQL: entries, and what was seen of them and of their scopes.

Questions and answers are sealed and never opened here. One rule: every statement names its tenant, but the sweep of
what has expired.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg
from collegium_contracts.envelope import Envelope
from collegium_contracts.scope import AllTenants, Scope, one_tenant, tenant_of

from collegium_context.semantic.policy import SCOPE_DECAY, Evidence

# The look has 30 ms in all; a database that takes longer than this is away, and the question a miss.
READ_SECONDS = 0.2
AT_ONCE = 1_000

_ENTRIES = """
SELECT id::text, group_id::text, task_id, key_id, nonce, question, vectors, answer, compared, wrong, expected
FROM context.kept_answers
WHERE tenant = $1 AND scope = $2 AND id = ANY($3::uuid[]) AND expires_at_ms > $4
"""
_SCOPE = "SELECT compared, wrong, expected FROM context.kept_scopes WHERE tenant = $1 AND scope = $2"
_PUT = """
INSERT INTO context.kept_answers AS old
    (id, tenant, scope, digest, group_id, task_id, key_id, nonce, question, vectors, answer, stored_at_ms,
     expires_at_ms)
SELECT $1::uuid, $2::text, $3::bytea, $4::bytea, $5::uuid, $6::text, $7::text, $8::bytea, $9::bytea, $10::bytea,
       $11::bytea, $12::int8, $13::int8
WHERE NOT EXISTS (SELECT FROM context.kept_clears WHERE tenant = $2 AND cleared_at_ms >= $12)
ON CONFLICT (tenant, scope, digest) DO UPDATE
SET group_id = excluded.group_id, task_id = excluded.task_id, key_id = excluded.key_id, nonce = excluded.nonce,
    question = excluded.question, vectors = excluded.vectors, answer = excluded.answer, compared = 0, wrong = 0,
    expected = 0, stored_at_ms = excluded.stored_at_ms, expires_at_ms = excluded.expires_at_ms
WHERE old.stored_at_ms <= excluded.stored_at_ms
RETURNING id::text
"""
_SEEN = """
UPDATE context.kept_answers SET compared = compared + 1, wrong = wrong + $4, expected = expected + $5
WHERE tenant = $1 AND scope = $2 AND id = $3::uuid
"""
_SEEN_SCOPE = """
INSERT INTO context.kept_scopes AS old (tenant, scope, compared, wrong, expected, served, explored, explored_wrong)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (tenant, scope) DO UPDATE
SET compared = CASE WHEN $3::float8 > 0 THEN old.compared * $9 + $3 ELSE old.compared END,
    wrong = CASE WHEN $3::float8 > 0 THEN old.wrong * $9 + $4 ELSE old.wrong END,
    expected = CASE WHEN $3::float8 > 0 THEN old.expected * $9 + $5 ELSE old.expected END,
    served = old.served + $6, explored = old.explored + $7, explored_wrong = old.explored_wrong + $8
"""
_SAID_WRONG = """
WITH said AS (
    UPDATE context.kept_answers SET compared = compared + 1, wrong = wrong + 1
    WHERE tenant = $1 AND task_id = $2 RETURNING scope
)
UPDATE context.kept_scopes AS scopes
SET said_wrong = said_wrong + 1, compared = compared * $3 + 1, wrong = wrong * $3 + 1
FROM said WHERE scopes.tenant = $1 AND scopes.scope = said.scope
RETURNING 1
"""
_CLEAR = """
INSERT INTO context.kept_clears AS old (tenant, cleared_at_ms) VALUES ($1, $2)
ON CONFLICT (tenant) DO UPDATE SET cleared_at_ms = greatest(old.cleared_at_ms, $2)
"""
_FORGET = """
DELETE FROM context.kept_answers
WHERE id IN (SELECT id FROM context.kept_answers WHERE tenant = $1 LIMIT $2) RETURNING id::text
"""
_EXPIRED = """
DELETE FROM context.kept_answers
WHERE id IN (SELECT id FROM context.kept_answers WHERE expires_at_ms <= $1 LIMIT $2) RETURNING tenant, id::text
"""
_STATS = """
SELECT (SELECT count(*) FROM context.kept_answers WHERE tenant = $1) AS entries,
       coalesce(sum(served), 0)::int8 AS served, coalesce(sum(explored), 0)::int8 AS explored,
       coalesce(sum(explored_wrong), 0)::int8 AS explored_wrong, coalesce(sum(said_wrong), 0)::int8 AS said_wrong
FROM context.kept_scopes WHERE tenant = $1
"""
_TOTALS = """
SELECT coalesce(sum(explored), 0)::int8 AS explored, coalesce(sum(explored_wrong), 0)::int8 AS explored_wrong
FROM context.kept_scopes
"""


class Kept(NamedTuple):
    """One entry: its sealed question, its turns' vectors, its answer as the gateway gave it, what was seen of it."""

    id: str
    group: str
    task_id: str
    question: Envelope
    vectors: bytes
    answer: bytes
    evidence: Evidence


class NewEntry(NamedTuple):
    """An entry to be kept; the key is the digest within tenant and scope."""

    id: str
    digest: bytes
    group: str
    task_id: str
    question: Envelope
    vectors: bytes
    answer: bytes
    stored_at_ms: int
    expires_at_ms: int


class Seen(NamedTuple):
    """What is to be added to a scope."""

    compared: int = 0
    wrong: int = 0
    expected: float = 0.0
    served: int = 0
    explored: int = 0
    explored_wrong: int = 0


class LikenessStore:
    """The cache's tables over one pool. A scope's path is one key: the hash of what entries must have in common."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def entries(self, scope: Scope, ids: Sequence[str], now_ms: int) -> dict[str, Kept]:
        """Returns the entries of a scope that stand, by id."""
        rows = await self._pool.fetch(_ENTRIES, *_key(scope), list(ids), now_ms, timeout=READ_SECONDS)
        return {row["id"]: _kept(row) for row in rows}

    async def seen_of(self, scope: Scope) -> Evidence:
        """Returns what was seen of a scope."""
        row = await self._pool.fetchrow(_SCOPE, *_key(scope), timeout=READ_SECONDS)
        return Evidence() if row is None else Evidence(row["compared"], row["wrong"], row["expected"])

    async def put(self, scope: Scope, entry: NewEntry) -> str | None:
        """Keeps an entry, in place of the one of the same question; returns its id, none where that is newer.

        None as well where the tenant's answers were cleared since it was made.
        """
        question = entry.question
        return await self._pool.fetchval(
            _PUT, entry.id, *_key(scope), entry.digest, entry.group, entry.task_id, question.key_id, question.nonce,
            question.body, entry.vectors, entry.answer, entry.stored_at_ms, entry.expires_at_ms,
        )  # fmt: skip

    async def add(
        self, scope: Scope, seen: Seen, entry: str = "", risk: float = 0.0, *, is_wrong: bool = False
    ) -> None:
        """Adds what was seen to a scope and, where it was of one, to an entry."""
        if entry:
            await self._pool.execute(_SEEN, *_key(scope), entry, float(is_wrong), risk)
        await self._pool.execute(
            _SEEN_SCOPE, *_key(scope), float(seen.compared), float(seen.wrong), seen.expected, seen.served,
            seen.explored, seen.explored_wrong, SCOPE_DECAY,
        )  # fmt: skip

    async def say_wrong(self, scope: Scope, task_id: str) -> bool:
        """Notes that somebody said that the answer which a task made was wrong when it was given again."""
        return await self._pool.fetchval(_SAID_WRONG, one_tenant(scope), task_id, SCOPE_DECAY) is not None

    async def clear(self, scope: Scope, now_ms: int) -> None:
        """Notes that a tenant's answers of until now are not to be kept, also those that are still on their way."""
        await self._pool.execute(_CLEAR, one_tenant(scope), now_ms)

    async def forget(self, scope: Scope) -> list[str]:
        """Removes some of a tenant's entries and returns their ids; none are left where it returns none."""
        return [row["id"] for row in await self._pool.fetch(_FORGET, one_tenant(scope), AT_ONCE)]

    async def forget_scopes(self, scope: Scope) -> None:
        """Removes what was seen of a tenant."""
        await self._pool.execute("DELETE FROM context.kept_scopes WHERE tenant = $1", one_tenant(scope))

    async def expired(self, scope: AllTenants, now_ms: int) -> list[tuple[str, str]]:
        """Removes some of what has expired and returns tenants and ids."""
        tenant_of(scope)
        rows = await self._pool.fetch(_EXPIRED, now_ms, AT_ONCE)
        return [(row["tenant"], row["id"]) for row in rows]

    async def stats(self, scope: Scope) -> dict[str, int]:
        """Counts a tenant's entries and what became of them."""
        row = await self._pool.fetchrow(_STATS, one_tenant(scope))
        assert row is not None, "an aggregate has a row"
        return dict(row)

    async def totals(self, scope: AllTenants) -> tuple[int, int]:
        """Counts the explored answers of all tenants, and those that were wrong."""
        tenant_of(scope)
        row = await self._pool.fetchrow(_TOTALS)
        assert row is not None, "an aggregate has a row"
        return row["explored"], row["explored_wrong"]


def _key(scope: Scope) -> tuple[str, bytes]:
    (path,) = scope.path
    return one_tenant(scope), bytes.fromhex(path)


def _kept(row: asyncpg.Record) -> Kept:
    return Kept(
        row["id"],
        row["group_id"],
        row["task_id"],
        Envelope(row["key_id"], row["nonce"], row["question"]),
        row["vectors"],
        row["answer"],
        Evidence(row["compared"], row["wrong"], row["expected"]),
    )
