"""What is stored of each tenant, over all services, beside what its tier allows.

    book = StorageBook(platform); await book.start()
    if (reason := book.refusal(tenant, tier)) is not None: ...refuse with the code ``storage_full``

Services that store publish their part in the bucket ``storage`` (storage_count.py); here it is followed, so that a
question costs no query, and its answer is a few seconds old. One rule: what is counted is content that stays until
somebody removes it; what expires by itself (claims, cached answers, idempotency keys) is not.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from collegium_bus.kv import Bucket, Entry
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.state import StorageUse

from collegium_runtime.platform import Platform

log = structlog.get_logger(__name__)


class StorageBook:
    """Every tenant's use, followed."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._parts: dict[str, dict[str, StorageUse]] = {}
        self._watch = Bucket(platform.connection, s.KV_STORAGE).watch(self._learn)

    async def start(self) -> None:
        """Reads what stands, then follows."""
        await self._watch.start()

    async def stop(self) -> None:
        """Stops following."""
        await self._watch.stop()

    def parts(self, tenant: str) -> Mapping[str, StorageUse]:
        """What each service stores of a tenant, by its name."""
        return self._parts.get(tenant, {})

    def used_bytes(self, tenant: str) -> int:
        """What all services store of a tenant."""
        return sum(part.bytes for part in self.parts(tenant).values())

    def limit_bytes(self, tier: str) -> int | None:
        """What a tier allows; none where the configuration does not know the tier."""
        known = self._platform.settings.tiers.get(tier)
        return known.storage_bytes if known is not None else None

    def left_bytes(self, tenant: str, tier: str) -> int | None:
        """What a tenant may still store, at least 0; none where there is no limit."""
        limit = self.limit_bytes(tier)
        return None if limit is None else max(0, limit - self.used_bytes(tenant))

    def refusal(self, tenant: str, tier: str, more_bytes: int = 1) -> str | None:
        """Returns why a tenant may not store ``more_bytes`` more, with what to do; none where it may."""
        left, limit = self.left_bytes(tenant, tier), self.limit_bytes(tier)
        if left is None or more_bytes <= left:
            return None
        return (
            f"tenant {tenant} stores {self.used_bytes(tenant)} bytes of the {limit} that its tier {tier} allows, and"
            " this would store more; delete what is not needed, or ask the operator for a larger tier; a chat without"
            " a conversation goes on"
        )

    def _learn(self, entry: Entry) -> None:
        try:
            use = codec.state.decode(entry.value)
        except ContractError as error:
            log.error("use of storage unreadable, keeping the last good value", key=entry.key, error=str(error))
            return
        if isinstance(use, StorageUse):
            self._parts.setdefault(use.tenant, {})[use.part] = use
