"""What runs, as routers and gateways follow it: one value a tenant in the bucket ``policy``, made of the tables.

Versions of a policy that an experiment or a flag names are put there before it, and taken away after it. One rule: a
value is put only onto the revision that stood before its tables were read, so that no older one follows a newer; no
lock is held while the broker is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import structlog
from collegium_bus.errors import AlreadyStandsError, BusError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts.errors import ContractError
from collegium_contracts.experiments import ExperimentSet, arm_key, set_key

from collegium_evolution.experiments import experiment_store
from collegium_evolution.policies import policy_store

log = structlog.get_logger(__name__)

# Others that publish the same tenant at the same time; beyond that it is mended.
ATTEMPTS_MAX: Final = 5


class Publishing:
    """Writes what runs to the bucket."""

    def __init__(self, pool: Any, bucket: Bucket, now_ms: Callable[[], int]) -> None:
        self._pool = pool
        self._bucket = bucket
        self._now_ms = now_ms

    async def publish(self, tenant: str) -> None:
        """Makes the bucket say what the tables say of a tenant; raises BusError."""
        refused: AlreadyStandsError | None = None
        for _ in range(ATTEMPTS_MAX):
            # Read before the tables: who writes between the two has this one refused, and it looks again.
            revision = await self._revision(set_key(tenant))
            value = await self._value(tenant)
            if value is None:
                return
            await self._arm(tenant, _versions(value))
            try:
                await self._bucket.put(set_key(tenant), codec.encode(value), expected_revision=revision)
            except AlreadyStandsError as error:
                refused = error
                continue
            await self._tidy(tenant)
            if await self._value(tenant) is None:
                # It was erased while this was on its way, and what was put came after.
                await self.erase(tenant)
            return
        if refused is not None:
            raise refused

    async def mend(self) -> None:
        """Writes what the bucket lacks or holds otherwise; what cannot be written now is told, and tried again."""
        named = await experiment_store.named(self._pool)
        for row in await experiment_store.sets(self._pool):
            try:
                standing = await self._standing(row.tenant)
                if row.version and (standing is None or standing.version != row.version):
                    log.warning("experiments mended", tenant=row.tenant, version=row.version)
                    await self.publish(row.tenant)
                elif versions := named.get(row.tenant):
                    await self._arm(row.tenant, versions)
            except BusError as error:
                log.error("experiments not mended", tenant=row.tenant, error=str(error))

    async def erase(self, tenant: str) -> int:
        """Removes what stands of a tenant in the bucket."""
        removed = await self._remove(set_key(tenant))
        async for entry in self._bucket.entries(_arm_keys(tenant)):
            removed += await self._remove(entry.key)
        return removed

    async def _value(self, tenant: str) -> ExperimentSet | None:
        # One moment's view of the tables, which nobody who changes them has to wait for.
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            rows = await experiment_store.sets(connection, tenant)
            running = await experiment_store.running(connection, tenant)
            flags = await experiment_store.flags(connection, tenant)
        if not rows:
            return None
        return ExperimentSet(
            tenant=tenant,
            version=rows[0].version,
            at_ms=self._now_ms(),
            killed=rows[0].killed,
            holdout=rows[0].holdout,
            experiments=[one.running for one in running],
            flags=[one.flag for one in flags if not one.killed],
        )

    async def _arm(self, tenant: str, versions: set[int]) -> None:
        """Puts those versions of a tenant's policy that the bucket lacks."""
        keys = {arm_key(tenant, version): version for version in sorted(versions)}
        standing = await self._bucket.newest(list(keys)) if keys else {}
        for key, version in keys.items():
            stored = await policy_store.version(self._pool, tenant, version) if key not in standing else None
            if stored is not None:
                await self._bucket.put(key, stored.value)

    async def _tidy(self, tenant: str) -> None:
        """Takes versions of a policy away that nothing names any more."""
        # Listed before the tables are read, as above.
        standing = [entry async for entry in self._bucket.entries(_arm_keys(tenant)) if not entry.deleted]
        if not standing:
            return
        named = (await experiment_store.named(self._pool, tenant)).get(tenant, set())
        gone = [entry for entry in standing if entry.key not in {arm_key(tenant, version) for version in named}]
        for entry in gone:
            await self._bucket.delete(entry.key, expected_revision=entry.revision)
            await self._bucket.remove(entry.key, revision=entry.revision)
        if gone:
            # Who found one still standing meanwhile did not put it.
            await self._arm(tenant, (await experiment_store.named(self._pool, tenant)).get(tenant, set()))

    async def _revision(self, key: str) -> int:
        """Returns what a compare-and-set of a key expects: a mark of what was deleted counts too."""
        revision = 0
        async for entry in self._bucket.entries(key):
            revision = entry.revision
        return revision

    async def _standing(self, tenant: str) -> ExperimentSet | None:
        try:
            entry = await self._bucket.get(set_key(tenant))
            value = codec.state.decode(entry.value) if entry is not None else None
        except ContractError:
            return None
        return value if isinstance(value, ExperimentSet) else None

    async def _remove(self, key: str) -> int:
        standing = await self._bucket.get(key)
        if standing is None:
            return 0
        await self._bucket.delete(key, expected_revision=standing.revision)
        await self._bucket.remove(key, revision=standing.revision)
        return 1


def _versions(value: ExperimentSet) -> set[int]:
    changes = [change for one in value.experiments for change in (one.control, one.candidate)]
    return experiment_store.versions_of([*changes, *(flag.change for flag in value.flags)])


def _arm_keys(tenant: str) -> str:
    return f"{arm_key(tenant, 0).rpartition('.')[0]}.*"
