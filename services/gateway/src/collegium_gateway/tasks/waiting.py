"""Waiting for a task to settle: the notification first, the stored message as the fallback.

One subscription serves all waiters of this replica; one sweeper looks up, once a second, the tasks whose notification
has not come, and gives up a little after each deadline. One rule: a waiter ends with the settled message or with a
typed error, always.
"""

from __future__ import annotations

import asyncio

import structlog
from collegium_bus.claims import ClaimStore
from collegium_bus.errors import BusError
from collegium_bus.wire import header_of
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import InputRequired, SettledMessage, TaskRef
from collegium_runtime.platform import Platform

from collegium_gateway.errors import ApiError
from collegium_gateway.people.pausing import input_required
from collegium_gateway.people.watching import PeopleWatch

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 1.0
# Whoever holds the task settles it at its deadline; this long after it nobody did.
GRACE_MS = 2_000
MAX_WAITING = 20_000
MAX_LOOKUPS = 200


class Waiter:
    """One wait: the task, when its wait ends (Unix ms), and the future."""

    __slots__ = ("future", "gives_up_ms", "looked_up_ms", "task")

    def __init__(self, task: TaskRef, gives_up_ms: int, now_ms: int, future: asyncio.Future[SettledMessage]) -> None:
        self.task = task
        self.gives_up_ms = gives_up_ms
        self.looked_up_ms = now_ms
        self.future = future


class Waiting:
    """All waits of this gateway replica."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.replica = platform.connection.instance
        self._claims = ClaimStore(platform.connection)
        self._people = PeopleWatch(platform)
        self._waiters: dict[str, Waiter] = {}
        self._prefix_bytes = len(s.done(self.replica, ""))
        self._sid: int | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._fetching: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many waits there are."""
        return len(self._waiters)

    async def start(self) -> None:
        """Subscribes; when it returns, the broker knows of the subscription."""
        self._sid = self._platform.connection.client.subscribe_raw(s.done_replica(self.replica), self._on_done)
        await self._platform.connection.flush()
        self._sweeper = asyncio.create_task(self._sweep(), name="waiting-sweeper")

    async def stop(self) -> None:
        """Ends every wait with ``not_ready``."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        if self._sid is not None:
            self._platform.connection.client.unsubscribe_raw(self._sid)
        for waiter in list(self._waiters.values()):
            self._fail(waiter, "not_ready", f"the gateway is stopping; ask again for task {waiter.task.id}")

    def begin(self, task: TaskRef, *, wait_until_ms: int | None = None) -> asyncio.Future[SettledMessage]:
        """Registers a wait before the task is submitted; it ends at ``wait_until_ms``, or after the deadline."""
        if len(self._waiters) >= MAX_WAITING:
            raise ApiError("too_many_waiting", "this gateway holds as many waits as it may", retry_after_seconds=1)
        future: asyncio.Future[SettledMessage] = asyncio.get_running_loop().create_future()
        gives_up = task.deadline_ms + GRACE_MS if wait_until_ms is None else wait_until_ms
        self._waiters[task.id] = Waiter(task, gives_up, self._platform.now_ms(), future)
        return future

    def end(self, task_id: str) -> None:
        """Forgets a wait."""
        self._waiters.pop(task_id, None)

    def _on_done(self, subject: bytes, _reply: bytes, payload: bytes, block: bytes | None) -> None:
        waiter = self._waiters.get(subject[self._prefix_bytes :].decode())
        if waiter is None:
            return
        if header_of(block, s.H_CLAIM.encode()):
            self._look_up(waiter)
            return
        try:
            self._finish(waiter, codec.settled.decode(payload))
        except ContractError as error:
            if _is_pause(payload):
                self._fail_with(waiter, input_required(waiter.task))
                return
            log.error("notification unreadable, reading the stored message", task=waiter.task.id, error=str(error))

    def _finish(self, waiter: Waiter, settled: SettledMessage) -> None:
        if not waiter.future.done():
            waiter.future.set_result(settled)

    def _fail(self, waiter: Waiter, code: str, message: str) -> None:
        self._fail_with(waiter, ApiError(code, message, task_id=waiter.task.id))

    def _fail_with(self, waiter: Waiter, error: ApiError) -> None:
        if not waiter.future.done():
            waiter.future.set_exception(error)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = self._platform.now_ms()
            for waiter in list(self._waiters.values()):
                if now >= waiter.gives_up_ms:
                    text = f"task {waiter.task.id} did not settle in time; see GET /v1/tasks/{waiter.task.id}"
                    self._fail(waiter, "deadline_exceeded", text)
                elif now - waiter.looked_up_ms >= SWEEP_SECONDS * 1000 and len(self._fetching) < MAX_LOOKUPS:
                    waiter.looked_up_ms = now
                    self._look_up(waiter)

    def _look_up(self, waiter: Waiter) -> None:
        fetching = asyncio.create_task(self._fetch(waiter))
        self._fetching.add(fetching)
        fetching.add_done_callback(self._fetching.discard)

    async def _fetch(self, waiter: Waiter) -> None:
        task = waiter.task
        try:
            stored = await self._platform.direct.last(s.EVENTS, s.task_settled(task.tenant, task.id))
            if stored is not None:
                self._finish(waiter, codec.settled.decode(stored.payload))
            elif await self._people.waits(task):
                self._fail_with(waiter, input_required(task))
        except (BusError, ContractError) as error:
            log.warning("settled message not readable yet", task=task.id, error=str(error))


def _is_pause(payload: bytes) -> bool:
    """Whether a notification says that people are asked first."""
    try:
        return isinstance(codec.journey.decode(payload), InputRequired)
    except ContractError:
        return False


def result_of(done: asyncio.Future[SettledMessage]) -> SettledMessage | None:
    """Returns the terminal message that was waited for, none where there is none."""
    return None if done.cancelled() or done.exception() is not None else done.result()
