"""Telling operators: what is to be told is kept with its id, and posted until a receiver takes it.

By Standard Webhooks to the URL of ``alerts``; without one it is logged and counted where it happens, and nothing is
kept here. One rule: the id is the same at every try, so a receiver can tell what it had already.
"""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any, Final

import aiohttp
import asyncpg
import msgspec
import structlog
from collegium_contracts.webhooks import key_of, outcome_of, retry_after_ms, signature
from collegium_runtime.platform import Platform

log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 5.0
POST_SECONDS: Final = 15.0
LEASE_MS: Final = 60_000
AT_ONCE: Final = 20
# More than a day of changes; whoever does not listen misses what is older.
KEPT_MAX: Final = 2_000
_ID = re.compile(r"[^A-Za-z0-9_-]")

_KEEP: Final = """
INSERT INTO evolution.tellings (id, body, at_ms, due_at_ms)
SELECT $1, $2, $3, $3 WHERE (SELECT count(*) FROM evolution.tellings) < $4 ON CONFLICT DO NOTHING
"""
_CLAIM: Final = """
UPDATE evolution.tellings SET tries = tries + 1, due_at_ms = $1 + $2
WHERE id IN (
    SELECT id FROM evolution.tellings WHERE due_at_ms <= $1 ORDER BY due_at_ms LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING id, body, at_ms, tries
"""
_ERASE: Final = """
DELETE FROM evolution.tellings
WHERE convert_from(body, 'UTF8')::jsonb #>> '{data,tenant}' = $1
   OR starts_with(convert_from(body, 'UTF8')::jsonb #>> '{data,model}', 'head.' || $2)
   OR starts_with(convert_from(body, 'UTF8')::jsonb #>> '{data,model}', 'prompt.' || $2)
"""


async def erase(pool: Any, tenant: str) -> int:
    """Removes what was to be told of a tenant or of its models, and returns how much that was."""
    status: str = await pool.execute(_ERASE, tenant, f"{tenant}.")
    return int(status.rpartition(" ")[2])


class Telling:
    """Posts what operators are told; ``start`` and ``stop`` bracket its life."""

    def __init__(self, platform: Platform, pool: asyncpg.Pool) -> None:
        self._platform = platform
        self._pool = pool
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Posts what is due, and what becomes due."""
        self._task = asyncio.create_task(self._run(), name="telling")

    async def stop(self) -> None:
        """Stops; what was not posted is posted by the next."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def tell(self, message_id: str, kind: str, about: dict[str, Any]) -> None:
        """Keeps something to be posted where operators want it; the same id again changes nothing."""
        if self._platform.settings.alerts.webhook_url is None:
            return
        now_ms = self._platform.now_ms()
        body = msgspec.json.encode({"type": kind, "timestamp": now_ms // 1000, "data": about})
        await self._pool.execute(_KEEP, _ID.sub("_", message_id)[:200], body, now_ms, KEPT_MAX)

    async def post(self) -> None:
        """Posts what is due; whatever happens to this process, a claimed one is due again after its lease."""
        alerts = self._platform.settings.alerts
        if alerts.webhook_url is None or alerts.webhook_secret is None:
            return
        due = await self._pool.fetch(_CLAIM, self._platform.now_ms(), LEASE_MS, AT_ONCE)
        if not due:
            return
        timeout = aiohttp.ClientTimeout(total=POST_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            key = key_of(alerts.webhook_secret.reveal())
            await asyncio.gather(*(self._post(session, alerts.webhook_url, key, one) for one in due))

    async def _run(self) -> None:
        while True:
            try:
                await self.post()
            except Exception as error:  # a round that failed must not end the rounds
                log.warning("operators not told, trying again", error=type(error).__name__)
            await asyncio.sleep(ROUND_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def _post(self, session: aiohttp.ClientSession, url: str, key: bytes, one: asyncpg.Record) -> None:
        now_ms = self._platform.now_ms()
        message, body = f"msg_{one['id']}", bytes(one["body"])
        headers = {
            "content-type": "application/json",
            "user-agent": "collegium-webhooks",
            "webhook-id": message,
            "webhook-timestamp": str(now_ms // 1000),
            "webhook-signature": signature(key, message, now_ms // 1000, body),
        }
        try:
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                outcome = outcome_of(response.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("operators not told", id=one["id"], error=type(error).__name__)
            outcome = "refused"
        wait_ms = None
        if outcome == "refused":
            wait_ms = retry_after_ms(one["tries"], now_ms - one["at_ms"], random.random())  # noqa: S311 - jitter
        if wait_ms is not None:
            statement = "UPDATE evolution.tellings SET due_at_ms = $2 WHERE id = $1"
            await self._pool.execute(statement, one["id"], now_ms + wait_ms)
            return
        if outcome == "refused":
            log.error("telling given up", id=one["id"], tries=one["tries"])
        await self._pool.execute("DELETE FROM evolution.tellings WHERE id = $1", one["id"])
