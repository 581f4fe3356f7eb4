"""The directory of tenants and keys: PostgreSQL is the truth, the bucket ``tenants`` is what gateways follow.

A change commits first and is then published by compare-and-set. Where publishing fails, the tenant is noted and
published in the background until it stands; at start everything that differs is published. One rule: a record is made
from what the database says after the bucket's revision was read, so an older state never replaces a newer one.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from collegium_bus.errors import AlreadyStandsError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_settings.settings import TenantSettings

from collegium_billing.errors import KeyConflictError, PublicationError, QuestionError
from collegium_billing.identity import admin_key, introduction, keys, tenancy
from collegium_billing.identity.keys import ApiKey, Key, Tenant
from collegium_billing.identity.store import IdentityStore

log = structlog.get_logger(__name__)

TENANTS_MAX = 8_000  # what one TenantsReply holds
PUBLISH_TRIES = 20
# Answers leave within the five seconds that an asker waits; the background goes on after that.
PUBLISH_SECONDS = 3.0
REPUBLISH_SECONDS = 2.0


class Directory:
    """Introduces the operator and configured tenants, creates tenants, and publishes every change."""

    def __init__(self, store: IdentityStore, bucket: Bucket, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._bucket = bucket
        self.now_ms = now_ms
        self._unpublished: dict[str, int] = {}
        self._changes = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def unpublished(self) -> int:
        """How many tenants the gateways do not yet see as they are."""
        return len(self._unpublished)

    async def start(self, configured: Sequence[TenantSettings], data_dir: Path) -> None:
        """Creates what is absent (the operator, the configured tenants) and publishes all that differs."""
        operator_key = admin_key.read_or_make(data_dir, lambda: keys.make(secrets.choice))
        await self._introduce_operator(operator_key)
        for tenant in configured:
            await self._introduce(tenant)
        for tenant in await self._store.tenants(TENANTS_MAX):
            await self._publish(tenant.id)
        self._task = asyncio.create_task(self._republish(), name="billing-republish")

    async def introduce(self, configured: Sequence[TenantSettings]) -> None:
        """Creates and publishes configured tenants that are absent."""
        for tenant in configured:
            await self._introduce(tenant)
            await self.publish_soon(tenant.id)

    async def stop(self) -> None:
        """Stops publishing; what is unpublished is published at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def create_tenant(self, tenant_id: str, tier: str) -> Tenant:
        """Creates and publishes a tenant; raises QuestionError where it stands."""
        tenant = Tenant(id=tenant_id, tier=tier, created_at_ms=self.now_ms())
        if await self._store.count_tenants() >= TENANTS_MAX:
            raise QuestionError("invalid_value", f"there are {TENANTS_MAX} tenants, the most that are kept", "tenant")
        if not await self._store.create_tenant(tenant):
            raise QuestionError("already_exists", f"tenant {tenant_id} stands already", "tenant")
        await self.publish_soon(tenant_id)
        return tenant

    async def publish(self, tenant_id: str) -> None:
        """Publishes a tenant whose rows were changed elsewhere; raises where that fails."""
        await self._publish(tenant_id)

    async def _introduce_operator(self, api_key: ApiKey) -> None:
        operator = Tenant(id=keys.OPERATOR, tier=keys.OPERATOR_TIER, created_at_ms=self.now_ms())
        await self._store.create_tenant(operator)
        key = self._key(operator.id, api_key, keys.OPERATOR_SCOPES, name=admin_key.FILE_NAME)
        async with self._store.change(operator.id, self.now_ms()) as change:
            # Without a place among the live keys the file's key would be refused at the door: nothing is added then.
            if change is not None and sum(one.lives(self.now_ms()) for one in change.before.keys) < keys.LIVE_KEYS_MAX:
                await change.add_key(key)
        standing = await self._store.key(key.id)
        if standing is None or (standing.tenant, standing.secret_sha256) != (key.tenant, key.secret_sha256):
            raise KeyConflictError(
                f"{admin_key.FILE_NAME}: public id {key.id} belongs to another key, or the operator has "
                f"{keys.LIVE_KEYS_MAX} live keys; remove the file to have a new key made, or revoke one"
            )
        if standing.revoked_at_ms is not None:
            log.warning("the operator's key was revoked and stays so", file=admin_key.FILE_NAME, key=key.id)

    async def _introduce(self, configured: TenantSettings) -> None:
        tenant = Tenant(
            id=configured.id,
            tier=configured.tier,
            created_at_ms=self.now_ms(),
            stale_answers=configured.cache.stale,
            pool=configured.pool or "",
            gates=configured.gates,
            collects_since_ms=self.now_ms() if configured.learning.collect else 0,
        )
        api_key = (
            keys.parse(configured.api_key.reveal(), f"tenants[{tenant.id}].api_key") if configured.api_key else None
        )
        if await self._store.tenant(tenant.id) is not None:
            await introduction.introduce(self._store, configured, self.now_ms())
            return
        first = self._key(tenant.id, api_key, keys.TENANT_SCOPES, name="configuration") if api_key is not None else None
        # Another replica may have made the same tenant in this moment; only its absence tells of a taken public id.
        if not await self._store.create_tenant(tenant, first) and await self._store.tenant(tenant.id) is None:
            raise KeyConflictError(
                f"tenants[{tenant.id}].api_key: its public id belongs to another key; give the tenant a key of its own"
            )
        await introduction.introduce(self._store, configured, self.now_ms())

    def _key(
        self, tenant: str, api_key: ApiKey, scopes: Sequence[str], *, name: str, project: str = keys.DEFAULT_PROJECT
    ) -> Key:
        return Key(
            id=api_key.public_id,
            tenant=tenant,
            secret_sha256=api_key.secret_sha256,
            project=project,
            scopes=tuple(scopes),
            name=name,
            created_at_ms=self.now_ms(),
        )

    async def publish_soon(self, tenant_id: str) -> bool:
        """Publishes within PUBLISH_SECONDS; false where it is left to the background."""
        mark = self._mark(tenant_id)
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await self._publish(tenant_id)
        except Exception as error:  # the change is kept, and the background publishes it, whatever failed here
            log.error("tenant not published yet", tenant=tenant_id, error=str(error))
            self._wake.set()
            return False
        self._clear(tenant_id, mark)
        return True

    def _mark(self, tenant_id: str) -> int:
        self._changes += 1
        self._unpublished[tenant_id] = self._changes
        return self._changes

    def _clear(self, tenant_id: str, mark: int) -> None:
        # A change that came while this one was being published has a mark of its own.
        if self._unpublished.get(tenant_id) == mark:
            del self._unpublished[tenant_id]

    async def _publish(self, tenant_id: str) -> None:
        for _ in range(PUBLISH_TRIES):
            entry = await self._bucket.get(tenant_id)
            standing = await self._store.standing(tenant_id)
            if standing is None:
                return
            value = codec.encode(tenancy.record(standing, self.now_ms()))
            if entry is not None and entry.value == value:
                return
            try:
                await self._bucket.put(tenant_id, value, expected_revision=entry.revision if entry is not None else 0)
            except AlreadyStandsError:
                continue
            return
        raise PublicationError(f"the record of tenant {tenant_id} was changed by others {PUBLISH_TRIES} times in a row")

    async def _republish(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for tenant_id, mark in list(self._unpublished.items()):
                try:
                    await self._publish(tenant_id)
                except Exception as error:  # whatever failed, gateways must see the change in the end
                    log.error("tenant not published yet", tenant=tenant_id, error=str(error))
                    self._wake.set()
                else:
                    self._clear(tenant_id, mark)
            if self._unpublished:
                await asyncio.sleep(random.uniform(0.5, 1.0) * REPUBLISH_SECONDS)  # noqa: S311 - jitter
