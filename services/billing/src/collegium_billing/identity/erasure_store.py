"""What billing erases of a tenant: its keys' validity. The books stay, because what was charged must be accounted for.

Archived events stay as well; what people and models wrote in them is sealed under keys that were destroyed.
"""

from __future__ import annotations

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none

_REVOKE = """
WITH deleted AS (
    UPDATE billing.tenants SET state = 'deleted' WHERE id = $1 AND state <> 'deleted'
), revoked AS (
    UPDATE billing.keys SET revoked_at = timestamptz 'epoch' + $2::int8 * interval '1 millisecond'
    WHERE tenant = $1 AND revoked_at IS NULL RETURNING 1
)
SELECT count(*) FROM revoked
"""


async def revoke_all(pool: asyncpg.Pool, tenant: str, at_ms: int) -> int:
    """Marks a tenant as deleted, revokes all its live keys, and returns how many there were."""
    found: int = await pool.fetchval(_REVOKE, tenant, at_ms)
    return found
