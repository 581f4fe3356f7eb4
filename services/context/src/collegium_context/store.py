"""Everything that context asks of PostgreSQL: all of its SQL stands here.

Bodies are sealed and never opened here. One rule: a task's turn is stored once, and storing it again changes
nothing; one that was forgotten is not stored again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg
from collegium_contracts.envelope import Envelope
from collegium_contracts.scope import Scope, one_tenant
from collegium_runtime.failpoints import failpoint

# What the wait for the fold leaves of the asker's patience; a conversation that takes longer to read is refused, and
# asked for again.
READ_SECONDS = 0.8

_INSERT = """
INSERT INTO context.turns (task_id, tenant, conversation, sequence, key_id, nonce, body, messages, bytes, created_at)
SELECT task_id, tenant, conversation, sequence, key_id, nonce, body, messages, bytes,
       timestamptz 'epoch' + created_at_ms * interval '1 millisecond'
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::int8[], $5::text[], $6::bytea[], $7::bytea[], $8::int4[], $9::int4[],
    $10::int8[]
) AS new (task_id, tenant, conversation, sequence, key_id, nonce, body, messages, bytes, created_at_ms)
WHERE NOT EXISTS (
    SELECT FROM context.forgotten_turns AS gone
    WHERE gone.tenant = new.tenant AND gone.conversation = new.conversation
      AND gone.task_id IN ('', new.task_id) AND new.sequence <= gone.up_to_sequence
)
ON CONFLICT DO NOTHING
"""

# The inner limit bounds what is looked at: every turn holds at least one message.
_NEWEST = """
SELECT sequence, key_id, nonce, body, turns
FROM (
    SELECT sequence, key_id, nonce, body, count(*) OVER () AS turns,
           sum(messages) OVER newest - messages AS newer_messages, sum(bytes) OVER newest AS bytes_so_far
    FROM (
        SELECT sequence, key_id, nonce, body, messages, bytes
        FROM context.turns WHERE tenant = $1 AND conversation = $2
        ORDER BY sequence DESC LIMIT $3 + 1
    ) AS looked_at
    WINDOW newest AS (ORDER BY sequence DESC)
) AS summed
WHERE newer_messages < $3 AND bytes_so_far <= $4
ORDER BY sequence
"""
_STANDS = "SELECT EXISTS (SELECT FROM context.turns WHERE tenant = $1 AND conversation = $2)"


class TurnRow(NamedTuple):
    """One turn. Fields are the columns of ``context.turns``, in order.

    ``sequence`` is that of the settled message in EVENTS; ``bytes`` counts the sealed body.
    """

    task_id: str
    tenant: str
    conversation: str
    sequence: int
    key_id: str
    nonce: bytes
    body: bytes
    messages: int
    bytes: int
    created_at_ms: int


class NewestTurns(NamedTuple):
    """The newest turns, oldest first; ``is_cut`` where older ones stand that were left out.

    ``first_sequence`` is that of the oldest one, 0 where there is none.
    """

    turns: list[Envelope]
    is_cut: bool
    first_sequence: int = 0


class Store:
    """Context's table over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def add(self, rows: Sequence[TurnRow]) -> None:
        """Stores turns in one statement; those of tasks that have one stay as they are."""
        # Sorted, because two replicas that store the same redelivered turns in different orders would deadlock.
        columns = zip(*sorted(rows), strict=True)
        failpoint("context.before-commit")
        await self._pool.execute(_INSERT, *map(list, columns))
        failpoint("context.after-commit")

    async def newest(self, scope: Scope, *, max_messages: int, max_bytes: int) -> NewestTurns:
        """Returns the newest turns of the conversation that the scope ends at.

        As many as it takes for ``max_messages``, and at most ``max_bytes`` in all.

        Raises TimeoutError after READ_SECONDS.
        """
        tenant, (conversation,) = one_tenant(scope), scope.path
        rows = await self._pool.fetch(_NEWEST, tenant, conversation, max_messages, max_bytes, timeout=READ_SECONDS)
        if not rows:
            stands: bool = await self._pool.fetchval(_STANDS, tenant, conversation, timeout=READ_SECONDS)
            return NewestTurns([], is_cut=stands)
        turns = [Envelope(row["key_id"], row["nonce"], row["body"]) for row in rows]
        return NewestTurns(turns, is_cut=rows[0]["turns"] > len(rows), first_sequence=rows[0]["sequence"])
