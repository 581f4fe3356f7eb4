"""Telling the audit trail: what a service records reaches AUDIT at least once, and never holds up a request.

``record`` puts an entry into a bounded buffer, which is published in batches about FLUSH_SECONDS later and tried again
for as long as it takes. ``record_now`` publishes at once and returns when the entry stands: for acts that may not
happen unrecorded. A full buffer drops the newest and counts; the count is recorded as soon as there is room. What can
never be stored (its tenant is no id, or the broker's rights forbid it) is logged as an error, counted, and told in the
platform's own chain, and the others go on: nothing is lost in silence. One rule: an entry's id is made once, so however
often it is published it is sealed once.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Final

import structlog
from collegium_bus.errors import BusError, NotPermittedError, TooLargeError
from collegium_bus.publisher import Publisher
from collegium_contracts import audit as a
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.audit import AuditEntry, Outcome
from collegium_contracts.errors import ContractError
from collegium_telemetry import names

from collegium_runtime.platform import Platform, unix_ms

log = structlog.get_logger(__name__)

FLUSH_SECONDS: Final = 0.05
BUFFER_MAX: Final = 10_000  # about 10 MB
BATCH: Final = 64
# Less than the patience of whoever asked for an act.
NOW_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 5.0
DRAIN_SECONDS: Final = 3.0


class AuditUnavailableError(Exception):
    """The entry may not stand: the broker does not answer, or AUDIT is full; retryable."""

    code = "audit_unavailable"


class Audit:
    """One service's way to the audit trail; ``lost`` counts what was not kept since the start.

    That is what a full buffer dropped, and what can never be stored.
    """

    def __init__(self, publisher: Publisher, service: str, now_ms: Callable[[], int] = unix_ms) -> None:
        self._publisher = publisher
        self._service = service
        self._now_ms = now_ms
        self._buffer: deque[AuditEntry] = deque()
        self._dropped: Counter[str] = Counter()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.lost = 0

    @classmethod
    def of(cls, platform: Platform) -> Audit:
        """Returns the recorder of a service, with its metrics; call its ``stop`` before the connection closes."""
        audit = cls(platform.publisher, platform.service, platform.now_ms)
        platform.metrics.watch_gauge(names.METRIC_AUDIT_WAITING, lambda: audit.waiting, "Audit entries not yet stored")
        platform.metrics.watch_gauge(
            names.METRIC_AUDIT_LOST, lambda: audit.lost, "Audit entries that found no room or can never be stored"
        )
        return audit

    @property
    def waiting(self) -> int:
        """How many entries are buffered."""
        return len(self._buffer)

    def entry(
        self,
        tenant: str,
        actor: str,
        action: str,
        outcome: Outcome = "done",
        *,
        object: str = "",  # noqa: A002 - the field's name
        reason: str = "",
        details: Mapping[str, str] | None = None,
        trace: str = "",
        count: int = 1,
    ) -> AuditEntry:
        """Makes an entry with an id and the time of now; its texts are cut and cleaned to what may be stored."""
        now = self._now_ms()
        return a.bounded(
            AuditEntry(
                id=ids.audit_id(now, os.urandom(10)),
                tenant=tenant or a.PLATFORM,
                service=self._service,
                actor=actor,
                action=action,
                outcome=outcome,
                at_ms=now,
                object=object,
                reason=reason,
                details=dict(details or {}),
                trace=trace,
                count=count,
            )
        )

    def record(self, entry: AuditEntry) -> None:
        """Takes an entry to be stored soon; returns at once."""
        if len(self._buffer) >= BUFFER_MAX:
            if not self._dropped:
                log.error("audit entries find no room and are counted only", waiting=len(self._buffer))
            self.lost += 1
            self._dropped[entry.tenant] += 1
            return
        self._buffer.append(entry)
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._flush(), name="audit")

    async def record_now(self, entry: AuditEntry, *, budget_seconds: float = NOW_SECONDS) -> None:
        """Stores an entry and returns when it stands; raises AuditUnavailableError."""
        try:
            await self._publish(entry, budget_seconds)
        except (BusError, ContractError) as error:
            raise AuditUnavailableError(f"the audit trail cannot be written: {error}") from error

    async def stop(self) -> None:
        """Stores what is buffered, for at most DRAIN_SECONDS; what is left is logged by count."""
        if self._task is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN_SECONDS
        while self._buffer and loop.time() < deadline:  # noqa: ASYNC110 - bounded, and only at the end
            await asyncio.sleep(0.01)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        if self._buffer:
            log.error("audit entries not stored before the end", entries=len(self._buffer))

    async def _flush(self) -> None:
        pause = 0.0
        while True:
            await self._wake.wait()
            await asyncio.sleep(FLUSH_SECONDS + pause)
            batch = [self._buffer[number] for number in range(min(BATCH, len(self._buffer)))]
            results = await asyncio.gather(
                *(self._publish(entry, NOW_SECONDS) for entry in batch), return_exceptions=True
            )
            refused: list[tuple[AuditEntry, BaseException]] = []
            for entry, result in zip(batch, results, strict=True):
                self._buffer.popleft()
                if result is None:
                    continue
                if _is_final(result):
                    self._give_up(entry, result)
                else:
                    refused.append((entry, result))
            # To the end, so that a tenant whose share is full does not hold up the others.
            self._buffer.extend(entry for entry, _ in refused)
            pause = self._pause(pause, refused)
            self._tell_dropped()
            if not self._buffer:
                self._wake.clear()

    def _give_up(self, entry: AuditEntry, error: BaseException) -> None:
        """Tells of an entry that will never be stored: in the log, by count, and in the platform's own chain."""
        told = {
            "action": entry.action,
            "tenant": a.printable(entry.tenant),
            "object": entry.object,
            "actor": entry.actor,
            "outcome": entry.outcome,
        }
        log.error(
            "an audit entry can never be stored", **told, count=entry.count, reason=entry.reason, error=str(error)
        )
        if entry.action == a.LOST:
            # What it tells of was counted; another one of it would be refused as well.
            return
        self.lost += 1
        service = f"service:{self._service}"
        self.record(self.entry(a.PLATFORM, service, a.LOST, "failed", reason="never_stored", details=told))

    def _pause(self, pause: float, refused: list[tuple[AuditEntry, BaseException]]) -> float:
        if not refused:
            return 0.0
        log.warning("audit entries not stored, trying again", entries=len(refused), error=str(refused[0][1]))
        longest = min(LONGEST_PAUSE_SECONDS, max(0.2, pause * 2))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    def _tell_dropped(self) -> None:
        if not self._dropped or len(self._buffer) >= BUFFER_MAX // 2:
            return
        dropped, self._dropped = self._dropped, Counter()
        for tenant, count in dropped.items():
            actor = f"service:{self._service}"
            self.record(self.entry(tenant, actor, a.LOST, "failed", reason="buffer_full", count=count))

    async def _publish(self, entry: AuditEntry, budget_seconds: float) -> None:
        await self._publisher.publish(
            s.audit(entry.tenant),
            codec.encode(entry),
            message_id=entry.id,
            headers={s.H_TENANT: entry.tenant},
            budget_seconds=budget_seconds,
        )


def _is_final(error: BaseException) -> bool:
    """Whether an entry will be refused however often it is published."""
    # InvalidSubjectError is a ValueError. A refusal of another kind may be the broker's own trouble, and passes.
    return isinstance(error, NotPermittedError | TooLargeError | ContractError | ValueError)
