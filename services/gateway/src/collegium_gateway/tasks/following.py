"""Following a task that another request submitted, on this gateway or on another, until it settles.

The settler notifies one gateway only, so whoever else waits looks the settled message up, in a rhythm that slows down:
EVENTS first, and now and then the read model, which keeps it longer. One loop a task, however many requests follow it.
One rule: a follower ends with the settled message or with a typed error, and never ends the task.
"""

from __future__ import annotations

import asyncio

import asyncpg
import structlog
from collegium_bus.errors import BusError
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import SettledMessage, TaskRef
from collegium_contracts.scope import Scope
from collegium_runtime.platform import Platform

from collegium_gateway.errors import ApiError
from collegium_gateway.people.pausing import input_required
from collegium_gateway.people.watching import PeopleWatch
from collegium_gateway.readmodel.store import TaskStore

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.01
MAX_PAUSE_SECONDS = 0.25
# A row is looked for at once (the task may have settled hours ago) and then every so many rounds.
ROUNDS_A_ROW = 20
# Four look-ups a second each: well under what the broker answers.
MAX_FOLLOWED = 1_000
MAX_FOLLOWERS = 10_000


class _Followed:
    """One followed task: the future that all its followers share, and how many they are."""

    def __init__(self) -> None:
        self.future: asyncio.Future[SettledMessage] = asyncio.get_running_loop().create_future()
        self.looking: asyncio.Task[None] | None = None
        self.followers = 0


class Following:
    """All tasks that requests of this replica follow."""

    def __init__(self, platform: Platform, store: TaskStore) -> None:
        self._platform = platform
        self._store = store
        self._people = PeopleWatch(platform)
        self._followed: dict[str, _Followed] = {}
        self._followers = 0

    def stop(self) -> None:
        """Ends every wait with ``not_ready``."""
        for task_id, followed in list(self._followed.items()):
            if not followed.future.done():
                text = f"the gateway is stopping; send the request again for task {task_id}"
                followed.future.set_exception(ApiError("not_ready", text, task_id=task_id, retry_after_seconds=1))

    async def settled(self, task: TaskRef, until_ms: int) -> SettledMessage:
        """Returns a task's terminal message; raises ApiError ``deadline_exceeded`` at ``until_ms``, ``not_ready``."""
        left_seconds = (until_ms - self._platform.now_ms()) / 1000
        followed = self._enter(task)
        try:
            async with asyncio.timeout(max(0.0, left_seconds)):
                return await asyncio.shield(followed.future)
        except TimeoutError:
            text = f"task {task.id} did not settle in time; see GET /v1/tasks/{task.id}"
            raise ApiError("deadline_exceeded", text, task_id=task.id) from None
        finally:
            self._leave(task.id, followed)

    async def standing(self, task: TaskRef) -> SettledMessage | None:
        """Returns a task's terminal message where it has one now."""
        return await self._find(task, with_row=True)

    def _enter(self, task: TaskRef) -> _Followed:
        followed = self._followed.get(task.id)
        if self._followers >= MAX_FOLLOWERS or (followed is None and len(self._followed) >= MAX_FOLLOWED):
            raise ApiError("too_many_waiting", "this gateway holds as many waits as it may", retry_after_seconds=1)
        if followed is None:
            followed = self._followed[task.id] = _Followed()
            followed.looking = asyncio.create_task(self._look(task, followed), name=f"follow-{task.id}")
        followed.followers += 1
        self._followers += 1
        return followed

    def _leave(self, task_id: str, followed: _Followed) -> None:
        followed.followers -= 1
        self._followers -= 1
        if followed.followers == 0:
            self._followed.pop(task_id, None)
            assert followed.looking is not None, "whoever enters first starts looking"
            followed.looking.cancel()
            followed.future.cancel()

    async def _look(self, task: TaskRef, followed: _Followed) -> None:
        pause = FIRST_PAUSE_SECONDS
        rounds = 0
        while not followed.future.done():
            settled = await self._find(task, with_row=rounds % ROUNDS_A_ROW == 0)
            if settled is not None and not followed.future.done():
                followed.future.set_result(settled)
                return
            if rounds % ROUNDS_A_ROW == 0 and await self._waits(task) and not followed.future.done():
                followed.future.set_exception(input_required(task))
                return
            rounds += 1
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, MAX_PAUSE_SECONDS)

    async def _waits(self, task: TaskRef) -> bool:
        try:
            return await self._people.waits(task)
        except (BusError, ContractError) as error:
            log.warning("what a task waits for is not readable yet", task=task.id, error=str(error))
            return False

    async def _find(self, task: TaskRef, *, with_row: bool) -> SettledMessage | None:
        try:
            stored = await self._platform.direct.last(s.EVENTS, s.task_settled(task.tenant, task.id))
            if stored is not None:
                return codec.settled.decode(stored.payload)
            row = await self._store.get(Scope(task.tenant), task.id) if with_row else None
            return codec.settled.decode(row.settled) if row is not None and row.settled is not None else None
        except (BusError, ContractError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("settled message not readable yet", task=task.id, error=str(error))
            return None
