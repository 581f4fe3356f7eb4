"""The running calls that a cancellation ends.

What was asked for is remembered by :class:`collegium_bus.cancels.Cancellations`. One rule: a call that begins after
its task was canceled is not made.
"""

from __future__ import annotations

import asyncio

from collegium_bus.cancels import Cancellations
from collegium_bus.connection import Connection
from collegium_contracts.messages import CancelRequested, StopReason


class Cancels:
    """The cancellations of the last hour, and the calls that run."""

    def __init__(self, connection: Connection) -> None:
        self._running: dict[str, list[asyncio.Timeout]] = {}
        self._remembered = Cancellations(connection, self._end)

    async def start(self) -> None:
        """Reads what was asked for of late, then follows."""
        await self._remembered.start()

    async def stop(self) -> None:
        """Stops following."""
        await self._remembered.stop()

    def reason(self, task_id: str) -> StopReason | None:
        """Why a task is to be ended; none where it is not."""
        return self._remembered.reason(task_id)

    def watch(self, task_id: str, scope: asyncio.Timeout) -> None:
        """Ends the scope when the task is canceled."""
        self._running.setdefault(task_id, []).append(scope)

    def unwatch(self, task_id: str, scope: asyncio.Timeout) -> None:
        """Forgets a scope."""
        scopes = self._running.get(task_id)
        if scopes is not None and scope in scopes:
            scopes.remove(scope)
            if not scopes:
                del self._running[task_id]

    def _end(self, message: CancelRequested) -> None:
        for scope in self._running.get(message.task_id, ()):
            scope.reschedule(asyncio.get_running_loop().time())
