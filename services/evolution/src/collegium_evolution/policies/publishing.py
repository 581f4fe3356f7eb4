"""Policies live and taken back: the table says which version is live, the bucket is made to say the same.

Killed between the two, the next round makes the bucket say it. One rule: a version that an operator chose stays until
an operator lets it go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg
import msgspec
import structlog
from collegium_bus.errors import BusError, RequestRefusedError, TooLargeError
from collegium_bus.kv import VALUE_BYTES_MAX, Bucket
from collegium_contracts.codec import encode, state
from collegium_contracts.errors import ContractError
from collegium_contracts.policies import RoutingPolicy, routing_key
from collegium_contracts.policy_requests import PolicyRelease, PolicyRollback, PolicyRow
from collegium_runtime.failpoints import failpoint

from collegium_evolution.policies import policy_store
from collegium_evolution.policies.policy_store import Stored
from collegium_evolution.policies.views import row_of

log = structlog.get_logger(__name__)


class Publishing:
    """Writes the bucket ``policy`` and the table of policies."""

    def __init__(self, pool: Any, bucket: Bucket, now_ms: Callable[[], int]) -> None:
        self._pool = pool
        self._bucket = bucket
        self._now_ms = now_ms

    async def keep(self, policy: RoutingPolicy, row: PolicyRow, heard_ns: int) -> bool:
        """Stores a version and makes a live one live; false where another stands meanwhile.

        Another replica's, or one that an operator chose. Raises TooLargeError where it is no value of a bucket.
        """
        value = encode(policy)
        if len(value) > VALUE_BYTES_MAX:
            raise TooLargeError(f"a policy of {len(value)} bytes is over {VALUE_BYTES_MAX}")
        try:
            await policy_store.put(self._pool, Stored(row, value, heard_ns))
        except asyncpg.UniqueViolationError:
            return False
        failpoint("evolution.after-keep")
        if row.state == "live":
            await self._bucket.put(routing_key(policy.tenant), value)
            failpoint("evolution.after-publish")
        return True

    async def mend(self) -> int:
        """Writes what the bucket lacks of live policies, or holds otherwise; returns how many that were.

        What cannot be written now is told, and tried again in the next round.
        """
        mended = 0
        for stored in await policy_store.live(self._pool):
            try:
                mended += await self._mend(stored)
            except BusError as error:
                log.error("policy not mended", tenant=stored.row.tenant, version=stored.row.version, error=str(error))
        return mended

    async def _mend(self, stored: Stored) -> bool:
        key = routing_key(stored.row.tenant)
        try:
            standing = await self._bucket.get(key)
        except ContractError:
            # A value that was put aside, which is gone.
            standing = None
        is_other = standing is None or standing.value != stored.value
        if is_other:
            await self._bucket.put(key, stored.value)
        return is_other

    async def roll_back(self, asked: PolicyRollback) -> PolicyRow:
        """Makes an earlier version live again, under a new number, and keeps it there."""
        (live, *_) = await policy_store.live(self._pool, asked.tenant) or [None]
        if live is None:
            raise RequestRefusedError("not_found", f"no policy of {asked.tenant} is live", "tenant")
        origin = 0
        if asked.version == 0:
            policy = RoutingPolicy(version=0, tenant=asked.tenant, created_at_ms=0, models=[], everywhere=[])
        else:
            found = await self._gone_back_to(asked, live.row)
            if found is None:
                text = f"{asked.tenant} has no such version of a policy; see collegium policy history"
                raise RequestRefusedError("not_found", text, "version")
            policy = _policy(found)
            origin = found.row.rolled_back_to or found.row.version
        why = f"version {policy.version} chosen instead of {live.row.version}"
        chosen = msgspec.structs.replace(
            policy,
            version=await policy_store.next_version(self._pool, asked.tenant),
            created_at_ms=self._now_ms(),
            pinned=True,
            rolled_back_from=live.row.version,
        )
        row = msgspec.structs.replace(row_of(chosen, "live", why, by=asked.by), rolled_back_to=origin)
        if not await self.keep(chosen, row, live.heard_ns):
            text = f"the policy of {asked.tenant} changed meanwhile; ask again"
            raise RequestRefusedError("policy_conflict", text, "tenant")
        log.info("policy rolled back", tenant=asked.tenant, version=chosen.version, instead_of=live.row.version)
        return row

    async def _gone_back_to(self, asked: PolicyRollback, live: PolicyRow) -> Stored | None:
        """Returns the version that is asked for, or the one that was live before what is live was first."""
        if asked.version is not None:
            return await policy_store.version(self._pool, asked.tenant, asked.version)
        return await policy_store.live_before(self._pool, asked.tenant, live.rolled_back_to or live.version)

    async def release(self, asked: PolicyRelease) -> PolicyRow:
        """Lets newer versions take a chosen one's place again, from the next round on."""
        (live, *_) = await policy_store.live(self._pool, asked.tenant) or [None]
        if live is None:
            raise RequestRefusedError("not_found", f"no policy of {asked.tenant} is live", "tenant")
        policy = msgspec.structs.replace(_policy(live), pinned=False)
        row = msgspec.structs.replace(live.row, pinned=False, by=asked.by)
        value = encode(policy)
        await policy_store.change(self._pool, Stored(row, value, live.heard_ns))
        await self._bucket.put(routing_key(asked.tenant), value)
        return row

    async def erase(self, tenant: str) -> int:
        """Removes a tenant's policies from table and bucket; returns how many there were."""
        removed = await policy_store.erase(self._pool, tenant)
        key = routing_key(tenant)
        standing = await self._bucket.get(key)
        if standing is not None:
            await self._bucket.delete(key, expected_revision=standing.revision)
            await self._bucket.remove(key, revision=standing.revision)
            removed += 1
        return removed


def _policy(stored: Stored) -> RoutingPolicy:
    try:
        policy = state.decode(stored.value)
    except ContractError as error:
        raise RequestRefusedError("policy_conflict", f"version {stored.row.version} cannot be read: {error}") from error
    assert isinstance(policy, RoutingPolicy), "the table holds policies"
    return policy
