"""Which tasks are to be ended, remembered and told.

Cancellations are read in order from EVENTS, from a while before the start on, so that one that was asked for while
nobody listened is known before the task comes. One rule: a cancellation is remembered as long as a deadline can be
long.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from collegium_contracts import subjects as s
from collegium_contracts.codec import journey
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import CancelRequested, StopReason

from collegium_bus.connection import Connection
from collegium_bus.delivery import Delivery
from collegium_bus.ordered import OrderedReader

LOOK_BACK = timedelta(hours=1)
REMEMBERED = 100_000


class Cancellations:
    """The cancellations of the last hour; ``on_cancel(message)`` is called for each as it comes."""

    def __init__(self, connection: Connection, on_cancel: Callable[[CancelRequested], None]) -> None:
        self._reasons: OrderedDict[str, StopReason] = OrderedDict()
        self._on_cancel = on_cancel
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
        self._on_cancel(message)
