"""What a search reads of PostgreSQL: the chunks that are found, and users' profiles. Bodies are never opened here.

One rule: a point whose chunk does not stand here is not found, whatever the vector store says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg
from collegium_contracts.envelope import Envelope
from collegium_contracts.scope import Scope, one_tenant

from collegium_context.documents.generations import Generation

READ_SECONDS = 3.0

_CHUNKS = """
SELECT id::text, document, ordinal, tokens, key_id, nonce, body FROM context.chunks
WHERE tenant = $1 AND id = ANY($2::uuid[])
"""
_STATE = """
SELECT (SELECT version FROM context.knowledge WHERE tenant = $1) AS version,
       g.collection, g.model, g.dimensions, g.layout
FROM (SELECT 1) AS one LEFT JOIN context.generations AS g ON g.state = 'serving'
"""
_PROFILE = "SELECT key_id, nonce, body FROM context.search_profiles WHERE tenant = $1 AND user_id = $2"
_SET_PROFILE = """
INSERT INTO context.search_profiles (tenant, user_id, key_id, nonce, body) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, user_id) DO UPDATE SET key_id = EXCLUDED.key_id, nonce = EXCLUDED.nonce, body = EXCLUDED.body
"""
_FORGET_PROFILE = "DELETE FROM context.search_profiles WHERE tenant = $1 AND user_id = $2"


class FoundChunk(NamedTuple):
    """A chunk as it stands in its document."""

    document: str
    ordinal: int
    tokens: int
    body: Envelope


class SearchStore:
    """Reads over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def chunks(self, scope: Scope, ids: Sequence[str]) -> dict[str, FoundChunk]:
        """Returns those of the chunks that stand now, by id."""
        rows = await self._pool.fetch(_CHUNKS, one_tenant(scope), ids, timeout=READ_SECONDS)
        return {
            row["id"]: FoundChunk(
                row["document"], row["ordinal"], row["tokens"], Envelope(row["key_id"], row["nonce"], row["body"])
            )
            for row in rows
        }

    async def state(self, scope: Scope) -> tuple[int, Generation | None]:
        """Returns the number that changes with everything that may be found, and where that is looked for now."""
        row = await self._pool.fetchrow(_STATE, one_tenant(scope), timeout=READ_SECONDS)
        serving = row["collection"]
        generation = Generation(serving, row["model"], row["dimensions"], row["layout"]) if serving else None
        return row["version"] or 0, generation

    async def profile(self, scope: Scope, user: str) -> Envelope | None:
        """Returns a user's sealed profile, or none."""
        row = await self._pool.fetchrow(_PROFILE, one_tenant(scope), user, timeout=READ_SECONDS)
        return Envelope(row["key_id"], row["nonce"], row["body"]) if row is not None else None

    async def set_profile(self, scope: Scope, user: str, weights: Envelope | None) -> None:
        """Keeps a user's profile in the place of an older one; none forgets it."""
        if weights is None:
            await self._pool.execute(_FORGET_PROFILE, one_tenant(scope), user)
        else:
            sealed = (weights.key_id, weights.nonce, weights.body)
            await self._pool.execute(_SET_PROFILE, one_tenant(scope), user, *sealed)
