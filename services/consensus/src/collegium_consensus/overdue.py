"""Plans whose time runs out while one of their attempts is lost: they are looked after a moment later.

Whoever holds an attempt ends it at the task's deadline, and that end settles its plan. A worker that was killed or cut
off with one does not, and its lease outlasts the client; then what had been answered is the answer. One rule: this is
memory of what to look at, not of what was found; forgotten by a restart, the plan is settled when the lost attempt's
lease ends.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from collegium_bus.errors import BusError
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import AttemptRef, TaskRef

log = structlog.get_logger(__name__)

# Whoever lives has said so by then, and a waiting gateway has not given up.
GRACE_MS: Final = 500
LOOK_SECONDS: Final = 0.1
# Plans of the last hour that are remembered, settled or not, some 100 MB at most; what is beyond is settled by the lost
# attempt's own end.
WATCHED_MAX: Final = 100_000


class Overdue:
    """Watches running plans; calls ``close(task, attempt)`` for one whose deadline passed, with one of its attempts."""

    def __init__(self, now_ms: Callable[[], int], close: Callable[[TaskRef, AttemptRef], Awaitable[None]]) -> None:
        self._now_ms = now_ms
        self._close = close
        self._watched: dict[str, tuple[TaskRef, AttemptRef]] = {}
        self._due: list[tuple[int, str]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def watched(self) -> int:
        """How many plans are watched."""
        return len(self._watched)

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._look(), name="overdue")

    async def stop(self) -> None:
        """Stops looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def watch(self, task: TaskRef, attempt: AttemptRef) -> None:
        """Looks at a plan again after its deadline, unless it is forgotten before."""
        if task.id in self._watched or len(self._due) >= WATCHED_MAX:
            return
        heapq.heappush(self._due, (task.deadline_ms + GRACE_MS, task.id))
        self._watched[task.id] = (task, attempt)

    def forget(self, task_id: str) -> None:
        """Forgets a plan that is settled."""
        self._watched.pop(task_id, None)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            while self._due and self._due[0][0] <= self._now_ms():
                _, task_id = heapq.heappop(self._due)
                watched = self._watched.pop(task_id, None)
                if watched is None:
                    continue
                try:
                    await self._close(*watched)
                except (BusError, ContractError) as error:
                    log.warning("overdue plan not settled", task=task_id, error=str(error))
