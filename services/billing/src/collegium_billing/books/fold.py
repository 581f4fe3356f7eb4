"""Events in, books and archive out: one transaction a batch, acknowledged by the caller after it.

One rule: every event is archived and booked in the same transaction, and booking it again changes nothing; so a batch
that comes again after a crash between commit and acknowledgement is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import structlog
from collegium_bus.dead import DeadLetters
from collegium_bus.delivery import Delivery
from collegium_bus.events import EventOf
from collegium_bus.slices import in_slices
from collegium_contracts import subjects as s
from collegium_contracts.messages import JourneyMessage
from collegium_runtime.spans import begin_spans
from collegium_store import is_poison
from collegium_store.archive import ArchivedEvent
from collegium_telemetry.metrics import Metrics
from collegium_telemetry.tracing import Tracing

from collegium_billing.books.booking import Booking, Teacher
from collegium_billing.books.store import Store
from collegium_billing.errors import BuryError

SPAN_BOOK: Final = "billing book"

log = structlog.get_logger(__name__)

Event = EventOf[JourneyMessage]


class Fold:
    """Books batches of events."""

    def __init__(
        self,
        store: Store,
        dead_letters: DeadLetters,
        tracing: Tracing,
        metrics: Metrics,
        teachers: Callable[[], Sequence[Teacher]] = tuple,
    ) -> None:
        self._store = store
        self._dead_letters = dead_letters
        self._tracing = tracing
        self._metrics = metrics
        self._teachers = teachers

    async def handle(self, batch: Sequence[Event]) -> None:
        """Books and archives a batch; when it returns, all of it is committed or a dead letter."""
        begun = begin_spans(self._tracing, "billing", SPAN_BOOK, batch)
        try:
            await self._book(batch)
        finally:
            for span in begun:
                span.end()

    async def _book(self, batch: Sequence[Event]) -> None:
        try:
            booking = Booking(self._teachers())
            kept: list[ArchivedEvent] = []
            async for some in in_slices(batch):
                booking.add(event.message for event in some)
                kept += [archived(event) for event in some]
            costs = await self._store.book(booking.books(), kept)
        except Exception as error:
            if not is_poison(error):
                raise
            # One value that PostgreSQL cannot hold must not stop the books of everybody else.
            if len(batch) == 1:
                await self._bury(batch[0].delivery, error)
                return
            log.warning("a batch holds what cannot be booked, booking one by one", events=len(batch))
            for event in batch:
                await self._book([event])
            return
        for model, picos in costs.items():
            self._metrics.add_cost(model, picos)

    async def _bury(self, delivery: Delivery, error: Exception) -> None:
        # The database's own words may quote the value, which may be content.
        state: str = getattr(error, "sqlstate", "")
        detail = f"PostgreSQL refused a value of it ({type(error).__name__}, SQLSTATE {state})"
        if not await self._dead_letters.bury(delivery, "unbookable", detail):
            # Without its cause, which quotes the value and would be logged.
            raise BuryError(
                f"event {delivery.sequence} of {delivery.stream} can be neither booked nor dead-lettered now"
            ) from None


def archived(event: Event) -> ArchivedEvent:
    """Returns an event as the archive keeps it: headers and payload as they were published, claims redeemed."""
    delivery = event.delivery
    about = s.parse_event(delivery.subject)
    return ArchivedEvent(
        stream=delivery.stream,
        sequence=delivery.sequence,
        subject=delivery.subject,
        tenant=about.tenant if about is not None else "",
        task=about.task if about is not None else "",
        at=datetime.fromtimestamp(delivery.timestamp_ns / 1_000_000_000, UTC),
        headers=delivery.block or b"",
        payload=event.payload,
    )
