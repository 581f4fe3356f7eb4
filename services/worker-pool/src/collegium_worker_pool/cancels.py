"""Which tasks are to be ended, and the calls that run for them.

Cancellations are read in order from EVENTS, from a while before the start on, so that one that was asked for while no
worker ran is known before the task's attempt comes. One rule: a cancellation is remembered as long as a deadline can
be long.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import UTC, datetime, timedelta

from collegium_bus.connection import Connection
from collegium_bus.delivery import Delivery
from collegium_bus.ordered import OrderedReader
from collegium_contracts import subjects as s
from collegium_contracts.codec import journey
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import CancelRequested, StopReason

LOOK_BACK = timedelta(hours=1)
REMEMBERED = 100_000


class Cancels:
    """The cancellations of the last hour, and the running calls that they end."""

    def __init__(self, connection: Connection) -> None:
        self._reasons: OrderedDict[str, StopReason] = OrderedDict()
        self._running: dict[str, list[asyncio.Timeout]] = {}
        since = (datetime.now(UTC) - LOOK_BACK).isoformat().replace("+00:00", "Z")
        self._reader = OrderedReader(
            connection, s.EVENTS, [s.CANCEL_ALL], self._receive, start_time=since, label="cancels"
        )

    async def start(self) -> None:
        """Reads what was asked for of late, then follows."""
        self._reader.start()
        await self._reader.caught_up.wait()

    async def stop(self) -> None:
        """Stops following."""
        await self._reader.stop()

    def reason(self, task_id: str) -> StopReason | None:
        """Why a task is to be ended; none where it is not."""
        return self._reasons.get(task_id)

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

    def _receive(self, delivery: Delivery) -> None:
        try:
            message = journey.decode(delivery.payload)
        except ContractError:
            return
        if not isinstance(message, CancelRequested):
            return
        self._reasons[message.task_id] = message.reason
        while len(self._reasons) > REMEMBERED:
            self._reasons.popitem(last=False)
        for scope in self._running.get(message.task_id, ()):
            scope.reschedule(asyncio.get_running_loop().time())
