"""Who is let in: a tenant whose data key stands, and who is not being erased.

A tenant's first data key is made when the gateway first hears of it, so that no request ever waits for one. A change of
a tenant that has its key (a revoked key above all) counts at once. One rule: nothing is sealed for a tenant whose data
is being destroyed.
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog
from collegium_contracts.envelope import UnknownKeyError
from collegium_contracts.state import TenantRecord
from collegium_runtime.datakeys import DataKeys

from collegium_gateway.identity.principal import KeyBook

log = structlog.get_logger(__name__)

AT_ONCE = 32
AGAIN_SECONDS = 1.0


class LettingIn:
    """Passes tenants on to the book of keys."""

    def __init__(self, book: KeyBook, data_keys: DataKeys | None) -> None:
        self._book = book
        self._data_keys = data_keys
        self._waiting: dict[str, TenantRecord] = {}
        self._shut: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Makes the keys that are wanting, then goes on with those of later tenants."""
        await self._make_all()
        self._task = asyncio.create_task(self._run(), name="data-keys")

    async def stop(self) -> None:
        """Stops; who waits is let in at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def learn(self, tenant: TenantRecord) -> None:
        """Takes a tenant's record as it stands now."""
        if tenant.id in self._shut or (self._data_keys is not None and self._data_keys.is_erased(tenant.id)):
            self._book.learn(msgspec.structs.replace(tenant, keys=[]))
        elif self._data_keys is None or self._data_keys.ring.holds(tenant.id) or tenant.state == "deleted":
            self._waiting.pop(tenant.id, None)
            self._book.learn(tenant)
        else:
            self._waiting[tenant.id] = tenant
            self._wake.set()

    def shut(self, tenant: str) -> None:
        """Lets a tenant in no more: it is being erased."""
        self._shut.add(tenant)
        self._waiting.pop(tenant, None)
        self._book.learn(TenantRecord(id=tenant, tier="", state="deleted"))

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not await self._make_all():
                self._wake.set()
                await asyncio.sleep(AGAIN_SECONDS)

    async def _make_all(self) -> bool:
        """Makes the keys of those who wait now; false where one could not be made."""
        for_now = list(self._waiting)
        made: list[bool] = []
        for start in range(0, len(for_now), AT_ONCE):
            made += await asyncio.gather(*map(self._make, for_now[start : start + AT_ONCE]))
        return all(made)

    async def _make(self, tenant: str) -> bool:
        assert self._data_keys is not None, "nobody waits where there are no keys"
        try:
            await self._data_keys.ensure(tenant)
        except UnknownKeyError:
            self.shut(tenant)
            return True
        except Exception as error:  # whatever failed, the tenant is let in in the end, and so are those after it
            log.error("a tenant waits for its data key", tenant=tenant, error=str(error))
            return False
        if (record := self._waiting.pop(tenant, None)) is not None:
            self._book.learn(record)
        return True
