"""What the sealer does every now and then: signing where chains stand, and pruning what is over its time.

A round of anchors signs the end of every chain that moved since its last anchor, and records in the platform's own
chain a digest over the ends of all of them, so that a chain that vanished as a whole is missed. One rule: what is
pruned is covered by a signed checkpoint before the first record goes, and the tenant's own chain says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import structlog
from collegium_contracts import audit as a
from collegium_contracts.audit import AuditEntry, Signed
from collegium_contracts.audit_chain import heads_digest
from collegium_runtime.audit_keys import AuditKeys, AuditSigner
from collegium_runtime.platform import Platform

from collegium_billing.audit.sealing import Arrived, Head, place
from collegium_billing.audit.store import AuditStore, Cursor

log = structlog.get_logger(__name__)

DAY_MS: Final = 86_400_000
PRUNE_SECONDS: Final = 3600.0

Link = Callable[[Cursor, str, Sequence[Arrived]], Awaitable[dict[str, Head]]]


class Upkeep:
    """Anchors and prunes when it is time to; one sealer runs it."""

    def __init__(
        self,
        platform: Platform,
        store: AuditStore,
        signer: AuditSigner,
        keys: AuditKeys,
        make: Callable[..., AuditEntry],
        link: Link,
    ) -> None:
        self._platform = platform
        self._store = store
        self._signer = signer
        self._keys = keys
        self._make = make
        self._link = link
        self._anchored_at: float | None = None
        self._pruned_at: float | None = None

    async def run(self, epoch: int, stream: str) -> None:
        """Does what is due; the first round of anchors is made at once."""
        settings = self._platform.settings.audit
        now = asyncio.get_running_loop().time()
        if self._anchored_at is None or now - self._anchored_at >= settings.anchor_seconds:
            await self.anchor(epoch, stream)
            self._anchored_at = now
        if settings.retention_days is None:
            return
        if self._pruned_at is None or now - self._pruned_at >= PRUNE_SECONDS:
            await self.prune(epoch, stream, self._platform.now_ms() - settings.retention_days * DAY_MS)
            self._pruned_at = now

    async def anchor(self, epoch: int, stream: str) -> int:
        """Signs where chains stand; returns the round, 0 where nothing moved."""
        now = self._platform.now_ms()
        async with self._store.sealing(epoch) as cursor:
            last = await cursor.last_anchors()
            ends = [end.signed for end in (await cursor.ends()).values() if end.signed is not None]
            # What somebody else wrote for an end is not signed a second time; the sealer and a check tell of it.
            sound = [one for one in ends if self._keys.fault(one) is None]
            moved = [one for one in sound if one.tenant not in last or one.seq > last[one.tenant].seq]
            if not moved:
                return 0
            number = 1 + max((one.round for one in last.values()), default=0)
            anchors = {
                one.tenant: self._sign("anchor", one.tenant, Head(one.seq, one.hash), now, number)
                for one in moved
                if one.tenant != a.PLATFORM
            }
            covered = {**last, **anchors}
            covered.pop(a.PLATFORM, None)
            digest = heads_digest((one.tenant, one.seq, one.hash) for one in covered.values())
            details = {"round": str(number), "chains": str(len(covered)), "digest": digest}
            told = Arrived(self._make(a.ANCHORED, details=details), 0)
            head = (await self._link(cursor, stream, [told]))[a.PLATFORM]
            await cursor.add_anchors([*anchors.values(), self._sign("anchor", a.PLATFORM, head, now, number)])
        # Whoever keeps this line elsewhere can tell later whether the trail was made anew.
        log.info("audit anchored", round=number, digest=digest, head=head.hash, key=self._signer.key_id)
        return number

    async def prune(self, epoch: int, stream: str, before_ms: int) -> int:
        """Removes what was sealed before a time; returns how many records went."""
        async with self._store.sealing(epoch) as cursor:
            due = await cursor.prunable(before_ms)
            covered = await cursor.checkpoints()
        removed = 0
        for tenant, head in due.items():
            if head.seq > covered.get(tenant, 0):
                await self._cover(epoch, stream, tenant, head)
            while True:
                async with self._store.sealing(epoch) as cursor:
                    gone = await cursor.delete_through(tenant, head.seq)
                removed += gone
                if gone == 0:
                    break
        if removed:
            log.info("audit records pruned", records=removed, chains=len(due))
        return removed

    async def _cover(self, epoch: int, stream: str, tenant: str, head: Head) -> None:
        now = self._platform.now_ms()
        details = {"through": str(head.seq), "hash": head.hash}
        async with self._store.sealing(epoch) as cursor:
            await self._link(cursor, stream, [Arrived(self._make(a.PRUNED, tenant=tenant, details=details), 0)])
            await cursor.set_checkpoint(self._sign("checkpoint", tenant, head, now, 0))

    def _sign(self, kind: Any, tenant: str, head: Head, at_ms: int, number: int) -> Signed:
        return place(kind, tenant, head, at_ms=at_ms, round_=number, sign=self._signer.sign)
