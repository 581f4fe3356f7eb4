"""What the books know of a budget's past, and the journal of holds as the archive keeps it."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
from collegium_bus.events import EventOf
from collegium_contracts.messages import JourneyMessage
from collegium_contracts.state import BudgetRecord
from collegium_store import archive

from collegium_billing.books.fold import archived
from collegium_billing.holds.windows import STEPS, Amounts

MONTH_SECONDS = 31 * 86_400
HOUR_MS = 3_600_000

# Before the horizon, which is a full hour, rows are purged; an hour's sum counts as of its last moment, so that no
# window forgets it early. Where nothing was purged, rows alone are read.
_SPENT = """
WITH kept AS (SELECT coalesce((SELECT horizon FROM billing.purges), '-infinity') AS horizon)
SELECT (floor(extract(epoch FROM at) * 1000 / $3) * $3)::int8 AS at_ms, sum(charge_picos)::text
FROM (
    SELECT settled_at AS at, tenant, project, key_id, charge_picos FROM billing.tasks, kept
    WHERE settled_at >= horizon
    UNION ALL
    SELECT begins_at + interval '3599.999 seconds', tenant, project, key_id, charge_picos FROM billing.usage_sums, kept
    WHERE seconds = 3600 AND begins_at < horizon
) AS charged
WHERE at >= timestamptz 'epoch' + $4::int8 * interval '1 millisecond'
  AND at < timestamptz 'epoch' + $5::int8 * interval '1 millisecond'
  AND tenant = $1 AND ($2 = '' OR ($2 = 'project' AND project = $6) OR ($2 = 'key' AND key_id IN (
      SELECT $6 UNION ALL SELECT id FROM billing.keys WHERE lineage = $6)))
GROUP BY 1 HAVING sum(charge_picos) > 0 ORDER BY 1
"""


class Spending:
    """Reads charges from the books, and archives the journal of holds."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def spent(self, tenant: str, budget: BudgetRecord, now_ms: int, until_ms: int) -> Amounts:
        """Sums what settled in a budget's window before ``until_ms``, by steps of time."""
        seconds = budget.window_seconds if budget.window == "rolling" else MONTH_SECONDS
        # Hours divide a calendar's days; other steps would put its first charges into the period before.
        step_ms = max(1_000, seconds * 1000 // STEPS) if budget.window == "rolling" else HOUR_MS
        scope = "" if budget.scope == "tenant" else budget.scope
        rows = await self._pool.fetch(
            _SPENT, tenant, scope, step_ms, now_ms - seconds * 1000 - step_ms, until_ms, budget.of
        )
        return [(int(at_ms), int(picos)) for at_ms, picos in rows]

    async def archive(self, batch: Sequence[EventOf[JourneyMessage]]) -> None:
        """Archives a batch of the journal of holds."""
        connection: Any
        async with self._pool.acquire() as connection, connection.transaction():
            await archive.append(connection, [archived(event) for event in batch])
