"""Events in, scores out: one transaction a batch, acknowledged by the caller after it.

One rule: folding an event again changes nothing, whichever replica did it first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import asyncpg
import structlog
from collegium_bus.dead import DeadLetters
from collegium_bus.errors import BrokerUnavailableError
from collegium_bus.events import EventOf
from collegium_contracts.messages import JourneyMessage
from collegium_runtime.spans import begin_spans
from collegium_telemetry.tracing import Tracing

from collegium_evolution.calibration.cases import kept_of
from collegium_evolution.experiments.exposures import asked_in, exposure_in
from collegium_evolution.policies.decided import decided_in
from collegium_evolution.ranks.pairing import pairs_of, tenant_of
from collegium_evolution.scoreboards.judging import outcome_of
from collegium_evolution.scoreboards.scoring import calls_of
from collegium_evolution.scoreboards.store import Folding, Store
from collegium_evolution.scoreboards.windows import settled_in
from collegium_evolution.students.samples import sample_of
from collegium_evolution.students.tries import try_of

SPAN_FOLD: Final = "evolution fold"

log = structlog.get_logger(__name__)

Event = EventOf[JourneyMessage]


class Fold:
    """Folds batches of events; ``on_change`` is called after a batch that changed a score."""

    def __init__(
        self, store: Store, dead_letters: DeadLetters, tracing: Tracing, on_change: Callable[[], None]
    ) -> None:
        self._store = store
        self._dead_letters = dead_letters
        self._tracing = tracing
        self._on_change = on_change

    async def handle(self, batch: Sequence[Event]) -> None:
        """Folds a batch; when it returns, all of it is committed or a dead letter."""
        spans = begin_spans(self._tracing, "evolution", SPAN_FOLD, batch)
        try:
            counting = [(event, folding) for event in batch if (folding := _folding(event)).counts]
            if await self._fold(counting):
                self._on_change()
        finally:
            for span in spans:
                span.end()

    async def _fold(self, counting: Sequence[tuple[Event, Folding]]) -> int:
        """Folds events and returns how many of them were new."""
        if not counting:
            return 0
        try:
            return await self._store.fold([folding for _, folding in counting])
        except asyncpg.DataError as error:
            # One value that PostgreSQL cannot hold must not stop the scores of all others.
            if len(counting) == 1:
                await self._bury(counting[0][0], error)
                return 0
            log.warning("a batch holds what cannot be scored, folding one by one", events=len(counting))
            return sum([await self._fold([one]) for one in counting])

    async def _bury(self, event: Event, error: asyncpg.DataError) -> None:
        detail = f"PostgreSQL refused a value of it (SQLSTATE {error.sqlstate})"
        if not await self._dead_letters.bury(event.delivery, "unscorable", detail):
            raise BrokerUnavailableError(f"event {event.sequence} can neither be folded nor dead-lettered now")


def _folding(event: Event) -> Folding:
    stored_ns = event.delivery.timestamp_ns
    message = event.message
    return Folding(
        event.sequence,
        stored_ns,
        calls_of(message),
        outcome_of(message, stored_ns),
        kept_of(message),
        tenant_of(message),
        settled_in(message),
        pairs_of(message),
        decided_in(message),
        sample_of(message),
        exposure_in(message),
        asked_in(message),
        try_of(message),
    )
