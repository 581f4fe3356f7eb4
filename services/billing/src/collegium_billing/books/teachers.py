"""The roster's teachers as billing knows them: what a cheaper answer is compared with.

One rule: booking never waits for the roster; where it is not known yet, a task has no reference and saves nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from collegium_bus.connection import Connection
from collegium_bus.kv import Bucket, Entry
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.priceversions import PriceClock
from collegium_contracts.state import Roster

from collegium_billing.books.booking import TEACHER, Teacher

log = structlog.get_logger(__name__)


class Teachers:
    """Follows the roster; call it for the teachers of now."""

    def __init__(self, connection: Connection, now_ms: Callable[[], int]) -> None:
        self._prices = PriceClock()
        self._now_ms = now_ms
        self._watch = Bucket(connection, s.KV_MODELS).watch(self._learn)

    def __call__(self) -> tuple[Teacher, ...]:
        """Returns the enabled teachers."""
        models = self._prices.models(self._now_ms())
        return tuple(Teacher(one.name, one.charge) for one in models if one.enabled and one.rank == TEACHER)

    async def start(self) -> None:
        """Reads the roster as it stands, then follows it."""
        await self._watch.start()

    async def stop(self) -> None:
        """Stops following."""
        await self._watch.stop()

    def _learn(self, entry: Entry) -> None:
        try:
            roster = codec.state.decode(entry.value)
        except ContractError as error:
            log.warning("roster unreadable", error=str(error))
            return
        if isinstance(roster, Roster):
            self._prices = PriceClock(roster.models)
