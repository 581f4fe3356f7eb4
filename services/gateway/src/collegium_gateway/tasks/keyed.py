"""Tasks and chats under an idempotency key: one task for all requests with the key, whichever gateway they reach.

The first request claims the key, submits the task under the id that its claim holds, and marks the claim stored. A
later one follows that task. One that finds a claim whose holder died before the mark takes it over and submits the same
id again: within the broker's duplicate window the second message is dropped, and after it nothing is submitted where an
event of the task stands. One rule: the id in the claim decides, never one that a request made for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import TypeVar

import msgspec
from collegium_bus.errors import BusError
from collegium_contracts import subjects as s
from collegium_contracts.messages import SettledMessage, TaskSubmitted
from collegium_runtime.platform import Platform
from collegium_telemetry.hop import Hop

from collegium_gateway.admission.claimbook import Begun, ClaimBook
from collegium_gateway.admission.holding import OnRates
from collegium_gateway.admission.idempotency import FOR_TASKS, checked_key, fingerprint
from collegium_gateway.errors import ApiError, from_bus
from collegium_gateway.identity.principal import Principal
from collegium_gateway.tasks.application import Tasks
from collegium_gateway.tasks.following import Following
from collegium_gateway.tasks.livetext import LiveText, Piece
from collegium_gateway.tasks.views import TaskView, open_view, settled_view
from collegium_gateway.tasks.waiting import GRACE_MS

Result = TypeVar("Result")

# Refusals after which certainly nothing was stored: the key is free again at once.
_NOTHING_STORED = frozenset(
    {
        "tenant_queue_full",
        "too_many_waiting",
        "insufficient_quota",
        "rate_limited",
        "quota_exceeded",
        "storage_full",
        "billing_unavailable",
        "gate_blocked",
        "too_many_questions",
    }
)


class Asking(msgspec.Struct, frozen=True):
    """A request as its key knows it: the key, method, path and body as they came."""

    key: str
    method: str
    path: str
    body: bytes


class KeyedTasks:
    """Begins keyed requests."""

    def __init__(self, platform: Platform, tasks: Tasks, book: ClaimBook, following: Following) -> None:
        self.platform = platform
        self.tasks = tasks
        self.book = book
        self.following = following

    async def begin(
        self,
        principal: Principal,
        asking: Asking,
        submitted: TaskSubmitted,
        hop: Hop,
        *,
        callback_url: str | None = None,
    ) -> KeyedTask:
        """Claims the key for a checked request, or attaches the request to the task that the key has."""
        key = checked_key(asking.key)
        asked = fingerprint(key, asking.method, asking.path, asking.body)
        begun = await self.book.begin(principal.tenant, key, asked, FOR_TASKS, trace_id=hop.trace_id)
        claim = begun.claim
        task = msgspec.structs.replace(submitted.task, id=claim.task_id, created_at_ms=claim.created_at_ms)
        return KeyedTask(self, begun, msgspec.structs.replace(submitted, task=task), callback_url)


class KeyedTask:
    """One keyed request: ``submitted`` carries the key's task id; ``replayed`` where another request submits it."""

    def __init__(self, keyed: KeyedTasks, begun: Begun, submitted: TaskSubmitted, callback_url: str | None) -> None:
        self._keyed = keyed
        self._callback_url = callback_url
        self._begun = begun
        self.submitted = submitted
        self.replayed = not begun.held
        self.trace_id = begun.claim.trace_id

    async def complete(self, hop: Hop, on_rates: OnRates | None = None) -> SettledMessage:
        """Returns the task's terminal message."""
        if self._is_first:
            return await self._releasing(self._keyed.tasks.complete(self.submitted, hop, self._stored, on_rates))
        await self._ensure_submitted(hop, announce=False)
        return await self._settled(self._until_ms)

    async def submit(self, hop: Hop, *, wait_seconds: float, on_rates: OnRates | None = None) -> TaskView:
        """Returns the task as it was accepted; with ``wait_seconds``, waits that long for it to settle."""
        if self._is_first:
            submitting = self._keyed.tasks.submit(
                self.submitted,
                hop,
                wait_seconds=wait_seconds,
                stored=self._stored,
                callback_url=self._callback_url,
                on_rates=on_rates,
            )
            return await self._releasing(submitting)
        await self._ensure_submitted(hop, announce=True)
        task = self.submitted.task
        if wait_seconds:
            try:
                settled = await self._settled(self._keyed.platform.now_ms() + int(wait_seconds * 1000))
                return settled_view(settled, self._keyed.platform.keyring, self.trace_id)
            except ApiError as error:
                if error.code not in ("deadline_exceeded", "input_required"):
                    raise
        view = await self._keyed.tasks.people.shown(task, open_view(task, "submitted"))
        return await self._keyed.tasks.queue.placed(view, task.tenant)

    async def stream(self, hop: Hop, on_rates: OnRates | None = None) -> AsyncGenerator[Piece, None]:
        """Yields the task's text as it comes, then its terminal message; a client that goes away ends nothing."""
        if self._is_first:
            pieces = self._keyed.tasks.stream(self.submitted, hop, self._stored, on_rates=on_rates)
            try:
                async for piece in pieces:
                    yield piece
            except ApiError as error:
                await self._release(error)
                raise
            finally:
                await pieces.aclose()
            return
        live = LiveText(self._keyed.platform, self.submitted.task)
        live.open()
        settling: asyncio.Task[SettledMessage] | None = None
        try:
            await self._ensure_submitted(hop, announce=False)
            settling = asyncio.create_task(self._settled(self._until_ms))
            settling.add_done_callback(live.settled)
            while True:
                piece = await live.next()
                yield piece
                if piece.settled is not None:
                    return
        finally:
            live.close()
            if settling is not None:
                settling.cancel()

    @property
    def _is_first(self) -> bool:
        return self._begun.held and not self._begun.taken_over

    @property
    def _until_ms(self) -> int:
        return self.submitted.task.deadline_ms + GRACE_MS

    async def _settled(self, until_ms: int) -> SettledMessage:
        return await self._keyed.following.settled(self.submitted.task, until_ms)

    async def _stored(self) -> None:
        if (begun := await self._keyed.book.advance(self._begun, "stored")) is not None:
            self._begun = begun

    async def _releasing(self, work: Awaitable[Result]) -> Result:
        try:
            return await work
        except ApiError as error:
            await self._release(error)
            raise

    async def _release(self, error: ApiError) -> None:
        """Gives the key back where the task was refused, so that the client's next try need not wait."""
        if error.code in _NOTHING_STORED and self._begun.claim.state == "claimed":
            await self._keyed.book.advance(self._begun, "released")

    async def _ensure_submitted(self, hop: Hop, *, announce: bool) -> None:
        """After a takeover, submits the task unless it certainly was; else another request did."""
        if not self._begun.held:
            return
        tasks = self._keyed.tasks
        if not await self._has_begun():
            await self._releasing(tasks.accept(self.submitted, hop, stores=announce))
        if announce:
            # Whoever died may have stored the task and not told of it, or of its callback; twice does no harm.
            await tasks.announce(self.submitted.task, hop, self._callback_url)
        await self._stored()

    async def _has_begun(self) -> bool:
        """Whether anything shows that the task of a claim that was taken over is in the journey."""
        task = self.submitted.task
        if await self._keyed.following.standing(task) is not None:
            return True
        direct = self._keyed.platform.direct
        try:
            told = (s.task_changed(task.tenant, task.id), s.pauses_of(task.tenant, task.id))
            for subject in (*told, s.attempts_of(task.tenant, task.id)):
                if await direct.last(s.EVENTS, subject) is not None:
                    return True
        except BusError as error:
            raise from_bus(error, f"task {task.id}") from error
        return False
