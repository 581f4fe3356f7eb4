"""Erasing a tenant from what waits: queued tasks, waiting tasks, schedules and their definitions.

Work that was dispatched has no tenant in its subject: it ends at the worker, which can no longer open it.
"""

from __future__ import annotations

from collegium_bus.connection import Connection
from collegium_bus.purging import purge
from collegium_contracts import subjects as s


async def erase(connection: Connection, tenant: str) -> int:
    """Removes what waits of a tenant and returns how many messages that were."""
    filters = [
        *((s.INGRESS, subject) for subject in s.ingress_of_tenant(tenant)),
        (s.SCHEDULE, s.schedule_tasks_of(tenant)),
        (s.SCHEDULE, s.schedule_crons_of(tenant)),
        s.kv_of_tenant(s.KV_SCHEDULES, tenant),
    ]
    return sum([await purge(connection, stream, subject) for stream, subject in filters])
