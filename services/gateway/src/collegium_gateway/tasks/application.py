"""What the doors do: submit, wait, stream, look up, cancel. HTTP and gRPC are two ways to call this.

One rule: a task is accepted when INGRESS, or SCHEDULE for one that may begin later, has acknowledged it, and not
before; from then on it is found from any replica.
"""

from __future__ import annotations

import asyncio
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
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform
from collegium_telemetry.hop import Hop
from yarl import URL

from collegium_gateway.admission.admission import Asked, check_people, submission
from collegium_gateway.admission.admitting import Admitting
from collegium_gateway.admission.gating import Gating
from collegium_gateway.admission.holding import Admission, OnRates
from collegium_gateway.admission.opening import with_open_plan
from collegium_gateway.errors import ApiError, from_bus
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.people.answering import Answering, InputRequest
from collegium_gateway.people.pausing import FirstPauses, input_required
from collegium_gateway.people.terms import asks_first, with_people
from collegium_gateway.people.watching import PeopleWatch
from collegium_gateway.readmodel.rows import TERMINAL, State
from collegium_gateway.readmodel.store import TaskStore
from collegium_gateway.reuse.originals import with_outputs
from collegium_gateway.tasks.feedback import not_settled
from collegium_gateway.tasks.livetext import LiveText, Piece
from collegium_gateway.tasks.queueing import QueueLook
from collegium_gateway.tasks.scheduling import Scheduling
from collegium_gateway.tasks.views import TaskView, open_view, reference_of, settled_view, stored_view, task_view
from collegium_gateway.tasks.waiting import Waiting, result_of
from collegium_gateway.webhooks.callbacks import check_url, receiver_of

log = structlog.get_logger(__name__)

CANCEL_WAIT_SECONDS = 3.0
CANCEL_POLL_SECONDS = 0.02

Stored = Callable[[], Awaitable[None]]
Told = Callable[[SettledMessage | None], None]


class Tasks:
    """The gateway's use cases."""

    def __init__(
        self,
        platform: Platform,
        directory: Directory,
        waiting: Waiting,
        store: TaskStore,
        gating: Gating,
        pauses: FirstPauses,
        answering: Answering,
    ) -> None:
        self._platform = platform
        self._directory = directory
        self.admission = Admission(platform, directory)
        self._waiting = waiting
        self._store = store
        self.gating = gating
        self._admitting = Admitting(self.admission, gating)
        self.pauses = pauses
        self.answering = answering
        self.people = PeopleWatch(platform)
        self.queue = QueueLook(platform)
        self._scheduling = Scheduling(platform)

    @property
    def replica(self) -> str:
        """Where the terminal message of a task that is waited for is told."""
        return self._waiting.replica

    def prepare(self, principal: Principal, asked: Asked, *, waits: bool, is_internal: bool = False) -> TaskSubmitted:
        """Checks a request and returns the message that will be stored; rules ask nobody about ``is_internal`` ones."""
        settings, models = self._platform.settings, self._directory.models
        if asked.callback_url is not None:
            check_url(asked.callback_url, allow_private=settings.webhooks.allow_private_addresses)
        now = self._platform.now_ms()
        submitted = submission(
            asked,
            principal,
            models,
            self._platform.keyring,
            task_id=ids.task_id(now, os.urandom(10)),
            reply=self._waiting.replica if waits else "",
            now_ms=now,
            off_peak=settings.off_peak,
        )
        if not is_internal:
            submitted = with_people(submitted, asked.options, settings.people)
            check_people(submitted, models, principal)
            tried = self._directory.trials.plans
            submitted = with_open_plan(submitted, asked, principal, settings.routing, models, tried)
        return self.gating.take(submitted, principal, asked.options.gates, asked.options.verified, asked.options)

    async def complete(
        self, submitted: TaskSubmitted, hop: Hop, stored: Stored | None = None, on_rates: OnRates | None = None
    ) -> SettledMessage:
        """Submits a task and returns its terminal message.

        ``on_rates`` is told the tenant's rates once they are known, ``stored`` is awaited once the task is accepted.
        """
        future = self._waiting.begin(submitted.task)
        try:
            waits = await self._store_submitted(submitted, hop, on_rates)
            if stored is not None:
                await stored()
            if waits is not None:
                raise input_required(submitted.task)
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
            future.add_done_callback(lambda done: told(result_of(done)))
        live.open()
        try:
            waits = await self._store_submitted(submitted, hop, on_rates)
            if stored is not None:
                await stored()
            if waits is not None:
                raise input_required(task)
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
            waits = await self._store_submitted(submitted, hop, on_rates, stores=True)
            await self.announce(waits.task if waits is not None else task, hop, callback_url)
            if stored is not None:
                await stored()
            if waits is not None:
                return await self.people.shown(waits.task, open_view(task, "input_required"))
            if future is None:
                return await self.queue.last(open_view(task, "submitted"), task.tenant)
            try:
                async with asyncio.timeout(wait_seconds):
                    return settled_view(await future, self._platform.keyring, hop.trace_id)
            except (TimeoutError, ApiError):
                return await self.people.shown(task, open_view(task, "submitted"))
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

    async def _store_submitted(
        self, submitted: TaskSubmitted, hop: Hop, on_rates: OnRates | None = None, *, stores: bool = False
    ) -> TaskSubmitted | None:
        """Stores a task; returns it as it stands where it waits for people first."""
        task = submitted.task
        if task.not_before_ms or asks_first(submitted):
            self._directory.need_storage(task.tenant, task.tier)
            checked = await self.gating.check(submitted)
            # What it may cost is held when it is released.
            if not asks_first(checked):
                await self._scheduling.store(checked, hop)
                return None
            await self._scheduling.check(checked)
            await self.pauses.pause(checked, hop)
            return checked
        held = await self._admitting.admit(submitted, on_rates, stores=stores)
        if asks_first(held):
            self.admission.give_back(held, input_required(task))
            await self.pauses.pause(held, hop)
            return held
        subject = s.task_submitted(task.priority, ids.shard_of(task.tenant), task.tenant)
        failpoint("gateway.before-submit")
        try:
            await self._publish(subject, held, task.id, hop, task.tenant)
        except ApiError as error:
            self.admission.give_back(held, error.__cause__ or error)
            raise
        failpoint("gateway.after-submit")
        return None

    async def _publish(
        self, subject: str, message: TaskSubmitted | TaskAccepted | CancelRequested, name: str, hop: Hop, tenant: str
    ) -> None:
        try:
            await self._platform.publisher.publish(
                subject,
                codec.encode(message),
                message_id=name,
                headers={s.TRACEPARENT: hop.traceparent, s.H_TENANT: tenant},
            )
        except BusError as error:
            raise from_bus(error, "the task") from error

    async def get(self, principal: Principal, task_id: str) -> TaskView:
        """Returns a task of the principal's tenant: the row, else the stream, else ApiError ``not_found``."""
        view = await self.find(principal.tenant, task_id)
        if view is None:
            raise ApiError("not_found", f"there is no task {task_id!r}", param="id")
        return await self.queue.placed(view, principal.tenant)

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
                return stored_view(stored, self._platform.keyring)
            if row is not None:
                return await self.people.shown(reference_of(row), task_view(row, self._platform.keyring))
            stored = await self._platform.direct.last(s.EVENTS, s.task_changed(tenant, task_id))
        except BusError as error:
            raise from_bus(error, f"task {task_id}") from error
        message = codec.journey.decode(stored.payload) if stored is not None else None
        if isinstance(message, TaskAccepted | TaskDispatched):
            state = "submitted" if isinstance(message, TaskAccepted) else "working"
            return await self.people.shown(message.task, open_view(message.task, state))
        return await self.people.only(tenant, task_id)

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

    async def provide_input(
        self, principal: Principal, task_id: str, asked: InputRequest, traceparent: str
    ) -> TaskView:
        """Stores a client's answer to what its task waits for and returns the task; raises ApiError."""
        view = await self.get(principal, task_id)
        if view.state in TERMINAL:
            raise ApiError("task_terminal", f"task {task_id} is {view.state}; nothing is asked any more", param="id")
        await self.answering.of_client(principal, task_id, asked, traceparent)
        return await self.get(principal, task_id)

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
                return stored_view(stored, self._platform.keyring)
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
