"""Reading what streams hold of a subject to its end: for operators, who look at one task or at what passed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import JourneyMessage

from collegium_bus.claims import ClaimStore
from collegium_bus.connection import Connection
from collegium_bus.delivery import Delivery
from collegium_bus.errors import BrokerUnavailableError
from collegium_bus.ordered import OrderedReader

READ_SECONDS: Final = 30.0


async def task_events(connection: Connection, task_id: str, tenant: str = "") -> list[tuple[int, int, JourneyMessage]]:
    """Returns a task's stored events: sequence, stored at (Unix ms), message; without ``tenant`` whosever it is.

    Raises InvalidIdError for a tenant that can be none.
    """
    events: list[tuple[int, int, JourneyMessage]] = []
    for delivery in await read_all(connection, s.EVENTS, s.events_of_task(task_id, tenant)):
        with contextlib.suppress(ContractError):
            claim = delivery.header(s.H_CLAIM)
            payload = await ClaimStore(connection).get(claim) if claim else delivery.payload
            events.append((delivery.sequence, delivery.timestamp_ns // 1_000_000, codec.journey.decode(payload)))
    return events


async def read_all(
    connection: Connection, stream: str, filters: Sequence[str], *, start_time: str | None = None
) -> list[Delivery]:
    """Returns everything that stands on the filters, in order; raises BrokerUnavailableError if it takes too long."""
    found: list[Delivery] = []
    reader = OrderedReader(connection, stream, filters, found.append, start_time=start_time, label="operator")
    reader.start()
    try:
        async with asyncio.timeout(READ_SECONDS):
            await reader.caught_up.wait()
    except TimeoutError as error:
        raise BrokerUnavailableError(f"{stream} could not be read within {READ_SECONDS:g} s") from error
    finally:
        await reader.stop()
    return found
