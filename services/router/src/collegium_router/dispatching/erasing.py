"""Erasing a tenant from what waits: queued tasks, dispatched attempts, waiting tasks, schedules and their definitions.

Beside them the ranks that models earned for it alone, which stand in the roster. Work that was dispatched has no tenant
in its subject and is found by its headers. What a worker has in hand ends there, for it can no longer be opened. One
rule: it may be done again at any time.
"""

from __future__ import annotations

from collegium_bus.connection import Connection
from collegium_bus.direct import DirectReader
from collegium_bus.errors import AlreadyStandsError
from collegium_bus.kv import Bucket
from collegium_bus.purging import purge, remove
from collegium_contracts import belongings, codec
from collegium_contracts import subjects as s
from collegium_contracts.state import Roster

from collegium_router.limits.standing import LIMIT
from collegium_router.roster.roster import without


async def erase(connection: Connection, tenant: str) -> int:
    """Removes what waits of a tenant and the ranks earned for it; returns how many messages and ranks that were."""
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
    return removed + await forget_ranks(Bucket(connection, s.KV_MODELS), tenant)


async def forget_ranks(models: Bucket, tenant: str) -> int:
    """Removes the ranks that models earned for a tenant alone, and returns how many those were."""
    while True:
        entry = await models.get(s.ROSTER_KEY)
        standing = codec.state.decode(entry.value) if entry is not None else None
        if entry is None or not isinstance(standing, Roster):
            return 0
        anew, removed = without(standing, tenant)
        if not removed:
            return 0
        try:
            await models.put(s.ROSTER_KEY, codec.encode(anew), expected_revision=entry.revision)
        except AlreadyStandsError:
            continue
        return removed
