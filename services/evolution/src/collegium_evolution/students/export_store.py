"""Exports that were written: their manifests, which stay when their lines are gone. One rule: each is one tenant's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import asyncpg
import msgspec

ROWS_MAX: Final = 500
_PUT: Final = """
INSERT INTO evolution.exports (id, tenant, domain, made_ms, content, manifest, held)
VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7)
ON CONFLICT DO NOTHING
"""
_ROW: Final = "SELECT manifest, content FROM evolution.exports WHERE id = $1 AND tenant = $2"


class ExportStore:
    """Manifests over a pool of connections."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def put(self, manifest: dict[str, Any], content: str, held: Sequence[str] = ()) -> None:
        """Keeps a manifest, the claim of its lines, and the tasks that a model made of them is asked."""
        await self._pool.execute(
            _PUT,
            manifest["id"],
            manifest["tenant"],
            manifest["domain"],
            manifest["made_ms"],
            content,
            msgspec.json.encode(manifest).decode(),
            list(held),
        )

    async def manifest(self, export_id: str, tenant: str) -> dict[str, Any] | None:
        """Returns a tenant's manifest, none where it has none of this id."""
        found = await self.written(export_id, tenant)
        return msgspec.json.decode(found[0], type=dict[str, Any]) if found is not None else None

    async def held(self, export_id: str, tenant: str) -> list[str]:
        """Returns the tasks of a tenant's export that a model made of it is asked."""
        statement = "SELECT held FROM evolution.exports WHERE id = $1 AND tenant = $2"
        return list(await self._pool.fetchval(statement, export_id, tenant) or ())

    async def written(self, export_id: str, tenant: str) -> tuple[bytes, str] | None:
        """Returns a tenant's manifest as JSON and the claim of its lines, none where it has none of this id."""
        row = await self._pool.fetchrow(_ROW, export_id, tenant)
        return (row["manifest"].encode(), row["content"]) if row is not None else None
