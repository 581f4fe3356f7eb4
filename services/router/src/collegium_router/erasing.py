"""Erasing a tenant from what waits: queued tasks, dispatched attempts, waiting tasks, schedules and their definitions.

Work that was dispatched has no tenant in its subject and is found by its headers. What a worker has in hand ends there,
for it can no longer be opened. One rule: it may be done again at any time.
"""

from __future__ import annotations

from collegium_bus.connection import Connection
from collegium_bus.direct import DirectReader
from collegium_bus.purging import purge, remove
from collegium_contracts import belongings
from collegium_contracts import subjects as s

from collegium_router.standing import LIMIT


async def erase(connection: Connection, tenant: str) -> int:
    """Removes what waits of a tenant and returns how many messages that were."""
    filters = [
        *((s.INGRESS, subject) for subject in belongings.ingress_of(tenant)),
        (s.SCHEDULE, belongings.scheduled_of(tenant)),
        (s.SCHEDULE, belongings.crons_of(tenant)),
        belongings.bucket_of(s.KV_SCHEDULES, tenant),
    ]
    removed = sum([await purge(connection, stream, subject) for stream, subject in filters])
    for stored in await DirectReader(connection).headers(s.WORK, s.WORK_ALL, limit=LIMIT):
        if stored.headers.get(s.H_TENANT) == tenant:
            removed += await remove(connection, s.WORK, stored.sequence)
    return removed
