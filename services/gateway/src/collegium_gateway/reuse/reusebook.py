"""Telling of reused answers: collected, and published once a second at most, as one message.

Billing books them and the read model shows them. What is collected and not yet told is lost with the process, and so
is its count; nothing was charged. One rule: a full book reuses nothing more until it was told, so that whatever was
reused is counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import msgspec
import structlog
from collegium_bus.errors import BusError
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.messages import AnswersReused, TaskCompleted
from collegium_runtime.platform import Platform

from collegium_gateway.reuse.reusing import NO_OUTPUT

log = structlog.get_logger(__name__)

TELL_SECONDS: Final = 1.0
# Half a kilobyte each. More than a gateway answers in the 15 seconds that a publish is tried.
MAX_COLLECTED: Final = 50_000
# What a second brings at most, and what one claim check carries easily.
MAX_TOLD: Final = 5_000
# A stop must not wait for a broker that is away.
LAST_SECONDS: Final = 2.0


class ReuseBook:
    """The reused answers of this replica that were not told of yet."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._replica = platform.connection.instance
        self._collected: deque[tuple[TaskCompleted, str]] = deque()
        self._told = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to tell."""
        self._task = asyncio.create_task(self._keep_telling(), name="reused-answers")

    async def stop(self) -> None:
        """Tells of the rest, where the broker takes it in time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(LAST_SECONDS):
                while self._collected:
                    await self._tell()
        except (TimeoutError, BusError) as error:
            log.warning("reused answers not told of", answers=len(self._collected), error=str(error))

    @property
    def is_full(self) -> bool:
        """Whether nothing more can be noted."""
        return len(self._collected) >= MAX_COLLECTED

    def note(self, settled: TaskCompleted, trace_id: str) -> None:
        """Notes a reused answer, without its text (the original has it), and the trace of who got it."""
        self._collected.append((msgspec.structs.replace(settled, output=NO_OUTPUT), trace_id))

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            if not self._collected:
                continue
            try:
                await self._tell()
            except BusError as error:
                log.warning("reused answers not told of yet", answers=len(self._collected), error=str(error))

    async def _tell(self) -> None:
        # They stay collected until they are stored. A batch whose acknowledgement was lost may come again with others
        # behind it; who books it goes by the tasks' ids.
        batch = [self._collected[index] for index in range(min(MAX_TOLD, len(self._collected)))]
        await self._platform.publisher.publish(
            s.reused(self._replica),
            codec.encode(AnswersReused(answers=[one for one, _ in batch], traces=[trace for _, trace in batch])),
            message_id=f"{self._replica}.reused.{self._told}.{len(batch)}",
        )
        self._told += 1
        for _ in batch:
            self._collected.popleft()
