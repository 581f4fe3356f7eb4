"""Fitting confidence anew when enough was judged, and publishing it: one replica at a time, a version for each change.

A tenant with enough judged answers has a policy of its own; what at least three tenants' answers teach together, none
of them more than a third of it, holds for the others, and says nothing of anybody's content. A fit takes seconds, in a
thread, and nothing waits for it. One rule: a version is published once and never changed; where two replicas fit at the
same time, the bucket takes one.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import asyncpg
import structlog
from collegium_bus.errors import AlreadyStandsError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.state import ConfidenceRecord
from collegium_learning.confidence.fitting import LABELS_MIN, fit_policy
from collegium_learning.confidence.policy import EVERYWHERE, encode_policy
from collegium_runtime.platform import Platform
from collegium_store.alone import Job, Rounds
from collegium_telemetry import names

from collegium_evolution.calibration.store import KEEP_DAYS, WORDS_KEPT_DAYS, CalibrationStore, Labels, shared

log = structlog.get_logger(__name__)

EVERY_SECONDS: Final = 10.0
# A tenant with fewer judged answers shares what all have taught.
TENANT_LABELS_MIN: Final = 500
# It is fitted anew when this share more, and at least so many, were judged than for the version that stands.
MORE_SHARE: Final = 0.05
MORE_MIN: Final = 10
# Between two looks for words that are too old.
SWEEP_MS: Final = 3_600_000
_DAY_MS: Final = 86_400_000
_NS_PER_MS: Final = 1_000_000


def is_due(labels: Labels, standing: ConfidenceRecord | None, least: int, now_ms: int) -> bool:
    """Whether there is enough to fit, and enough more than what the standing version was fitted to.

    Answers age out as others come in, so after a day any newer word is enough, however many there are.
    """
    if labels.judged < least:
        return False
    if standing is None:
        return True
    if labels.judged - standing.labels >= max(MORE_MIN, MORE_SHARE * standing.labels):
        return True
    return now_ms - standing.made_at_ms >= _DAY_MS and labels.heard_ns > standing.made_at_ms * _NS_PER_MS


class Calibration:
    """The rounds over one pool."""

    def __init__(self, platform: Platform, pool: asyncpg.Pool) -> None:
        self._platform = platform
        self._store = CalibrationStore(pool)
        self._bucket = Bucket(platform.connection, s.KV_POLICY)
        self._swept_ms = 0
        self._rounds = Rounds(pool, Job.CALIBRATION, self.round, every_seconds=EVERY_SECONDS)
        about = "Expected calibration error of the confidence, on answers that it was not fitted to; of all tenants"
        self._error = platform.metrics.gauges(names.METRIC_CALIBRATION_ERROR, about, ("policy",))[s.CONFIDENCE_KEY]

    def start(self) -> None:
        """Begins with a round."""
        self._rounds.start()

    async def stop(self) -> None:
        """Stops; a round in hand is made again."""
        await self._rounds.stop()

    async def erase(self, tenant: str) -> int:
        """Forgets a tenant's answers and its own policy, and returns how many answers those were.

        What they taught all stays, as numbers by model and domain.
        """
        entry = await self._bucket.get(s.confidence_key(tenant))
        if entry is not None:
            with contextlib.suppress(AlreadyStandsError):
                await self._bucket.delete(entry.key, expected_revision=entry.revision)
        return await self._store.erase(tenant)

    async def round(self) -> None:
        """Forgets what is too old, then fits and publishes what is due."""
        now_ms = self._platform.now_ms()
        await self._store.forget(now_ms - KEEP_DAYS * _DAY_MS)
        if now_ms - self._swept_ms >= SWEEP_MS:
            await self._store.forget_words((now_ms - WORDS_KEPT_DAYS * _DAY_MS) * _NS_PER_MS)
            self._swept_ms = now_ms
        labels = await self._store.labels()
        await self._fit("", shared(labels), LABELS_MIN)
        for tenant in sorted(labels):
            await self._fit(tenant, labels[tenant], TENANT_LABELS_MIN)

    async def _fit(self, tenant: str, labels: Labels, least: int) -> None:
        if labels.judged < least:
            return
        key = s.confidence_key(tenant)
        entry = await self._bucket.get(key)
        standing = _record(entry.value) if entry is not None else None
        if not is_due(labels, standing, least, self._platform.now_ms()):
            return
        cases = await self._store.cases(tenant)
        loss_max = self._platform.settings.routing.cascade_loss_max
        policy = await asyncio.to_thread(fit_policy, cases, loss_max)
        if policy is None:
            return
        record = ConfidenceRecord(
            version=standing.version + 1 if standing is not None else 1,
            made_at_ms=self._platform.now_ms(),
            labels=labels.judged,
            policy=encode_policy(policy),
        )
        try:
            await self._bucket.put(
                key, codec.encode(record), expected_revision=entry.revision if entry is not None else 0
            )
        except AlreadyStandsError:
            log.info("another replica has published confidence", key=key)
            return
        measured = policy.measured.get(EVERYWHERE)
        if not tenant and measured is not None:
            self._error.set(measured.error)
        log.info("confidence published", key=key, version=record.version, labels=record.labels)


def _record(value: bytes) -> ConfidenceRecord | None:
    try:
        record = codec.state.decode(value)
    except ContractError:
        return None
    return record if isinstance(record, ConfidenceRecord) else None
