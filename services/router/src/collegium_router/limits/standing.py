"""What stands in WORK: the attempts that were dispatched and have not ended, told by their headers alone."""

from __future__ import annotations

from collegium_bus.direct import DirectReader
from collegium_contracts import subjects as s

from collegium_router.limits.permits import AttemptKey, Permit

# WORK holds at most 1,024 messages a pool and priority.
LIMIT = 50_000


async def standing_work(direct: DirectReader, now_ms: int) -> list[Permit]:
    """Lists the attempts in WORK as permits; a message without our headers is nobody's. Raises NoAnswerError."""
    found: list[Permit] = []
    for stored in await direct.headers(s.WORK, s.WORK_ALL, limit=LIMIT):
        headers = stored.headers
        task, number, try_number = headers.get(s.H_TASK), headers.get(s.H_ATTEMPT, ""), headers.get(s.H_TRY, "")
        if task and number.isdigit() and try_number.isdigit():
            key = AttemptKey(task, int(number), int(try_number))
            tenant, model = headers.get(s.H_TENANT, ""), headers.get(s.H_MODEL, "")
            bound = headers.get(s.H_BOUND, "")
            tokens = int(bound) if bound.isascii() and bound.isdigit() else 0
            found.append(Permit(key, tenant, model, headers.get(s.H_POOL, ""), now_ms, now_ms, tokens))
    return found
