"""Sending what is due: every gateway looks, claims a few, posts them, and writes how it went.

A round looks for what is due, chooses fairly (webhooks.py), claims what it chose and starts a request for each. Nothing
waits for a receiver but its own request. One rule: whatever happens to a gateway, a claimed callback is tried again by
somebody when its lease is over.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter

import msgspec
import structlog
from collegium_bus.ask import ask
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.messages import InputRequired
from collegium_contracts.scope import Scope
from collegium_contracts.students import ExportAsk, ExportReply
from collegium_contracts.webhooks import outcome_of, retry_after_ms
from collegium_runtime.platform import Platform
from collegium_telemetry import names
from yarl import URL

from collegium_gateway.readmodel.store import TaskStore
from collegium_gateway.webhooks import values as webhooks
from collegium_gateway.webhooks.client import Answer, DeliveryError, WebhookClient
from collegium_gateway.webhooks.store import Claim, WebhookStore, url_of

log = structlog.get_logger(__name__)

# A gateway is woken by what it projects itself; this is for what others did, and for tries whose time has come.
POLL_SECONDS = 1.0
# So that many short requests share a round.
ROUND_SECONDS = 0.02
# Longer than a request can take.
LEASE_MS = 60_000
# Receivers looked at in one round; the next goes on from there.
MAX_RECEIVERS = 256
DRAIN_SECONDS = 2.0
DURATION_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)


class WebhookSender:
    """The sender of one gateway."""

    def __init__(self, platform: Platform, tasks: TaskStore, store: WebhookStore, client: WebhookClient) -> None:
        self._platform = platform
        self._tasks = tasks
        self._store = store
        self._client = client
        self._wake = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._in_flight: dict[asyncio.Task[None], Claim] = {}
        self._after = ""
        metrics = platform.metrics
        self._count = metrics.counters(names.METRIC_WEBHOOKS, "Webhook requests by how they ended", ("result",))
        self._duration = metrics.histogram(
            names.METRIC_WEBHOOK_DURATION, "From sending a webhook to its receiver's answer", DURATION_BUCKETS
        )
        metrics.watch_gauge(
            names.METRIC_WEBHOOKS_IN_FLIGHT, lambda: len(self._in_flight), "Webhook requests without an answer yet"
        )

    async def start(self) -> None:
        """Starts looking for what is due."""
        await self._client.open()
        self._running = asyncio.create_task(self._run(), name="webhook-sender")

    def wake(self) -> None:
        """Says that something may have become due."""
        self._wake.set()

    async def stop(self) -> None:
        """Takes nothing new, gives requests a moment, and hands back those that are still without an answer."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        if self._in_flight:
            await asyncio.wait(list(self._in_flight), timeout=DRAIN_SECONDS)
        left = dict(self._in_flight)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if left:
            try:
                await self._store.hand_back(list(left.values()))
            except Exception as error:  # their leases end by themselves
                log.warning("webhooks not handed back", count=len(left), error=str(error))
        await self._client.close()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                more = await self._round()
            except Exception as error:  # the database may be away; what is due stays due
                log.warning("no look for due webhooks, trying again", error=str(error))
                more = False
            await asyncio.sleep(ROUND_SECONDS)
            if not more:
                try:
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _round(self) -> bool:
        """Starts what may be sent now; returns whether there may be more."""
        if len(self._in_flight) >= webhooks.MAX_IN_FLIGHT:
            return False
        tenants = Counter(claim.tenant for claim in self._in_flight.values())
        receivers = Counter(claim.receiver for claim in self._in_flight.values())
        candidates, self._after = await self._store.due(
            self._after,
            webhooks.full(tenants, webhooks.MAX_PER_TENANT),
            webhooks.full(receivers, webhooks.MAX_PER_RECEIVER),
            receivers=MAX_RECEIVERS,
            per_receiver=webhooks.MAX_PER_RECEIVER,
        )
        chosen = webhooks.choose(candidates, tenants, receivers, len(self._in_flight))
        if not chosen:
            return self._after != ""
        for claim in await self._store.claim([one.task_id for one in chosen], LEASE_MS):
            task = asyncio.create_task(self._deliver(claim), name="webhook")
            self._in_flight[task] = claim
            task.add_done_callback(self._on_done)
        return True

    def _on_done(self, task: asyncio.Task[None]) -> None:
        del self._in_flight[task]
        self._wake.set()

    async def _deliver(self, claim: Claim) -> None:
        try:
            await self._attempt(claim)
        except Exception as error:  # what cannot be opened or looked up now counts as a try
            log.error("webhook not sent", task=claim.task_id, tenant=claim.tenant, exc_info=error)
            try:
                self._count[await self._write(claim, None, "not_sent")].inc()
            except Exception as second:  # the lease ends by itself
                log.warning("webhook's try not written", task=claim.task_id, error=str(second))

    async def _attempt(self, claim: Claim) -> None:
        body = await self._body(claim)
        if body is None:
            # Erased meanwhile: there is nothing left to tell.
            self._count["failed"].inc()
            await self._store.finish(claim, "failed", error="task_gone")
            return
        url = url_of(self._platform.keyring, claim.tenant, claim.callback)
        key = os.urandom(webhooks.SECRET_BYTES)
        secrets = await self._store.secrets(claim.tenant, key, claim.now_ms)
        headers = webhooks.headers_of(secrets, webhooks.message_id(claim.task_id), body, claim.now_ms)
        began = asyncio.get_running_loop().time()
        answer, error = await self._post(url, body, headers)
        seconds = asyncio.get_running_loop().time() - began
        self._duration.observe(seconds)
        result = await self._write(claim, answer, error)
        self._count[result].inc()
        tell = log.warning if result == "failed" else log.info
        tell(
            "webhook given up" if result == "failed" else "webhook sent",
            task=claim.task_id,
            tenant=claim.tenant,
            host=URL(url).raw_host,
            attempt=claim.attempts,
            result=result,
            status=answer.status if answer is not None else None,
            error=error,
            seconds=round(seconds, 3),
        )

    async def _body(self, claim: Claim) -> bytes | None:
        """Returns what is sent: how a task ended, or whom it waits for; none where it is gone."""
        if webhooks.is_export(claim.task_id):
            return await self._export(claim)
        task_id, _, stage = claim.task_id.partition(".")
        if stage:
            stored = await self._platform.direct.last(s.EVENTS, s.task_paused(claim.tenant, task_id, stage))
            pause = codec.journey.decode(stored.payload) if stored is not None else None
            return webhooks.pause_body(pause) if isinstance(pause, InputRequired) else None
        row = await self._tasks.get(Scope(claim.tenant), task_id)
        return webhooks.body_of(row, self._platform.keyring) if row is not None and row.settled is not None else None

    async def _export(self, claim: Claim) -> bytes | None:
        asked = ExportAsk(id=claim.task_id, tenant=claim.tenant)
        try:
            found = await ask(self._platform.connection, s.SVC_EVOLUTION_STUDENTS, asked, ExportReply)
        except RequestRefusedError as error:
            if error.code == "not_found":
                return None
            raise
        return webhooks.export_body(msgspec.json.decode(found.manifest), found.content)

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> tuple[Answer | None, str | None]:
        try:
            return await self._client.post(url, body, headers), None
        except DeliveryError as error:
            return None, error.code

    async def _write(self, claim: Claim, answer: Answer | None, error: str | None) -> str:
        """Writes how a try ended, and returns its name in the metrics: delivered, gone, retried or failed."""
        status = answer.status if answer is not None else None
        outcome = outcome_of(status) if status is not None else "refused"
        if outcome != "refused":
            await self._store.finish(claim, outcome, status=status)
            return outcome
        asked = answer.retry_after_seconds if answer is not None else 0
        jitter = random.random()  # noqa: S311 - jitter
        wait_ms = retry_after_ms(claim.attempts, claim.tried_for_ms, jitter, asked_seconds=asked)
        state: webhooks.WebhookState = "due" if wait_ms is not None else "failed"
        await self._store.finish(claim, state, status=status, error=error or "status", retry_after_ms=wait_ms)
        return "retried" if wait_ms is not None else "failed"
