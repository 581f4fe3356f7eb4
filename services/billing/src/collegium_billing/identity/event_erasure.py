"""Erasing a tenant from EVENTS, once everybody has read what stands there.

What is charged is in events first and in the books later, and other services fold them too; so nothing goes before all
consumers of the stream have done with it. Billing does it, because the books are what must not miss an event. One rule:
the broker removes only up to the sequence that all have acknowledged.
"""

from __future__ import annotations

import asyncio
from typing import Final

from collegium_bus.connection import Connection
from collegium_bus.errors import NoAnswerError
from collegium_bus.purging import purge, read_up_to
from collegium_contracts import belongings
from collegium_contracts import subjects as s
from collegium_contracts.consumers import CONSUMERS

READERS: Final = tuple(consumer.durable for consumer in CONSUMERS if consumer.stream == s.EVENTS)
LOOKS: Final = 20
LOOK_SECONDS: Final = 0.25


async def erase_events(connection: Connection, tenant: str) -> int:
    """Removes a tenant's events and returns how many there were.

    Raises NoAnswerError where a consumer has not done with what stood when it was called: it is tried again.
    """
    removed, wanted = 0, 0
    for _ in range(LOOKS):
        floor, last = await read_up_to(connection, s.EVENTS, READERS)
        wanted = wanted or last
        if floor:
            for subject in belongings.events_of(tenant):
                removed += await purge(connection, s.EVENTS, subject, up_to=floor)
        if floor >= wanted:
            return removed
        await asyncio.sleep(LOOK_SECONDS)
    raise NoAnswerError(f"events of tenant {tenant} are still to be read; they are removed when they were")
