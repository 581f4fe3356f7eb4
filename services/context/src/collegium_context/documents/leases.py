"""The leases of documents in work: prolonged for as long as somebody works on them, however long they wait for a turn.

One rule: what was given back is never prolonged after it, or it would wait for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Self

import structlog
from collegium_store import is_transient

from collegium_context.documents import indexing_store
from collegium_context.documents.indexing_store import IndexingStore, Taken

log = structlog.get_logger(__name__)

# A renewal may fail twice before the lease lapses.
RENEWALS = 3


class NobodyWaitsError(Exception):
    """All that a place has taken was replaced or removed meanwhile, or has ended: more work on it is in vain."""


class Leases:
    """What one place has taken; as a context manager it prolongs until the end."""

    def __init__(self, store: IndexingStore, taken: Sequence[Taken]) -> None:
        self._store = store
        self._held = {one.version: (one, 0, 0) for one in taken}
        self._writing = asyncio.Lock()
        self._over = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._keeping = asyncio.create_task(self._keep(), name="document-leases")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        if self._keeping is not None:
            await self._keeping

    async def tell(self, counted: Sequence[tuple[Taken, int, int]]) -> None:
        """Tells how many chunks of how many are done, and prolongs; raises :class:`NobodyWaitsError`."""
        for one in counted:
            if one[0].version in self._held:
                self._held[one[0].version] = one
        await self._renew()
        if not self._held:
            raise NobodyWaitsError

    async def put_off(self, taken: Sequence[Taken], seconds: float, *, counts: bool) -> None:
        """Gives documents back; ``counts``: that it did not work was their own doing."""
        async with self._writing:
            for one in taken:
                self._held.pop(one.version, None)
            await self._store.put_off(taken, seconds, counts=counts)

    async def _keep(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), indexing_store.LEASE_SECONDS / RENEWALS)
                return
            try:
                await self._renew()
            except Exception as error:
                if not is_transient(error):
                    log.error("documents in work are not prolonged", exc_info=error)

    async def _renew(self) -> None:
        async with self._writing:
            if self._held:
                waited = await self._store.renew(list(self._held.values()))
                self._held = {version: one for version, one in self._held.items() if version in waited}
