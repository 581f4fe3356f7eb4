"""Callbacks and their keys in PostgreSQL: ``gateway.webhooks`` and ``gateway.webhook_secrets``.

Times are the database's, so that replicas whose clocks differ agree on what is due. A claim is a lease: it counts a try
and moves the next one behind the lease; the count is the fence, so that whoever lost its lease changes nothing. One
rule: whatever looks at one task or one key names its tenant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec
from collegium_contracts.codec import encode
from collegium_contracts.envelope import Envelope, Keyring
from yarl import URL

from collegium_gateway.webhooks.callbacks import receiver_of
from collegium_gateway.webhooks.values import Candidate, Changes, Secret, Secrets, WebhookState, rotate

_NOW_MS = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
# A task may have settled before its callback was told of: then it is due at once.
_APPLY = f"""
WITH opened AS (
    INSERT INTO gateway.webhooks (task_id, tenant, receiver, callback, state, next_try_at_ms)
    SELECT asked.task_id, asked.tenant, asked.receiver, asked.callback,
           CASE WHEN task.settled IS NULL THEN 'waiting' ELSE 'due' END,
           CASE WHEN task.settled IS NULL THEN NULL ELSE {_NOW_MS} END
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) AS asked (task_id, tenant, receiver, callback)
    LEFT JOIN gateway.tasks AS task ON task.task_id = asked.task_id
    ON CONFLICT (task_id) DO NOTHING
)
UPDATE gateway.webhooks SET state = 'due', next_try_at_ms = {_NOW_MS}
WHERE task_id = ANY($5::text[]) AND state = 'waiting'
"""  # noqa: S608 - constants
# Steps from receiver to receiver along the index, so that the backlog of one costs a step and hides nobody's.
# The last step is always told of, because the next look goes on from there.
_DUE = f"""
WITH RECURSIVE steps (receiver, tenant, number) AS (
    (SELECT receiver, tenant, 1 FROM gateway.webhooks WHERE state = 'due' AND receiver > $1 ORDER BY receiver LIMIT 1)
    UNION ALL
    SELECT next.receiver, next.tenant, steps.number + 1
    FROM steps CROSS JOIN LATERAL (
        SELECT receiver, tenant FROM gateway.webhooks
        WHERE state = 'due' AND receiver > steps.receiver ORDER BY receiver LIMIT 1
    ) AS next
    WHERE steps.number < $2
)
SELECT steps.receiver, steps.tenant, steps.number, due.task_id
FROM steps LEFT JOIN LATERAL (
    SELECT task_id, next_try_at_ms FROM gateway.webhooks
    WHERE state = 'due' AND receiver = steps.receiver AND next_try_at_ms <= {_NOW_MS}
        AND steps.tenant <> ALL($3::text[]) AND steps.receiver <> ALL($4::text[])
    ORDER BY next_try_at_ms LIMIT $5
) AS due ON true
WHERE due.task_id IS NOT NULL OR steps.number = (SELECT max(number) FROM steps)
ORDER BY due.next_try_at_ms
"""  # noqa: S608 - constants
# What was told of a tenant's earlier exports is not looked at again.
_OPEN = f"""
WITH over AS (
    DELETE FROM gateway.webhooks
    WHERE tenant = $2 AND task_id LIKE 'exp\\_%' AND task_id <> $1 AND state IN ('delivered', 'failed', 'gone')
)
INSERT INTO gateway.webhooks (task_id, tenant, receiver, callback, state, next_try_at_ms)
VALUES ($1, $2, $3, $4, 'due', {_NOW_MS}) ON CONFLICT (task_id) DO NOTHING
"""  # noqa: S608 - constants
_CLAIM = f"""
WITH mine AS (
    SELECT task_id FROM gateway.webhooks
    WHERE task_id = ANY($1::text[]) AND state = 'due' AND next_try_at_ms <= {_NOW_MS}
    FOR UPDATE SKIP LOCKED
)
UPDATE gateway.webhooks AS webhook
SET attempts = attempts + 1, next_try_at_ms = {_NOW_MS} + $2, first_try_at_ms = coalesce(first_try_at_ms, {_NOW_MS})
FROM mine WHERE webhook.task_id = mine.task_id
RETURNING webhook.task_id, webhook.tenant, webhook.receiver, webhook.callback, webhook.attempts,
          {_NOW_MS} AS now_ms, {_NOW_MS} - webhook.first_try_at_ms AS tried_for_ms
"""  # noqa: S608 - constants
_FINISH = f"""
UPDATE gateway.webhooks
SET state = $3, last_status = $4, last_error = $5, next_try_at_ms = {_NOW_MS} + $6::bigint
WHERE task_id = $1 AND attempts = $2 AND state = 'due'
"""  # noqa: S608 - constants
_HAND_BACK = f"""
UPDATE gateway.webhooks SET next_try_at_ms = {_NOW_MS}
FROM unnest($1::text[], $2::integer[]) AS held (task_id, attempts)
WHERE webhooks.task_id = held.task_id AND webhooks.attempts = held.attempts AND state = 'due'
"""  # noqa: S608 - constants

# A pause may be told of before its task's callback is, and the other way round: whoever comes second writes it.
_PAUSE = f"""
INSERT INTO gateway.webhooks (task_id, tenant, receiver, callback, state, next_try_at_ms)
SELECT DISTINCT callback.task_id || '.' || asked.stage, callback.tenant, callback.receiver, callback.callback, 'due',
       {_NOW_MS}
FROM gateway.webhooks AS callback JOIN gateway.questions AS asked USING (task_id)
WHERE callback.task_id = ANY($1::text[])
ON CONFLICT (task_id) DO NOTHING
"""  # noqa: S608 - constants

_decode_envelope = msgspec.msgpack.Decoder(Envelope).decode
_decode_secrets = msgspec.msgpack.Decoder(Secrets).decode


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A callback that this gateway may try: which try it is (from 1), the database's time, the time since the first."""

    task_id: str
    tenant: str
    receiver: str
    callback: bytes
    attempts: int
    now_ms: int
    tried_for_ms: int


class WebhookRow(msgspec.Struct, frozen=True, kw_only=True):
    """A callback as it stands."""

    callback: bytes
    state: WebhookState
    attempts: int
    last_status: int | None
    last_error: str | None
    next_try_at_ms: int | None


async def apply_changes(connection: Any, changes: Changes) -> None:
    """Writes what a batch of events changes, in one statement, after the batch's task rows; safe to do twice."""
    opened = changes.opened
    await connection.execute(
        _APPLY,
        [one.task_id for one in opened],
        [one.tenant for one in opened],
        [one.receiver for one in opened],
        [one.callback for one in opened],
        changes.settled,
    )
    asked_for = [*(one.task_id for one in opened), *(task_id for task_id, _ in changes.paused)]
    if changes.paused or any(one.asks_people for one in opened):
        await connection.execute(_PAUSE, asked_for)


def url_of(keyring: Keyring, tenant: str, callback: bytes) -> str:
    """Opens a sealed callback; raises UnknownKeyError where its key is not held."""
    return keyring.open(tenant, _decode_envelope(callback)).decode()


class WebhookStore:
    """Reads and writes callbacks and keys."""

    def __init__(self, pool: asyncpg.Pool, keyring: Keyring) -> None:
        self._pool = pool
        self._keyring = keyring

    async def get(self, tenant: str, task_id: str) -> WebhookRow | None:
        """Returns a task's callback, or none."""
        record = await self._pool.fetchrow(
            "SELECT callback, state, attempts, last_status, last_error, next_try_at_ms FROM gateway.webhooks"
            " WHERE tenant = $1 AND task_id = $2",
            tenant,
            task_id,
        )
        return WebhookRow(**dict(record)) if record is not None else None

    async def due(
        self,
        after: str,
        full_tenants: Sequence[str],
        full_receivers: Sequence[str],
        *,
        receivers: int,
        per_receiver: int,
    ) -> tuple[list[Candidate], str]:
        """Returns what is due, longest first, of the next so many receivers after one, and the last of these.

        Those that have their limit in flight are left out; the last is empty where there was no more to look at.
        """
        records = await self._pool.fetch(_DUE, after, receivers, full_tenants, full_receivers, per_receiver)
        found = [
            Candidate(record["task_id"], record["tenant"], record["receiver"])
            for record in records
            if record["task_id"] is not None
        ]
        last = next((record["receiver"] for record in records if record["number"] == receivers), "")
        return found, last

    async def claim(self, task_ids: Sequence[str], lease_ms: int) -> list[Claim]:
        """Takes those that are still due, for the length of a lease; what another takes at this moment is left out."""
        records = await self._pool.fetch(_CLAIM, task_ids, lease_ms)
        return [Claim(**dict(record)) for record in records]

    async def open_at_once(self, tenant: str, name: str, url: URL) -> None:
        """Keeps a callback that is due now; of the same name once."""
        sealed = encode(self._keyring.seal(tenant, str(url).encode()))
        await self._pool.execute(_OPEN, name, tenant, receiver_of(tenant, url), sealed)

    async def finish(
        self,
        claim: Claim,
        state: WebhookState,
        *,
        status: int | None = None,
        error: str | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        """Writes how a try ended; nothing where the lease was lost to another."""
        await self._pool.execute(_FINISH, claim.task_id, claim.attempts, state, status, error, retry_after_ms)

    async def hand_back(self, claims: Sequence[Claim]) -> None:
        """Ends leases early, so that another gateway goes on at once."""
        await self._pool.execute(_HAND_BACK, [one.task_id for one in claims], [one.attempts for one in claims])

    async def secrets(self, tenant: str, key: bytes, now_ms: int) -> Secrets:
        """Returns a tenant's keys; where there are none, ``key`` becomes the first."""
        stored = await self._pool.fetchval("SELECT keys FROM gateway.webhook_secrets WHERE tenant = $1", tenant)
        if stored is None:
            first = self._seal(tenant, Secrets([Secret(key, now_ms)]))
            stored = await self._pool.fetchval(
                "INSERT INTO gateway.webhook_secrets (tenant, keys) VALUES ($1, $2)"
                # Changes nothing, and returns what another wrote first.
                " ON CONFLICT (tenant) DO UPDATE SET keys = gateway.webhook_secrets.keys RETURNING keys",
                tenant,
                first,
            )
        return self._open(tenant, stored)

    async def rotate(self, tenant: str, key: bytes, now_ms: int, grace_seconds: int) -> Secrets:
        """Puts a new key before a tenant's others, and returns all."""
        async with self._pool.acquire() as connection, connection.transaction():
            # The row is there before it is locked, so that of two first rotations the second waits for the first.
            await connection.execute(
                "INSERT INTO gateway.webhook_secrets (tenant, keys) VALUES ($1, $2) ON CONFLICT (tenant) DO NOTHING",
                tenant,
                self._seal(tenant, Secrets([])),
            )
            stored = await connection.fetchval(
                "SELECT keys FROM gateway.webhook_secrets WHERE tenant = $1 FOR UPDATE", tenant
            )
            rotated = rotate(self._open(tenant, stored), key, now_ms, grace_seconds)
            await connection.execute(
                "UPDATE gateway.webhook_secrets SET keys = $2 WHERE tenant = $1", tenant, self._seal(tenant, rotated)
            )
        return rotated

    def _seal(self, tenant: str, secrets: Secrets) -> bytes:
        return encode(self._keyring.seal(tenant, encode(secrets)))

    def _open(self, tenant: str, stored: bytes) -> Secrets:
        return _decode_secrets(self._keyring.open(tenant, _decode_envelope(stored)))
