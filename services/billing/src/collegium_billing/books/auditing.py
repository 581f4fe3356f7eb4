"""Asking whether the money laws hold: on demand, and every few minutes over what is recent.

One rule: a law that cannot be checked is not a law that holds; the time of the last whole check is a metric of its own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

import structlog
from collegium_bus.connection import Connection
from collegium_bus.lookup import subject_at
from collegium_contracts import subjects as s
from collegium_telemetry import names
from collegium_telemetry.metrics import Metrics

from collegium_billing.books.laws import ARCHIVE_GAPS, HOLDS, LAWS, Law
from collegium_billing.books.ledger_store import LedgerStore

log = structlog.get_logger(__name__)

CHECK_SECONDS: Final = 240.0
# How far back a check looks: what came late is seen by several checks.
WINDOW_MS: Final = 30 * 60_000
# Redelivery closes gaps by itself for this long.
SETTLE_MS: Final = 120_000
GAPS_MAX: Final = 200
_EXAMPLES: Final = 3
_AGAIN: Final = s.again_of("billing").partition(".")[0]


class Finding(NamedTuple):
    """How one law stands."""

    law: Law
    violations: int
    examples: Sequence[str]


class Holds(Protocol):
    """Who knows which open holds belong to no live task."""

    async def violations(self, now_ms: int) -> list[str]:
        """Returns what is wrong with which; raises QuestionError where that cannot be told."""
        ...


class Auditor:
    """Checks the laws over a time; ``subject_of`` says under which subject a message of EVENTS stands, or none."""

    def __init__(
        self, store: LedgerStore, subject_of: Callable[[int], Awaitable[str | None]], holds: Holds | None = None
    ) -> None:
        self._store = store
        self._subject_of = subject_of
        self._holds = holds

    async def audit(self, from_ms: int, to_ms: int, now_ms: int | None = None) -> list[Finding]:
        """Returns how every law stands for [from, to), and with ``now_ms`` also the law of the holds that are open.

        Raises TimeoutError where the books take too long.
        """
        found: list[Finding] = []
        if self._holds is not None and now_ms is not None:
            wrong = await self._holds.violations(now_ms)
            found.append(Finding(HOLDS, len(wrong), wrong[:_EXAMPLES]))
        for law in LAWS:
            if law.name == ARCHIVE_GAPS:
                gaps = await self._unexplained(await self._store.violations(law, from_ms, to_ms, GAPS_MAX))
                found.append(Finding(law, len(gaps), gaps[:_EXAMPLES]))
                continue
            count, examples = await self._store.count_violations(law, from_ms, to_ms, _EXAMPLES)
            found.append(Finding(law, count, examples))
        return found

    async def _unexplained(self, gaps: Sequence[str]) -> list[str]:
        """Leaves out what is no event of billing's: letters that others asked to have again."""
        left: list[str] = []
        for gap in gaps:
            first, last = map(int, gap.split("-"))
            for sequence in range(first, min(last, first + GAPS_MAX) + 1):
                subject = await self._subject_of(sequence)
                if subject is None:
                    left.append(f"EVENTS {gap}: not in the stream any more")
                    break
                if not subject.startswith(f"{_AGAIN}.") or subject.startswith(s.again_of("billing").rstrip(">")):
                    left.append(f"EVENTS {sequence}: {subject}")
                if len(left) >= GAPS_MAX:
                    return left
        return left


def subjects_of(connection: Connection) -> Callable[[int], Awaitable[str | None]]:
    """Returns what reads the subject of one message of EVENTS."""
    return lambda sequence: subject_at(connection, s.EVENTS, sequence)


class LawWatch:
    """Checks the laws every CHECK_SECONDS over the last half hour and tells metrics and log."""

    def __init__(self, auditor: Auditor, metrics: Metrics, now_ms: Callable[[], int]) -> None:
        self._auditor = auditor
        self._now_ms = now_ms
        self._violations = metrics.gauges(
            names.METRIC_LAW_VIOLATIONS, "Places where a money law is broken, at the last check", ("law",)
        )
        self._checked_ms = 0
        metrics.watch_gauge(
            names.METRIC_LAWS_CHECKED, lambda: self._checked_ms / 1000, "When the money laws were last checked"
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins checking."""
        self._task = asyncio.create_task(self._run(), name="billing-laws")

    async def stop(self) -> None:
        """Ends checking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def check(self) -> None:
        """Checks once."""
        now_ms = self._now_ms()
        to_ms = now_ms - SETTLE_MS
        for finding in await self._auditor.audit(to_ms - WINDOW_MS, to_ms, now_ms):
            self._violations[finding.law.name].set(finding.violations)
            if finding.violations:
                log.error(
                    "a money law is broken",
                    law=finding.law.name,
                    violations=finding.violations,
                    examples=list(finding.examples),
                )
        self._checked_ms = self._now_ms()

    async def _run(self) -> None:
        while True:
            # Jitter, so that replicas do not all look at the same moment.
            await asyncio.sleep(random.uniform(0.5, 1.0) * CHECK_SECONDS)  # noqa: S311 - jitter
            try:
                await self.check()
            except Exception as error:  # whatever failed, the next check may succeed, and the metric's age tells
                log.warning("money laws not checked", error=str(error) or type(error).__name__)
