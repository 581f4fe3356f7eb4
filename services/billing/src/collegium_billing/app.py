"""Wiring of billing: the pool, the directory of tenants and keys, the answers, the fold of EVENTS."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
from collegium_bus.events import EventLoop
from collegium_bus.kv import Bucket
from collegium_bus.shell import Answering
from collegium_contracts import codec, consumers
from collegium_contracts import subjects as s
from collegium_contracts.messages import JourneyMessage
from collegium_runtime.erasing import Erasing
from collegium_runtime.platform import Platform
from collegium_settings import Settings
from collegium_store import is_unstorable, open_pool
from collegium_telemetry import names

from collegium_billing.audit.trail import AuditTrail
from collegium_billing.books.auditing import Auditor, LawWatch, subjects_of
from collegium_billing.books.fold import Fold
from collegium_billing.books.handlers import LedgerQuestions
from collegium_billing.books.ledger_store import LedgerStore
from collegium_billing.books.purging import Purging
from collegium_billing.books.store import Store
from collegium_billing.books.teachers import Teachers
from collegium_billing.handlers import Questions
from collegium_billing.holds.owner import HoldOwner
from collegium_billing.holds.spending import Spending
from collegium_billing.holds.witness import HoldWitness
from collegium_billing.identity.changes import Changes
from collegium_billing.identity.directory import Directory
from collegium_billing.identity.erasure_store import revoke_all
from collegium_billing.identity.event_erasure import erase_events
from collegium_billing.identity.handlers import IdentityQuestions
from collegium_billing.identity.store import IdentityStore
from collegium_billing.reports.alert_store import AlertStore
from collegium_billing.reports.alerting import Alerting
from collegium_billing.reports.handlers import ReportQuestions
from collegium_billing.reports.invoice_store import InvoiceStore
from collegium_billing.reports.requestlog import RequestLog
from collegium_billing.reports.usage_store import UsageStore

# Each of a transaction's statements then takes the loop for a few milliseconds: holds are answered in between.
MAX_BATCH = 250
# Booking, answers, and two jobs of two connections each.
MAX_CONNECTIONS = 8
# The journal of holds is archived at leisure: nobody waits for its rows.
ARCHIVE_LINGER_SECONDS = 0.5


class BillingApp:
    """Billing as a service."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._open = AsyncExitStack()
        self.audit: AuditTrail | None = None
        self._directory: Directory | None = None
        self._events: EventLoop[JourneyMessage] | None = None
        self._holds: HoldOwner | None = None

    def _pools(self) -> tuple[str, ...]:
        return self._platform.settings.workers.dedicated_pools

    async def start(self) -> None:
        """Publishes tenants and keys, then answers questions and books events."""
        platform = self._platform
        pool = await open_pool(platform.database_url, application_name="collegium-billing", max_size=MAX_CONNECTIONS)
        self._open.push_async_callback(pool.close)
        store = Store(pool)

        identity = IdentityStore(pool)
        self._directory = Directory(identity, Bucket(platform.connection, s.KV_TENANTS), platform.now_ms)
        self._open.push_async_callback(self._directory.stop)
        await self._directory.start(platform.settings.tenants, platform.data_dir)

        async def erase(tenant: str) -> int:
            revoked = await revoke_all(pool, tenant, platform.now_ms())
            await directory.publish(tenant)
            return revoked

        directory, erasing = (
            self._directory,
            Erasing(platform, {"billing": erase, "events": partial(erase_events, platform.connection)}),
        )
        self._open.push_async_callback(erasing.stop)
        await erasing.start()

        platform.on_settings.append(self._use_settings)
        changes = Changes(identity, self._directory.publish_soon, platform.now_ms)
        identities = IdentityQuestions(
            identity,
            self._directory,
            changes,
            lambda: platform.settings.tiers,
            lambda: platform.settings.workers.dedicated_pools,
        )
        self.audit = audit = AuditTrail(platform, pool)
        questions = Questions(store, UsageStore(pool), platform.now_ms)
        reports = ReportQuestions(identity, RequestLog(pool), InvoiceStore(pool), platform.now_ms)
        ledger = LedgerStore(pool)
        auditor = Auditor(ledger, subjects_of(platform.connection), HoldWitness(platform, pool))
        money = LedgerQuestions(identity, ledger, auditor, platform.now_ms)
        handlers = {
            **questions.handlers(),
            **reports.handlers(),
            **identities.handlers(),
            **audit.handlers(),
            **money.handlers(),
        }
        answering = Answering(platform.connection, handlers, is_unstorable)
        self._open.push_async_callback(answering.stop)
        await answering.start()
        self._open.push_async_callback(audit.stop)
        await audit.start()

        spending = Spending(pool)
        journal = EventLoop(
            platform.connection,
            consumers.consumer("holds"),
            codec.journey,
            spending.archive,
            platform.dead_letters,
            max_batch=MAX_BATCH,
            linger_seconds=ARCHIVE_LINGER_SECONDS,
        )
        self._open.push_async_callback(journal.stop)
        journal.start()
        self._holds = HoldOwner(platform, spending.spent)
        self._open.push_async_callback(self._holds.stop)
        await self._holds.start()
        self._holds.watch(platform.metrics)

        watch = LawWatch(auditor, platform.metrics, platform.now_ms)
        self._open.push_async_callback(watch.stop)
        watch.start()

        teachers = Teachers(platform.connection, platform.now_ms)
        self._open.push_async_callback(teachers.stop)
        await teachers.start()
        self._events = EventLoop(
            platform.connection,
            consumers.consumer("billing"),
            codec.journey,
            Fold(store, platform.dead_letters, platform.tracing, platform.metrics, teachers).handle,
            platform.dead_letters,
            max_batch=MAX_BATCH,
        )
        self._open.push_async_callback(self._events.stop)
        self._events.start()
        platform.metrics.watch_gauge(names.METRIC_QUEUE_DEPTH, self._lag)
        await self._start_jobs(pool)

    async def _start_jobs(self, pool: asyncpg.Pool) -> None:
        platform = self._platform
        alerting = Alerting(platform, UsageStore(pool), AlertStore(pool))
        self._open.push_async_callback(alerting.stop)
        await alerting.start()
        purging = Purging(pool, platform.now_ms, lambda: platform.settings)
        self._open.push_async_callback(purging.rounds.stop)
        purging.rounds.start()

    async def _use_settings(self, settings: Settings) -> None:
        if self._directory is not None:
            await self._directory.introduce(settings.tenants)

    async def stop(self) -> None:
        """Takes no more events and questions; what was not committed comes again to the next who asks."""
        await self._open.aclose()
        self._events = None

    def readiness(self) -> dict[str, bool]:
        """Whether events are being booked, and gateways see every tenant as it is."""
        return {
            "booking": self._events is not None,
            "holds": self._holds is not None and self._holds.is_ready,
            "tenants_published": self._directory is not None and not self._directory.unpublished,
        }

    def _lag(self) -> float:
        return self._events.lag if self._events is not None else 0


def build(platform: Platform) -> BillingApp:
    """Builds the service."""
    return BillingApp(platform)
