"""The SQL of changes of ranks. One rule: a change is decided here first, and applied when the roster holds it."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from typing import Any, Final

import msgspec
from collegium_contracts.evolution import RankChangeRow

from collegium_evolution.ranks.pair_store import Changed

HISTORY_MAX: Final = 1_000

_decode = msgspec.json.Decoder(RankChangeRow).decode

_ADD: Final = """
INSERT INTO evolution.rank_changes (id, model, domain, tenant, at_ms, state, row)
VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb) ON CONFLICT (id) DO NOTHING
"""
_SETTLE: Final = """
UPDATE evolution.rank_changes SET state = $2, row = row || jsonb_build_object('state', $2::text, 'before', $3::text)
WHERE id = $1
"""
_REFUSE: Final = """
UPDATE evolution.rank_changes SET state = 'refused', row = row || '{"state": "refused"}'
WHERE id = $1 AND state = 'decided'
"""
_DECIDED: Final = """
SELECT one.row, EXISTS (
    SELECT 1 FROM evolution.rank_changes AS later
    WHERE later.model = one.model AND later.domain IS NOT DISTINCT FROM one.domain AND later.tenant = one.tenant
          AND later.state = 'applied' AND later.number > one.number
) AS is_late
FROM evolution.rank_changes AS one WHERE one.state = 'decided' ORDER BY one.number
"""
_HISTORY: Final = """
SELECT row FROM evolution.rank_changes
WHERE ($1 = '' OR model = $1) AND ($2::text IS NULL OR tenant IN ('', $2))
ORDER BY number DESC LIMIT $3
"""
_PLACE: Final = """
SELECT row FROM evolution.rank_changes
WHERE model = $1 AND domain IS NOT DISTINCT FROM $2 AND tenant = $3 AND state = 'applied'
ORDER BY number DESC LIMIT $4
"""
_LAST: Final = """
SELECT DISTINCT ON (model, domain, tenant) model, domain, tenant, at_ms FROM evolution.rank_changes
WHERE domain IS NOT NULL AND state <> 'refused' ORDER BY model, domain, tenant, number DESC
"""


async def add(pool: Any, change: RankChangeRow) -> None:
    """Keeps a change; the same id again changes nothing."""
    row = msgspec.json.encode(change).decode()
    place = (change.id, change.model, change.domain, change.tenant, change.at_ms, change.state)
    await pool.execute(_ADD, *place, row)


async def settle(pool: Any, change: RankChangeRow) -> None:
    """Keeps what became of a change: its state, and the rank that applied before."""
    await pool.execute(_SETTLE, change.id, change.state, change.before)


async def refuse(pool: Any, change_id: str) -> None:
    """Gives a change up that is decided and not applied; any other stays as it is."""
    await pool.execute(_REFUSE, change_id)


async def decided(pool: Any) -> list[tuple[RankChangeRow, bool]]:
    """Returns changes that are not in the roster yet, the oldest first, and whether one after them is, in its place."""
    return [(_decode(row["row"]), row["is_late"]) for row in await pool.fetch(_DECIDED)]


async def history(pool: Any, model: str, tenant: str | None, limit: int) -> list[RankChangeRow]:
    """Returns changes, the newest first: of one model or of all; of one tenant and of all, or everybody's."""
    rows = await pool.fetch(_HISTORY, model, tenant, max(1, min(limit, HISTORY_MAX)))
    return [_decode(row["row"]) for row in rows]


async def of_cycle(pool: Any, cycle: str) -> list[RankChangeRow]:
    """Returns the changes that a round has applied so far, the oldest first."""
    statement = "SELECT row FROM evolution.rank_changes WHERE state = 'applied' AND row->>'cycle' = $1 ORDER BY number"
    return [_decode(row["row"]) for row in await pool.fetch(statement, cycle)]


async def standing(pool: Any, model: str, domain: str | None, tenant: str, limit: int) -> list[RankChangeRow]:
    """Returns the changes that were applied in one place, the newest first."""
    rows = await pool.fetch(_PLACE, model, domain, tenant, limit)
    return [_decode(row["row"]) for row in rows]


async def last_changes(pool: Any) -> list[Changed]:
    """Returns when each model's rank last changed in each domain."""
    rows = await pool.fetch(_LAST)
    return [Changed(row["model"], row["domain"], row["tenant"], row["at_ms"]) for row in rows]


async def erase(pool: Any, tenant: str) -> int:
    """Removes the changes that were one tenant's alone and returns how many those were."""
    status: str = await pool.execute("DELETE FROM evolution.rank_changes WHERE tenant = $1", tenant)
    return int(status.rpartition(" ")[2])
