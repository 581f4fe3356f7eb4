"""Telling of budgets: every round compares what was charged with each budget's thresholds.

A threshold that is passed is logged, and posted to the operator's URL by Standard Webhooks until a receiver takes it,
for a day. The gauge says how much of each budget with thresholds is used. One rule: nothing waits for this, neither a
chat nor a booking.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

import aiohttp
import structlog
from collegium_bus.kv import Bucket, Entry
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.scope import Scope
from collegium_contracts.state import BudgetRecord, TenantRecord
from collegium_contracts.webhooks import key_of, outcome_of, retry_after_ms, signature
from collegium_runtime.platform import Platform
from collegium_telemetry import names

from collegium_billing.errors import QuestionError
from collegium_billing.reports import alerts
from collegium_billing.reports.alert_store import AlertStore, Claimed
from collegium_billing.reports.usage import UsageQuery
from collegium_billing.reports.usage_store import UsageStore

log = structlog.get_logger(__name__)

ROUND_SECONDS = 15.0
POST_SECONDS = 15.0
LEASE_MS = 60_000
POSTED_AT_MOST = 20


class Alerting:
    """Watches budgets; ``start`` and ``stop`` bracket its life."""

    def __init__(self, platform: Platform, reports: UsageStore, store: AlertStore) -> None:
        self._platform = platform
        self._reports = reports
        self._store = store
        self._budgets: dict[str, list[BudgetRecord]] = {}
        self._watch = Bucket(platform.connection, s.KV_TENANTS).watch(self._learn)
        self._used = platform.metrics.gauges(
            names.METRIC_BUDGET_USED, "Share of a budget's window that was charged", ("tenant", "budget")
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Reads the budgets as they stand, then compares them every round."""
        await self._watch.start()
        self._task = asyncio.create_task(self._run(), name="budget-alerts")

    async def stop(self) -> None:
        """Stops; what was told of and not posted is posted by the next."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._watch.stop()

    def _learn(self, entry: Entry) -> None:
        try:
            tenant = codec.state.decode(entry.value)
        except ContractError as error:
            log.warning("tenant unreadable", key=entry.key, error=str(error))
            return
        if isinstance(tenant, TenantRecord):
            self._budgets[tenant.id] = [budget for budget in tenant.budgets if budget.alert_percents]

    async def _run(self) -> None:
        while True:
            try:
                async with self._store.alone() as mine:
                    if mine:
                        await self.look(self._budgets)
                await self.post()
            except Exception as error:  # a round that failed must not end the rounds
                log.warning("budgets not compared", error=type(error).__name__)
            await asyncio.sleep(ROUND_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def look(self, budgets: Mapping[str, list[BudgetRecord]]) -> None:
        """Compares every budget with what was charged, and tells of thresholds that are newly passed."""
        for tenant, all_of_it in list(budgets.items()):
            for budget in all_of_it:
                try:
                    await self._compare(tenant, budget)
                except (QuestionError, TimeoutError) as error:
                    log.warning("budget not compared", tenant=tenant, budget=budget.id, error=type(error).__name__)

    async def _compare(self, tenant: str, budget: BudgetRecord) -> None:
        now_ms = self._platform.now_ms()
        window = alerts.window_of(budget, now_ms)
        asked = UsageQuery(
            Scope(tenant),
            window.from_ms,
            window.to_ms,
            (),
            project=budget.of if budget.scope == "project" else None,
            key_id=budget.of if budget.scope == "key" else None,
        )
        _, totals = await self._reports.usage(asked, now_ms)
        used = totals.charge_picos
        self._used[tenant, budget.id].set(alerts.ratio(budget, used))
        passed = alerts.passed(budget, used)
        if window.began_at_ms == 0:
            await self._store.forget(tenant, budget.id, passed)
        post = self._platform.settings.alerts.webhook_url is not None
        for percent in passed:
            told = alerts.alert(tenant, budget, percent, used, window)
            body = alerts.body(told, now_ms)
            if await self._store.tell(tenant, budget.id, window.began_at_ms, percent, body, now_ms, post=post):
                log.warning(
                    "budget passed a threshold",
                    tenant=tenant,
                    budget=budget.id,
                    percent=percent,
                    used_usd=told.used_usd,
                    limit_usd=told.limit_usd,
                )

    async def post(self) -> None:
        """Posts what is due; whatever happens to this process, a claimed one is due again after its lease."""
        settings = self._platform.settings.alerts
        if settings.webhook_url is None or settings.webhook_secret is None:
            return
        due = await self._store.claim(self._platform.now_ms(), LEASE_MS, POSTED_AT_MOST)
        if not due:
            return
        timeout = aiohttp.ClientTimeout(total=POST_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            key = key_of(settings.webhook_secret.reveal())
            await asyncio.gather(*(self._post(session, settings.webhook_url, key, one) for one in due))

    async def _post(self, session: aiohttp.ClientSession, url: str, key: bytes, one: Claimed) -> None:
        now_ms = self._platform.now_ms()
        message = f"msg_budget_{one.tenant}_{one.budget}_{one.began_at_ms}_{one.percent}_{one.told_at_ms}"
        headers = {
            "content-type": "application/json",
            "user-agent": "collegium-webhooks",
            "webhook-id": message.replace(".", "_"),
            "webhook-timestamp": str(now_ms // 1000),
            "webhook-signature": signature(key, message.replace(".", "_"), now_ms // 1000, one.body),
        }
        try:
            async with session.post(url, data=one.body, headers=headers, allow_redirects=False) as response:
                outcome = outcome_of(response.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("alert not posted", tenant=one.tenant, budget=one.budget, error=type(error).__name__)
            outcome = "refused"
        wait_ms = None
        if outcome == "refused":
            wait_ms = retry_after_ms(one.tries, now_ms - one.told_at_ms, random.random())  # noqa: S311 - jitter
            if wait_ms is None:
                log.error("alert given up", tenant=one.tenant, budget=one.budget, tries=one.tries)
        await self._store.finish(one, now_ms + wait_ms if wait_ms is not None else None)
