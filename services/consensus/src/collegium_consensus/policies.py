"""What was learned about confidence, as it stands in the bucket ``policy``: a tenant's own, else everybody's.

A value that cannot be used is refused as a whole and counted; the last good one stays. One rule: without a policy
confidence is a stated prior, and everything goes on.
"""

from __future__ import annotations

from typing import NamedTuple

import structlog
from collegium_bus.kv import Bucket, Entry
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.state import ConfidenceRecord
from collegium_learning.confidence.policy import ConfidencePolicy, PolicyError, decode_policy
from collegium_runtime.platform import Platform
from collegium_telemetry import names

log = structlog.get_logger(__name__)


class Learned(NamedTuple):
    """A policy, and how it is called where a verdict says by which it was made."""

    policy: ConfidencePolicy | None
    version: str


NOTHING = Learned(None, "")


class Policies:
    """Follows the bucket."""

    def __init__(self, platform: Platform) -> None:
        self._known: dict[str, Learned] = {}
        self._revisions: dict[str, int] = {}
        self._watch = Bucket(platform.connection, s.KV_POLICY).watch(self.use, self.forget)
        about = "Published policies that could not be used; the last good one stays"
        self._refused = platform.metrics.counters(names.METRIC_POLICY_REFUSED, about, ("policy",))[s.CONFIDENCE_KEY]

    async def start(self) -> None:
        """Reads what stands, and follows what changes."""
        await self._watch.start()

    async def stop(self) -> None:
        """Stops."""
        await self._watch.stop()

    def of(self, tenant: str) -> Learned:
        """Returns what holds for a tenant."""
        return self._known.get(s.confidence_key(tenant)) or self._known.get(s.CONFIDENCE_KEY, NOTHING)

    def use(self, entry: Entry) -> None:
        """Takes a value, where it is one of confidence and newer than what stands."""
        if entry.key.split(".")[0] != s.CONFIDENCE_KEY or entry.revision <= self._revisions.get(entry.key, 0):
            return
        self._revisions[entry.key] = entry.revision
        try:
            record = codec.state.decode(entry.value)
            if not isinstance(record, ConfidenceRecord):
                raise PolicyError(f"{type(record).__name__} is no policy")
            policy = decode_policy(record.policy)
        except (ContractError, PolicyError) as error:
            self._refused.inc()
            log.error("confidence policy refused, keeping the last good one", key=entry.key, error=str(error))
            return
        whose = "tenant" if "." in entry.key else "all"
        self._known[entry.key] = Learned(policy, f"{whose}/{record.version}")
        log.info("confidence policy taken", key=entry.key, version=record.version)

    def forget(self, entry: Entry) -> None:
        """Forgets what was learned under a key that was deleted, unless a newer value stands there."""
        if entry.revision > self._revisions.get(entry.key, entry.revision):
            self._known.pop(entry.key, None)
            del self._revisions[entry.key]
