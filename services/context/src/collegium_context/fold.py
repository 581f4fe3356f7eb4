"""Settled tasks in, turns out: one statement a batch, acknowledged by the caller after it.

Only completed tasks of a conversation leave a turn, unless memory was switched off for them. One rule: content that
cannot be read is dead-lettered with its event, and the turns of everybody else are stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import msgspec
import structlog
from collegium_bus.dead import DeadLetters
from collegium_bus.errors import BrokerUnavailableError
from collegium_bus.events import EventOf
from collegium_contracts.envelope import Keyring, UnknownKeyError, held
from collegium_contracts.memory_paths import OFF
from collegium_contracts.messages import SettledMessage, TaskCompleted
from collegium_runtime.spans import begin_spans
from collegium_telemetry.tracing import Tracing

from collegium_context.memory.places import place
from collegium_context.store import Store, TurnRow
from collegium_context.telemetry import SPAN_FOLD
from collegium_context.turn import make_turn

log = structlog.get_logger(__name__)

Event = EventOf[SettledMessage]


class Fold:
    """Stores the turns of batches of settled tasks."""

    def __init__(self, store: Store, keyring: Keyring, dead_letters: DeadLetters, tracing: Tracing) -> None:
        self._store = store
        self._keyring = keyring
        self._dead_letters = dead_letters
        self._tracing = tracing

    async def handle(self, batch: Sequence[Event]) -> None:
        """Stores a batch; when it returns, every turn of it is committed or a dead letter."""
        spans = begin_spans(self._tracing, "context", SPAN_FOLD, batch)
        try:
            read = [(event, row) for event in batch if (row := await self._read(event)) is not None]
            await self._add(read)
        finally:
            for span in spans:
                span.end()

    async def _read(self, event: Event) -> TurnRow | None:
        settled = event.message
        if not isinstance(settled, TaskCompleted) or not settled.task.conversation or settled.turn is None:
            return None
        if settled.task.memory == OFF:
            return None
        tenant = settled.task.tenant
        try:
            await held(self._keyring, tenant, settled.turn, settled.output)
            turn = make_turn(self._keyring.open(tenant, settled.turn), self._keyring.open(tenant, settled.output))
        except UnknownKeyError as error:
            await self._bury(event, error.code, str(error))
            return None
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            # The error's own words may quote the content.
            await self._bury(event, "unreadable_content", type(error).__name__)
            return None
        if not turn.messages:
            return None
        sealed = self._keyring.seal(tenant, turn.body)
        return TurnRow(
            task_id=settled.task.id,
            tenant=tenant,
            conversation=place(settled.task.project, settled.task.conversation),
            sequence=event.sequence,
            key_id=sealed.key_id,
            nonce=sealed.nonce,
            body=sealed.body,
            messages=turn.messages,
            bytes=len(sealed.body),
            created_at_ms=event.delivery.timestamp_ns // 1_000_000,
        )

    async def _add(self, read: Sequence[tuple[Event, TurnRow]]) -> None:
        if not read:
            return
        try:
            await self._store.add([row for _, row in read])
        except asyncpg.DataError as error:
            # One value that PostgreSQL cannot hold must not stop the conversations of everybody else.
            if len(read) == 1:
                await self._bury(
                    read[0][0], "unstorable", f"PostgreSQL refused a value of it (SQLSTATE {error.sqlstate})"
                )
                return
            log.warning("a batch holds what cannot be stored, storing one by one", turns=len(read))
            for one in read:
                await self._add([one])

    async def _bury(self, event: Event, cause: str, detail: str) -> None:
        if not await self._dead_letters.bury(event.delivery, cause, detail):
            raise BrokerUnavailableError(f"event {event.sequence} can neither be folded nor dead-lettered now")
