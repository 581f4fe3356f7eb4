"""What the doors do: submit, wait, stream, look up, cancel. HTTP and gRPC are two ways to call this.

One rule: a task is accepted when INGRESS, or SCHEDULE for one that may begin later, has acknowledged it, and not
before; from then on it is found from any replica.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec
import structlog
from collegium_bus.errors import BusError
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.messages import (
    CancelRequested,
    SettledMessage,
    TaskAccepted,
    TaskDispatched,
    TaskRef,
    TaskSubmitted,
)
from collegium_contracts.scope import Scope
from collegium_gates.deciding import MAX_GROWTH_BYTES
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform
from collegium_telemetry.tracing import Hop
from yarl import URL

from collegium_gateway.admission import Asked, submission
from collegium_gateway.callbacks import check_url, receiver_of
from collegium_gateway.directory import Directory
from collegium_gateway.errors import ApiError, from_bus
from collegium_gateway.feedback import not_settled
from collegium_gateway.gating import Gating
from collegium_gateway.holding import Admission, OnRates
from collegium_gateway.livetext import LiveText, Piece
from collegium_gateway.originals import with_outputs
from collegium_gateway.principal import Principal
from collegium_gateway.queueing import QueueLook
from collegium_gateway.readmodel import TERMINAL, State
from collegium_gateway.scheduling import Scheduling
from collegium_gateway.store import TaskStore
from collegium_gateway.views import TaskView, open_view, queued_view, settled_view, task_view
from collegium_gateway.waiting import Waiting

log = structlog.get_logger(__name__)

CANCEL_WAIT_SECONDS = 3.0
CANCEL_POLL_SECONDS = 0.02
# Turns of the loop from asking for a hold until the question is with the broker.
TURNS_TO_ASK = 5

Stored = Callable[[], Awaitable[None]]
Told = Callable[[SettledMessage | None], None]


def _result(done: asyncio.Future[SettledMessage]) -> SettledMessage | None:
    return None if done.cancelled() or done.exception() is not None else done.result()


class Tasks:
    """The gateway's use cases."""

    def __init__(
        self, platform: Platform, directory: Directory, waiting: Waiting, store: TaskStore, gating: Gating
    ) -> None:
        self._platform = platform
        self._directory = directory
        self.admission = Admission(platform, directory)
        self._waiting = waiting
        self._store = store
        self.gating = gating
        self.queue = QueueLook(platform)
        self._scheduling = Scheduling(platform)

    @property
    def replica(self) -> str:
        """Where the terminal message of a task that is waited for is told."""
        return self._waiting.replica

    def prepare(self, principal: Principal, asked: Asked, *, waits: bool) -> TaskSubmitted:
        """Checks a request and returns the message that will be stored; raises ApiError."""
        if asked.callback_url is not None:
            check_url(asked.callback_url, allow_private=self._platform.settings.webhooks.allow_private_addresses)
        now = self._platform.now_ms()
        submitted = submission(
            asked,
            principal,
            self._directory.models,
            self._platform.keyring,
            task_id=ids.task_id(now, os.urandom(10)),
            reply=self._waiting.replica if waits else "",
            now_ms=now,
            off_peak=self._platform.settings.off_peak,
        )
        return self.gating.take(submitted, principal, asked.options.gates, asked.options.verified)

    async def complete(
        self, submitted: TaskSubmitted, hop: Hop, stored: Stored | None = None, on_rates: OnRates | None = None
    ) -> SettledMessage:
        """Submits a task and returns its terminal message.

        ``on_rates`` is told the tenant's rates once they are known, ``stored`` is awaited once the task is accepted.
        """
        future = self._waiting.begin(submitted.task)
        try:
            await self._store_submitted(submitted, hop, on_rates)
            if stored is not None:
                await stored()
            return await future
        finally:
            self._waiting.end(submitted.task.id)

    async def stream(
        self,
        submitted: TaskSubmitted,
        hop: Hop,
        stored: Stored | None = None,
        *,
        told: Told | None = None,
        on_rates: OnRates | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """Submits a task and yields its text as it comes, then its terminal message.

        When the iterator is closed before its end, the task is canceled for the client that went away, unless it was
        submitted under an idempotency key (``stored`` given): that client comes again. ``told`` is called with the
        terminal message when it is here, however slowly the client reads, or with none where there is none.
        """
        task = submitted.task
        future = self._waiting.begin(task)
        live = LiveText(self._platform, task)
        future.add_done_callback(live.settled)
        if told is not None:
            future.add_done_callback(lambda done: told(_result(done)))
        live.open()
        try:
            await self._store_submitted(submitted, hop, on_rates)
            if stored is not None:
                await stored()
            while True:
                piece = await live.next()
                yield piece
                if piece.settled is not None:
                    return
        except (GeneratorExit, asyncio.CancelledError):
            if stored is None:
                await self._request_cancel(task.tenant, task.id, "client_disconnected")
            raise
        finally:
            live.close()
            self._waiting.end(task.id)
            future.cancel()

    async def submit(
        self,
        submitted: TaskSubmitted,
        hop: Hop,
        *,
        wait_seconds: float = 0,
        stored: Stored | None = None,
        callback_url: str | None = None,
        on_rates: OnRates | None = None,
    ) -> TaskView:
        """Submits a task for later and returns its view; with ``wait_seconds``, waits that long for it to settle.

        ``callback_url`` is what :meth:`prepare` was asked for; it is told of with the acceptance, and nowhere else.
        """
        task = submitted.task
        wait_until = self._platform.now_ms() + int(wait_seconds * 1000)
        future = self._waiting.begin(task, wait_until_ms=wait_until) if task.reply else None
        try:
            await self._store_submitted(submitted, hop, on_rates, stores=True)
            await self.announce(task, hop, callback_url)
            if stored is not None:
                await stored()
            if future is None:
                return await self._behind_others(task)
            try:
                async with asyncio.timeout(wait_seconds):
                    return settled_view(await future, self._platform.keyring)
            except (TimeoutError, ApiError):
                return open_view(task, "submitted")
        finally:
            self._waiting.end(task.id)

    async def accept(self, submitted: TaskSubmitted, hop: Hop, *, stores: bool) -> None:
        """Stores a task: from now on it is accepted. ``stores`` as :meth:`submit` does, and a chat does not."""
        await self._store_submitted(submitted, hop, stores=stores)

    async def announce(self, task: TaskRef, hop: Hop, callback_url: str | None) -> None:
        """Tells that a task was accepted, so that it is found before it has begun, and where its callback goes."""
        accepted = self._accepted(task, callback_url)
        failpoint("gateway.before-accepted")
        await self._publish(s.task_changed(task.tenant, task.id), accepted, f"{task.id}.accepted", hop, task.tenant)

    def _accepted(self, task: TaskRef, callback_url: str | None) -> TaskAccepted:
        accepted = TaskAccepted(task=task, at_ms=self._platform.now_ms())
        if callback_url is None:
            return accepted
        return msgspec.structs.replace(
            accepted,
            callback=self._platform.keyring.seal(task.tenant, callback_url.encode()),
            callback_receiver=receiver_of(task.tenant, URL(callback_url)),
        )

    async def _behind_others(self, task: TaskRef) -> TaskView:
        """Returns a task that was just accepted, with its place behind what waits of its tenant."""
        view = open_view(task, "submitted")
        reply = await self.queue.of_tenant(task.tenant)
        if reply is None or not reply.queued:
            return view
        return queued_view(view, reply.queued + 1, self.queue.age_ms(reply), reply.wait_seconds)

    async def placed(self, view: TaskView, tenant: str) -> TaskView:
        """Adds to an open task where it stands in the queue."""
        if view.state != "submitted":
            return view
        reply = await self.queue.of_task(tenant, view.id)
        if reply is None or not reply.position:
            return view
        return queued_view(view, reply.position, self.queue.age_ms(reply), reply.wait_seconds)

    async def _store_submitted(
        self, submitted: TaskSubmitted, hop: Hop, on_rates: OnRates | None = None, *, stores: bool = False
    ) -> None:
        task = submitted.task
        if task.not_before_ms:
            self._directory.need_storage(task.tenant, task.tier)
            # What it may cost is held when it is released.
            await self._scheduling.store(await self.gating.check(submitted), hop)
            return
        held = await self._admitted(submitted, on_rates, stores=stores)
        subject = s.task_submitted(task.priority, ids.shard_of(task.tenant), task.tenant)
        failpoint("gateway.before-submit")
        try:
            await self._publish(subject, held, task.id, hop, task.tenant)
        except ApiError as error:
            self.admission.give_back(held, error.__cause__ or error)
            raise
        failpoint("gateway.after-submit")

    async def _admitted(self, submitted: TaskSubmitted, on_rates: OnRates | None, *, stores: bool) -> TaskSubmitted:
        """Returns a task with its hold that its gates let pass; what they refuse gives its hold back."""
        if submitted.task.gated is None:
            return await self.admission.admit(submitted, on_rates, stores=stores)
        # Words that are put in the place of others may be longer.
        more = MAX_GROWTH_BYTES if self.gating.rewrites(submitted.task) else 0
        longest = msgspec.structs.replace(submitted, prompt_bytes=submitted.prompt_bytes + more)
        holding = asyncio.create_task(self.admission.admit(longest, on_rates, stores=stores))
        try:
            for _ in range(TURNS_TO_ASK):
                # The question goes out before time is spent on rules here.
                await asyncio.sleep(0)
            checked = await self.gating.check(submitted)
        except ApiError as error:
            with contextlib.suppress(ApiError):
                self.admission.give_back(await holding, error)
            raise
        except BaseException:
            # Nothing was submitted, and nobody waits any more: what is granted all the same is given back.
            holding.add_done_callback(self._give_back)
            raise
        held = await holding
        task = msgspec.structs.replace(checked.task, hold_expires_ms=held.task.hold_expires_ms)
        return msgspec.structs.replace(checked, task=task)

    def _give_back(self, holding: asyncio.Task[TaskSubmitted]) -> None:
        if not holding.cancelled() and holding.exception() is None:
            self.admission.give_back(holding.result(), asyncio.CancelledError())

    async def _publish(
        self,
        subject: str,
        message: TaskSubmitted | TaskAccepted | CancelRequested,
        message_id: str,
        hop: Hop,
        tenant: str,
    ) -> None:
        try:
            await self._platform.publisher.publish(
                subject,
                codec.encode(message),
                message_id=message_id,
                headers={s.TRACEPARENT: hop.traceparent, s.H_TENANT: tenant},
            )
        except BusError as error:
            raise from_bus(error, "the task") from error

    async def get(self, principal: Principal, task_id: str) -> TaskView:
        """Returns a task of the principal's tenant: the row, else the stream, else ApiError ``not_found``."""
        view = await self.find(principal.tenant, task_id)
        if view is None:
            raise ApiError("not_found", f"there is no task {task_id!r}", param="id")
        return await self.placed(view, principal.tenant)

    async def find(self, tenant: str, task_id: str) -> TaskView | None:
        """Returns a tenant's task, or none."""
        if ids.TASK_ID.match(task_id) is None:
            return None
        row = await self._store.get(Scope(tenant), task_id)
        if row is not None and row.state in TERMINAL:
            (row,) = await with_outputs(self._store, tenant, [row])
            return task_view(row, self._platform.keyring)
        try:
            stored = await self._platform.direct.last(s.EVENTS, s.task_settled(tenant, task_id))
            if stored is not None:
                return settled_view(codec.settled.decode(stored.payload), self._platform.keyring)
            if row is not None:
                return task_view(row, self._platform.keyring)
            stored = await self._platform.direct.last(s.EVENTS, s.task_changed(tenant, task_id))
        except BusError as error:
            raise from_bus(error, f"task {task_id}") from error
        message = codec.journey.decode(stored.payload) if stored is not None else None
        if isinstance(message, TaskAccepted):
            return open_view(message.task, "submitted")
        if isinstance(message, TaskDispatched):
            return open_view(message.task, "working")
        return None

    async def settled(self, principal: Principal, task_id: str) -> SettledMessage:
        """Returns how a task of the principal's tenant ended; ApiError ``not_found``, or ``task_not_settled``."""
        view = await self.get(principal, task_id)
        if view.state not in TERMINAL:
            raise not_settled(task_id, view.state)
        row = await self._store.get(Scope(principal.tenant), task_id)
        if row is not None and row.settled is not None:
            return codec.settled.decode(row.settled)
        stored = await self._platform.direct.last(s.EVENTS, s.task_settled(principal.tenant, task_id))
        if stored is None:
            raise ApiError("not_found", f"there is no task {task_id!r}", param="id")
        return codec.settled.decode(stored.payload)

    async def page(
        self,
        principal: Principal,
        *,
        state: State | None,
        since_ms: int,
        before: tuple[int, str] | None,
        limit: int,
    ) -> tuple[list[TaskView], tuple[int, str] | None]:
        """Returns a page of the tenant's tasks, newest first, and where the next one begins."""
        rows = await self._store.page(
            Scope(principal.tenant), state=state, since_ms=since_ms, before=before, limit=limit + 1
        )
        shown = await with_outputs(self._store, principal.tenant, rows[:limit])
        views = [task_view(row, self._platform.keyring) for row in shown]
        more = (rows[limit - 1].created_at_ms, rows[limit - 1].task_id) if len(rows) > limit else None
        return views, more

    async def cancel(self, principal: Principal, task_id: str) -> TaskView:
        """Cancels a task and returns it as it then stands; ApiError ``task_terminal`` where it had ended."""
        view = await self.get(principal, task_id)
        if view.state in TERMINAL:
            raise ApiError(
                "task_terminal", f"task {task_id} is {view.state}; a terminal task does not change", param="id"
            )
        await self._request_cancel(principal.tenant, task_id, "canceled")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CANCEL_WAIT_SECONDS
        while loop.time() < deadline:
            stored = await self._platform.direct.last(s.EVENTS, s.task_settled(principal.tenant, task_id))
            if stored is not None:
                return settled_view(codec.settled.decode(stored.payload), self._platform.keyring)
            await asyncio.sleep(CANCEL_POLL_SECONDS)
        return view

    async def _request_cancel(self, tenant: str, task_id: str, reason: str) -> None:
        message = CancelRequested(
            task_id=task_id,
            tenant=tenant,
            at_ms=self._platform.now_ms(),
            reason="client_disconnected" if reason == "client_disconnected" else "canceled",
        )
        try:
            await self._platform.publisher.publish(
                s.cancel(tenant, task_id),
                codec.encode(message),
                message_id=f"{task_id}.cancel",
                headers={s.H_TENANT: tenant},
            )
        except BusError as error:
            if reason == "canceled":
                raise from_bus(error, f"the cancellation of task {task_id}") from error
            log.warning("cancellation for a lost client not stored", task=task_id, error=str(error))
