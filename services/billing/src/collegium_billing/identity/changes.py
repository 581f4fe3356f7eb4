"""Changes of tenants and of what is theirs: checked against what stands, kept, and published to gateways.

Not here: questions and answers (identity_handlers), SQL (identity_store). One rule: a change is kept as a whole before
it is published, and whoever asked hears of it once gateways can see it, or that they cannot yet.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
from collegium_contracts.identity import BudgetRow, BudgetSet, Reach, TenantChange
from collegium_contracts.state import BudgetRecord, RateLimits

from collegium_billing.errors import QuestionError
from collegium_billing.identity import budgets, keys, tenancy
from collegium_billing.identity.keys import ApiKey, Key, Tenant
from collegium_billing.identity.store import Change, IdentityStore
from collegium_billing.identity.tenancy import Project

# A longer grace is a second key, and can be created as one.
GRACE_SECONDS_MAX = 30 * 86_400


class Changes:
    """What operators and members may change."""

    def __init__(
        self, store: IdentityStore, publish: Callable[[str], Awaitable[bool]], now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._publish = publish
        self._now_ms = now_ms
        # Called with a tenant's id once it is marked as deleted and its keys are revoked: what erases its data hooks in
        # here. Each may be called again for the same tenant, as deleting again repeats what did not finish.
        self.when_deleted: list[Callable[[str], Awaitable[None]]] = []

    async def change_tenant(self, asked: TenantChange, has_own_pool: Callable[[str], bool]) -> Tenant:
        """Changes what is asked; suspending, resuming and deleting again change nothing.

        ``has_own_pool`` says whether a tier has the feature; raises QuestionError where a tenant with a pool lacks it.
        """
        tenant_id, state = asked.tenant, asked.state
        async with self._changing(tenant_id) as change:
            tenancy.check_state(change.before, state)
            tenancy.check_gates(asked.gates, asked.verified)
            tenancy.check_grants(tenant_id, asked.grants)
            await change.set_tenant(
                tier=asked.tier,
                state=state,
                stale_answers=asked.stale_answers,
                pool=asked.pool,
                gates=asked.gates,
                verified=asked.verified,
                collects=asked.collects,
                grants=asked.grants,
            )
            tenant = (await change.after()).tenant
            if asked.tier is not None or asked.pool is not None:
                tenancy.check_pool(tenant, has_own_pool(tenant.tier))
        published = await self._publish(tenant_id)
        if state == "deleted":
            for act in self.when_deleted:
                await act(tenant_id)
        if not published:
            raise _unpublished(f"tenant {tenant_id} is changed")
        return tenant

    async def create_key(self, key: Key, budget: BudgetSet | None) -> Key | None:
        """Adds a key with its budget; none where its public id is taken."""
        async with self._changing(key.tenant) as change:
            tenancy.check_new_key(change.before, key, self._now_ms())
            if not await change.add_key(key):
                return None
            if budget is not None:
                wanted = msgspec.structs.replace(budget, tenant=key.tenant, budget="", scope="key", of=key.id)
                await self._set_budget(change, budgets.read(wanted))
        await self._publish(key.tenant)
        return key

    async def rotate_key(self, key_id: str, grace_seconds: int, reach: Reach) -> tuple[Key, ApiKey]:
        """Makes a successor with the same rights, limits and budgets; the key itself ends after the grace.

        Both draw on the one budget and count in the one rate of their lineage.
        """
        if not 0 <= grace_seconds <= GRACE_SECONDS_MAX:
            raise QuestionError("invalid_value", f"the grace has 0 to {GRACE_SECONDS_MAX} seconds", "grace_seconds")
        tenant = await self._tenant_of(key_id)
        while True:
            api_key = keys.make(secrets.choice)
            async with self._changing(tenant) as change:
                successor = await self._succeed(change, key_id, api_key, grace_seconds, reach)
            if successor is not None:
                await self._publish(tenant)
                return successor, api_key

    async def _succeed(
        self, change: Change, key_id: str, api_key: ApiKey, grace_seconds: int, reach: Reach
    ) -> Key | None:
        now_ms = self._now_ms()
        tenancy.check_present(change.before)
        old = change.before.key(key_id)
        assert old is not None, "a key never changes its tenant and is never removed"
        keys.check_reach(reach, old, gives=True)
        tenancy.check_rotation(old, now_ms)
        successor = msgspec.structs.replace(
            old,
            id=api_key.public_id,
            secret_sha256=api_key.secret_sha256,
            created_at_ms=now_ms,
            last_used_at_ms=None,
            lineage=old.first,
        )
        if not await change.add_key(successor):
            return None
        ends_at_ms = now_ms + grace_seconds * 1000
        await change.follow_key(key_id, successor.id, min(ends_at_ms, old.expires_at_ms or ends_at_ms))
        return successor

    async def revoke_key(self, key_id: str, reach: Reach) -> Key:
        """Revokes a key; doing it again changes nothing."""
        tenant = await self._tenant_of(key_id)
        async with self._changing(tenant) as change:
            key = change.before.key(key_id)
            assert key is not None, "a key never changes its tenant and is never removed"
            keys.check_reach(reach, key, gives=False)
            await change.revoke_key(key_id)
            revoked = (await change.after()).key(key_id)
            assert revoked is not None, "its tenant is locked"
        if not await self._publish(tenant):
            raise _unpublished(f"key {key_id} is revoked")
        return revoked

    async def create_project(self, tenant_id: str, project_id: str, name: str) -> Project:
        """Adds a project; raises QuestionError where it stands."""
        async with self._changing(tenant_id) as change:
            tenancy.check_present(change.before)
            if len(change.before.projects) >= tenancy.PROJECTS_MAX:
                raise QuestionError(
                    "invalid_value", f"tenant {tenant_id} has {tenancy.PROJECTS_MAX} projects, the most it may have"
                )
            if not await change.add_project(project_id, name):
                raise QuestionError("already_exists", f"project {project_id} of {tenant_id} stands already", "project")
            made = _project((await change.after()).projects, project_id)
        await self._publish(tenant_id)
        return made

    async def archive_project(self, tenant_id: str, project_id: str, *, archived: bool) -> Project:
        """Archives a project or takes it up again; doing it again changes nothing."""
        async with self._changing(tenant_id) as change:
            tenancy.check_present(change.before)
            _project(change.before.projects, project_id)
            if archived and project_id == keys.DEFAULT_PROJECT:
                raise QuestionError("invalid_value", "the default project is never archived", "project")
            await change.archive_project(project_id, archived=archived)
            changed = _project((await change.after()).projects, project_id)
        await self._publish(tenant_id)
        return changed

    async def set_limits(
        self, tenant_id: str, key_id: str, limits: RateLimits | None, reach: Reach
    ) -> tuple[str, RateLimits | None]:
        """Sets the limits of a key's lineage or of a tenant; returns the tenant's id and what stands."""
        wanted = tenancy.check_limits(limits)
        tenant = await self._tenant_of(key_id) if key_id else tenant_id
        async with self._changing(tenant) as change:
            tenancy.check_present(change.before)
            if key_id:
                key = change.before.key(key_id)
                assert key is not None, "a key never changes its tenant and is never removed"
                keys.check_reach(reach, key, gives=False)
                key_id = key.first
            await change.set_limits(key_id, wanted)
        await self._publish(tenant)
        return tenant, wanted

    async def set_budget(self, asked: BudgetSet) -> BudgetRow:
        """Sets a budget, new or standing."""
        budget = budgets.read(asked)
        async with self._changing(asked.tenant) as change:
            budget = await self._set_budget(change, budget)
            row = BudgetRow(tenant=asked.tenant, budget=budget, changed_at_ms=change.now_ms)
        await self._publish(asked.tenant)
        return row

    async def delete_budget(self, tenant_id: str, budget_id: str) -> BudgetRow:
        """Deletes a budget and returns what it was."""
        async with self._changing(tenant_id) as change:
            found = budgets.find(change.before, budget_id)
            if found is None:
                raise QuestionError("not_found", f"tenant {tenant_id} has no budget {budget_id}", "id")
            await change.delete_budget(found.id)
            row = BudgetRow(tenant=tenant_id, budget=found, changed_at_ms=change.now_ms)
        await self._publish(tenant_id)
        return row

    async def _set_budget(self, change: Change, budget: BudgetRecord) -> BudgetRecord:
        tenancy.check_present(change.before)
        # A key that this change adds is not among what stood before it.
        standing = await change.after()
        budget = budgets.of_lineage(standing, budget)
        budgets.check(standing, budget, self._now_ms())
        await change.set_budget(budget)
        return budget

    @asynccontextmanager
    async def _changing(self, tenant_id: str) -> AsyncGenerator[Change]:
        async with self._store.change(tenant_id, self._now_ms()) as change:
            if change is None:
                raise QuestionError("not_found", f"there is no tenant {tenant_id}", "tenant")
            yield change

    async def _tenant_of(self, key_id: str) -> str:
        key = await self._store.key(key_id)
        if key is None:
            raise QuestionError("not_found", f"there is no key {key_id}", "key_id")
        return key.tenant


def _project(projects: tuple[Project, ...], project_id: str) -> Project:
    found = next((one for one in projects if one.id == project_id), None)
    if found is None:
        raise QuestionError("not_found", f"there is no project {project_id}", "project")
    return found


def _unpublished(what: str) -> QuestionError:
    return QuestionError("broker_unavailable", f"{what}, but gateways do not know it yet; it is tried on")
