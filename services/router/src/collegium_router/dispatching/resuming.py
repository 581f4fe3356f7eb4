"""Open plans that an owner before may have begun: what they became is read, so that nobody decides it twice.

A plan of several is noted before its first attempt, one of a single attempt is not; so a task without a note goes on as
a single one, which is what it became if it had begun at all. Decided anew it might become the other: two plans of one
task would wait for each other's attempts. One rule: a task whose plan cannot be read waits.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog
from collegium_bus.errors import BusError
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import TaskDispatched, TaskSubmitted
from collegium_contracts.openplans import as_planned
from collegium_runtime.platform import Platform

from collegium_router.queue.intake import Queued

log = structlog.get_logger(__name__)

# An owner that takes over may find thousands of tasks; so many are read at a time.
READERS_MAX: Final = 16


class Resuming:
    """Reads what replayed tasks became; ``still_ours`` as for dispatching, ``enter`` takes a task afterwards."""

    def __init__(
        self, platform: Platform, still_ours: Callable[[Queued], bool], enter: Callable[[Queued], None]
    ) -> None:
        self._platform = platform
        self._still_ours = still_ours
        self._enter = enter
        self._waiting: deque[Queued] = deque()
        self._working: set[asyncio.Task[None]] = set()

    def begin(self, queued: Queued) -> None:
        """Takes one replayed message of an open plan."""
        self._waiting.append(queued)
        if len(self._working) < READERS_MAX:
            task = asyncio.create_task(self._read(), name="resume")
            self._working.add(task)
            task.add_done_callback(self._working.discard)

    async def stop(self) -> None:
        """Reads no more; what was being read stays in INGRESS."""
        self._waiting.clear()
        for task in list(self._working):
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)

    async def _read(self) -> None:
        while self._waiting:
            await self._resume(self._waiting.popleft())

    async def _resume(self, queued: Queued) -> None:
        submitted = queued.message
        assert isinstance(submitted, TaskSubmitted), "an attempt's plan is never open"
        while self._still_ours(queued):
            try:
                queued.message = await self._begun(submitted) or as_planned(submitted, "single")
            except BusError as error:
                log.warning("plan not read, trying again", task=submitted.task.id, error=str(error))
                await asyncio.sleep(random.uniform(0.1, 1.0))  # noqa: S311 - jitter
                continue
            self._enter(queued)
            return

    async def _begun(self, submitted: TaskSubmitted) -> TaskSubmitted | None:
        """Returns the task as its note has it; none where there is no note that can be read."""
        task, sequence = submitted.task, 0
        while stored := await self._platform.direct.after(s.EVENTS, sequence, s.task_changed(task.tenant, task.id)):
            sequence = stored.sequence
            claim = stored.headers.get(s.H_CLAIM)
            try:
                message = codec.journey.decode(await self._platform.claims.get(claim) if claim else stored.payload)
            except ContractError as error:
                log.error("note of a plan unreadable", task=task.id, error=str(error))
                continue
            if isinstance(message, TaskDispatched) and message.submitted is not None:
                return message.submitted
        return None
