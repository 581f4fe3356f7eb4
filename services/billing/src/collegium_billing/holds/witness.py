"""What became of the tasks of open holds: asked of the holds' owners, the books, EVENTS and the queue's owners.

One rule: who does not answer makes the law unchecked, and not kept.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
from collegium_bus.ask import ask
from collegium_bus.errors import BusError, RequestRefusedError
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.ids import SHARDS, shard_of
from collegium_contracts.requests import HoldsListReply, HoldsListRequest, OpenHold, QueueReply, QueueRequest
from collegium_runtime.platform import Platform

from collegium_billing.errors import QuestionError
from collegium_billing.holds.law import GRACE_MS, Life, broken

ASK_SECONDS: Final = 3.0
# Of so many holds at a time, the oldest, it is looked up whether anybody knows of their tasks.
LOOKED_UP_MAX: Final = 200
LOOKED_UP_AT_ONCE: Final = 16

_SETTLED = """
SELECT task_id, settled_at < timestamptz 'epoch' + $2::int8 * interval '1 millisecond' FROM billing.tasks
WHERE task_id = ANY($1::text[])
"""


class HoldWitness:
    """Checks the law of open holds."""

    def __init__(self, platform: Platform, pool: asyncpg.Pool) -> None:
        self._platform = platform
        self._pool = pool

    async def violations(self, now_ms: int) -> list[str]:
        """Returns what is wrong with which open hold; raises QuestionError where somebody who knows does not answer."""
        try:
            told = await asyncio.gather(*map(self._holds, SHARDS))
            holds = [hold for of_shard in told for hold in of_shard]
            return broken(holds, await self._lives(holds, now_ms), now_ms)
        except (BusError, ContractError, RequestRefusedError) as error:
            raise QuestionError("billing_unavailable", f"open holds cannot be compared with tasks: {error}") from error

    async def _holds(self, shard: int) -> Sequence[OpenHold]:
        question = HoldsListRequest(older_than_ms=GRACE_MS)
        connection = self._platform.connection
        subject = s.holds_of_shard(shard)
        return (await ask(connection, subject, question, HoldsListReply, timeout_seconds=ASK_SECONDS)).holds

    async def _lives(self, holds: Sequence[OpenHold], now_ms: int) -> dict[str, Life]:
        rows = await self._pool.fetch(_SETTLED, [hold.task for hold in holds], now_ms - GRACE_MS)
        lives: dict[str, Life] = {task: "settled" if is_long_ago else "live" for task, is_long_ago in rows}
        looked_up = [hold for hold in holds if hold.task not in lives][:LOOKED_UP_MAX]
        slots = asyncio.Semaphore(LOOKED_UP_AT_ONCE)

        async def look(hold: OpenHold) -> Life:
            async with slots:
                return "live" if await self._is_known(hold.tenant, hold.task) else "unknown"

        for hold, life in zip(looked_up, await asyncio.gather(*map(look, looked_up)), strict=True):
            lives[hold.task] = life
        return lives

    async def _is_known(self, tenant: str, task: str) -> bool:
        """Whether anything tells of a task: an attempt, that it was accepted, dispatched or settled, or the queue."""
        platform = self._platform
        for subject in (s.attempts_of(tenant, task), s.task_told(tenant, task)):
            if await platform.direct.last(s.EVENTS, subject) is not None:
                return True
        question = QueueRequest(tenant=tenant, task=task)
        subject = s.queue_of_shard(shard_of(tenant))
        standing = await ask(platform.connection, subject, question, QueueReply, timeout_seconds=ASK_SECONDS)
        return standing.position > 0 or standing.waits_until_ms > 0
