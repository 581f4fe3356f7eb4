"""What was told of budgets, in PostgreSQL: each alert once, and those that are still to be posted.

One rule: an alert is one row, named by budget, window and threshold; whoever adds it tells, whoever finds it does not.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
from collegium_store.alone import Job, alone

_TELL = """
INSERT INTO billing.budget_alerts (tenant, budget, began_at_ms, percent, body, told_at_ms, next_try_at_ms)
VALUES ($1, $2, $3, $4, $5, $6::int8, CASE WHEN $7 THEN $6::int8 END)
ON CONFLICT DO NOTHING RETURNING true
"""
_FORGET = """
DELETE FROM billing.budget_alerts
WHERE tenant = $1 AND budget = $2 AND began_at_ms = 0 AND percent <> ALL ($3::int4[]) AND next_try_at_ms IS NULL
"""
_CLAIM = """
UPDATE billing.budget_alerts AS claimed
SET tries = claimed.tries + 1, next_try_at_ms = $1::int8 + $2::int8
FROM (
    SELECT tenant, budget, began_at_ms, percent FROM billing.budget_alerts
    WHERE next_try_at_ms <= $1::int8 ORDER BY next_try_at_ms LIMIT $3 FOR UPDATE SKIP LOCKED
) AS due
WHERE (claimed.tenant, claimed.budget, claimed.began_at_ms, claimed.percent)
      = (due.tenant, due.budget, due.began_at_ms, due.percent)
RETURNING claimed.tenant, claimed.budget, claimed.began_at_ms, claimed.percent, claimed.body, claimed.told_at_ms,
          claimed.tries
"""
_FINISH = """
UPDATE billing.budget_alerts SET next_try_at_ms = $6
WHERE (tenant, budget, began_at_ms, percent) = ($1, $2, $3, $4) AND tries = $5
"""


class Claimed(NamedTuple):
    """An alert that this process is to post."""

    tenant: str
    budget: str
    began_at_ms: int
    percent: int
    body: bytes
    told_at_ms: int
    tries: int


class AlertStore:
    """Alerts over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    def alone(self) -> AbstractAsyncContextManager[bool]:
        """Yields whether no other replica compares budgets now."""
        return alone(self._pool, Job.BUDGET_ALERTS)

    async def tell(
        self, tenant: str, budget: str, began_at_ms: int, percent: int, body: bytes, now_ms: int, *, post: bool
    ) -> bool:
        """Adds an alert, to be posted at once where it is; false where it was told of before."""
        return bool(await self._pool.fetchval(_TELL, tenant, budget, began_at_ms, percent, body, now_ms, post))

    async def forget(self, tenant: str, budget: str, still_passed: Sequence[int]) -> None:
        """Forgets alerts of a rolling budget whose thresholds are no longer passed, so that they are told of again."""
        await self._pool.execute(_FORGET, tenant, budget, list(still_passed))

    async def claim(self, now_ms: int, lease_ms: int, limit: int) -> list[Claimed]:
        """Takes what is due to be posted; what is not finished within the lease is due again."""
        return [Claimed(*row) for row in await self._pool.fetch(_CLAIM, now_ms, lease_ms, limit)]

    async def finish(self, one: Claimed, next_try_at_ms: int | None) -> None:
        """Writes when a claimed alert is tried again; none: never."""
        await self._pool.execute(_FINISH, *one[:4], one.tries, next_try_at_ms)
