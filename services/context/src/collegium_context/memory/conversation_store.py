"""Conversations in PostgreSQL, beside the fold that adds to them: lists, pages, gists, and what is forgotten.

One rule: a turn that was forgotten is marked in the same transaction, so that no event of before brings it back; its
gist stands in its own row and goes with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg
from collegium_contracts.envelope import Envelope
from collegium_contracts.scope import Scope, one_tenant

from collegium_context.memory.places import Span

READ_SECONDS = 2.0
# What a summary is made of: turns older than these are forgotten by the model altogether.
GISTS_MAX = 400

_LIST = """
SELECT conversation, count(*) AS turns, sum(messages)::bigint AS messages, sum(bytes)::bigint AS bytes,
       (extract(epoch FROM min(created_at)) * 1000)::bigint AS first_ms,
       (extract(epoch FROM max(created_at)) * 1000)::bigint AS last_ms
FROM context.turns
WHERE tenant = $1 AND conversation COLLATE "C" > $2
  AND CASE WHEN $3 = '' THEN strpos(conversation, '/') = 0
           ELSE starts_with(conversation, $3) AND conversation COLLATE "C" < $4 END
GROUP BY conversation ORDER BY conversation COLLATE "C" LIMIT $5
"""
_PAGE = """
SELECT task_id, sequence, key_id, nonce, body, messages, (extract(epoch FROM created_at) * 1000)::bigint AS at_ms
FROM context.turns
WHERE tenant = $1 AND conversation = $2 AND ($3::int8 = 0 OR sequence < $3)
ORDER BY sequence DESC LIMIT $4
"""
_MARK = """
INSERT INTO context.forgotten_turns (tenant, conversation, task_id, up_to_sequence, at_ms)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, conversation, task_id) DO UPDATE
SET up_to_sequence = greatest(forgotten_turns.up_to_sequence, $4), at_ms = $5
"""
_DELETE = """
DELETE FROM context.turns WHERE tenant = $1 AND conversation = $2 AND ($3 = '' OR task_id = $3) AND sequence <= $4
"""
_LAST = "SELECT max(sequence) FROM context.turns WHERE tenant = $1 AND conversation = $2 AND ($3 = '' OR task_id = $3)"
_WITHOUT_GIST = """
SELECT task_id, tenant, key_id, nonce, body FROM context.turns WHERE gist IS NULL
ORDER BY created_at DESC LIMIT $1
"""
_GIST = """
UPDATE context.turns SET gist_key_id = $3, gist_nonce = $4, gist = $5 WHERE tenant = $1 AND task_id = $2
"""
_GISTS = """
SELECT gist_key_id, gist_nonce, gist FROM context.turns
WHERE tenant = $1 AND conversation = $2 AND ($3::int8 = 0 OR sequence < $3) AND gist IS NOT NULL
ORDER BY sequence DESC LIMIT $4
"""
_AGED = """
WITH gone AS (
    DELETE FROM context.turns WHERE task_id IN (
        SELECT task_id FROM context.turns
        WHERE created_at < timestamptz 'epoch' + $1 * interval '1 millisecond' ORDER BY created_at LIMIT $2
    ) RETURNING 1
)
SELECT count(*) FROM gone
"""
_OLD_MARKS = "DELETE FROM context.forgotten_turns WHERE at_ms < $1"


class Conversation(NamedTuple):
    """A conversation in a list; ``place`` is its project's and its own id."""

    place: str
    turns: int
    messages: int
    bytes: int
    first_ms: int
    last_ms: int


class StoredTurn(NamedTuple):
    """A turn as it is kept."""

    task_id: str
    sequence: int
    body: Envelope
    messages: int
    at_ms: int


class ConversationStore:
    """The turns' table over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def page(self, scope: Scope, span: Span, *, limit: int) -> list[Conversation]:
        """Returns the conversations of a project by name."""
        values = (span.after, span.prefix, span.before, limit)
        rows = await self._pool.fetch(_LIST, one_tenant(scope), *values, timeout=READ_SECONDS)
        return [Conversation(*row.values()) for row in rows]

    async def turns(self, scope: Scope, *, limit: int, before_sequence: int) -> list[StoredTurn]:
        """Returns the newest turns of the conversation that the scope ends at, newest first."""
        tenant, (conversation,) = one_tenant(scope), scope.path
        rows = await self._pool.fetch(_PAGE, tenant, conversation, before_sequence, limit, timeout=READ_SECONDS)
        return [StoredTurn(row["task_id"], row["sequence"], _body(row), row["messages"], row["at_ms"]) for row in rows]

    async def forget(self, scope: Scope, task: str, now_ms: int) -> int:
        """Deletes the conversation that the scope ends at, or one task's turn of it; returns how many turns."""
        tenant, (conversation,) = one_tenant(scope), scope.path
        async with self._pool.acquire() as connection, connection.transaction():
            last = await connection.fetchval(_LAST, tenant, conversation, task)
            if last is None:
                return 0
            await connection.execute(_MARK, tenant, conversation, task, last, now_ms)
            return _count(await connection.execute(_DELETE, tenant, conversation, task, last))

    async def without_gist(self, limit: int) -> list[tuple[Scope, str, Envelope]]:
        """Returns turns of any tenant that have no gist yet, newest first: scope, task and body."""
        rows = await self._pool.fetch(_WITHOUT_GIST, limit)
        return [(Scope(row["tenant"]), row["task_id"], _body(row)) for row in rows]

    async def keep_gist(self, scope: Scope, task: str, gist: Envelope) -> None:
        """Stores a turn's gist; a turn that is gone has none."""
        await self._pool.execute(_GIST, one_tenant(scope), task, gist.key_id, gist.nonce, gist.body)

    async def gists(self, scope: Scope, before_sequence: int) -> Sequence[Envelope]:
        """Returns the gists of the turns before a sequence (0: of all), oldest first."""
        tenant, (conversation,) = one_tenant(scope), scope.path
        rows = await self._pool.fetch(_GISTS, tenant, conversation, before_sequence, GISTS_MAX, timeout=READ_SECONDS)
        return [Envelope(row["gist_key_id"], row["gist_nonce"], row["gist"]) for row in reversed(rows)]

    async def forget_before(self, before_ms: int, limit: int) -> int:
        """Deletes turns of any tenant from before a time, at most so many; returns how many."""
        return await self._pool.fetchval(_AGED, before_ms, limit)

    async def forget_marks(self, before_ms: int) -> None:
        """Removes marks of what was forgotten before a time: no event of before stands any more."""
        await self._pool.execute(_OLD_MARKS, before_ms)


def _body(row: Any) -> Envelope:
    return Envelope(row["key_id"], row["nonce"], row["body"])


def _count(status: str) -> int:
    return int(status.rsplit(" ", 1)[-1])
