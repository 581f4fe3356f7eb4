"""Questions in, answers out: tenants, projects, keys, limits, budgets.

The gateway has checked who asks and what the role permits; here every value is checked, and the asker's reach where
only the books know whose a thing is. One rule: a question that is refused changes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence

from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.identity import (
    BudgetDelete,
    BudgetList,
    BudgetSet,
    BudgetsReply,
    KeyRotate,
    KeysUsed,
    LimitsReply,
    LimitsSet,
    Noted,
    ProjectArchive,
    ProjectCreate,
    ProjectList,
    ProjectsReply,
    TenantChange,
)
from collegium_contracts.ids import BUDGET_ID
from collegium_contracts.requests import (
    KeyCreate,
    KeyList,
    KeyRevoke,
    KeysReply,
    TenantCreate,
    TenantList,
    TenantsReply,
)
from collegium_settings.settings import TierSettings

from collegium_billing.errors import QuestionError
from collegium_billing.handlers import Handler, answering
from collegium_billing.identity import budgets, keys, tenancy
from collegium_billing.identity.changes import Changes
from collegium_billing.identity.directory import TENANTS_MAX, Directory
from collegium_billing.identity.keys import Key, Tenant
from collegium_billing.identity.store import IdentityStore
from collegium_billing.reports import usage

ROWS_MAX = 2_000  # what one reply of keys, projects or budgets holds
USED_KEYS_MAX = 5_000


class IdentityQuestions:
    """Answers what gateways ask about who may do what."""

    def __init__(
        self,
        store: IdentityStore,
        directory: Directory,
        changes: Changes,
        tiers: Callable[[], Mapping[str, TierSettings]],
        pools: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._pools = pools
        self._store = store
        self._directory = directory
        self._changes = changes
        self._tiers = tiers

    def handlers(self) -> Mapping[str, Handler]:
        """Returns the answering function of each subject."""
        return {
            s.SVC_BILLING_TENANT_CREATE: answering(TenantCreate, self.create_tenant),
            s.SVC_BILLING_TENANT_LIST: answering(TenantList, self.list_tenants),
            s.SVC_BILLING_TENANT_CHANGE: answering(TenantChange, self.change_tenant),
            s.SVC_BILLING_PROJECT_CREATE: answering(ProjectCreate, self.create_project),
            s.SVC_BILLING_PROJECT_ARCHIVE: answering(ProjectArchive, self.archive_project),
            s.SVC_BILLING_PROJECT_LIST: answering(ProjectList, self.list_projects),
            s.SVC_BILLING_KEY_CREATE: answering(KeyCreate, self.create_key),
            s.SVC_BILLING_KEY_REVOKE: answering(KeyRevoke, self.revoke_key),
            s.SVC_BILLING_KEY_ROTATE: answering(KeyRotate, self.rotate_key),
            s.SVC_BILLING_KEY_LIST: answering(KeyList, self.list_keys),
            s.SVC_BILLING_KEYS_USED: answering(KeysUsed, self.note_used),
            s.SVC_BILLING_LIMITS_SET: answering(LimitsSet, self.set_limits),
            s.SVC_BILLING_BUDGET_SET: answering(BudgetSet, self.set_budget),
            s.SVC_BILLING_BUDGET_DELETE: answering(BudgetDelete, self.delete_budget),
            s.SVC_BILLING_BUDGET_LIST: answering(BudgetList, self.list_budgets),
        }

    async def create_tenant(self, asked: TenantCreate) -> TenantsReply:
        """Creates a tenant without keys."""
        _check_tenant(asked.tenant)
        self._check_tier(asked.tier)
        tenant = await self._directory.create_tenant(asked.tenant, asked.tier)
        return TenantsReply(tenants=[keys.tenant_row(tenant)])

    async def list_tenants(self, asked: TenantList) -> TenantsReply:
        """Lists all tenants, or shows one."""
        if asked.tenant is not None:
            return TenantsReply(tenants=[keys.tenant_row(await self._known(asked.tenant))])
        return TenantsReply(tenants=[keys.tenant_row(tenant) for tenant in await self._store.tenants(TENANTS_MAX)])

    async def change_tenant(self, asked: TenantChange) -> TenantsReply:
        """Changes a tenant's tier, state or settings."""
        _check_tenant(asked.tenant)
        if asked.tier is not None:
            self._check_tier(asked.tier)
        if asked.pool and asked.pool not in (pools := self._pools()):
            known = ", ".join(pools) or "there are none"
            raise _invalid("pool", f"there is no dedicated pool {asked.pool[:40]!r}; the configuration has: {known}")
        tenant = await self._changes.change_tenant(asked, self._has_own_pool)
        return TenantsReply(tenants=[keys.tenant_row(tenant)])

    def _has_own_pool(self, name: str) -> bool:
        tier = self._tiers().get(name)
        return tier is not None and "dedicated_pool" in tier.features

    async def create_project(self, asked: ProjectCreate) -> ProjectsReply:
        """Creates a project."""
        _check_tenant(asked.tenant)
        keys.check_project(asked.project)
        keys.check_name(asked.name)
        made = await self._changes.create_project(asked.tenant, asked.project, asked.name)
        return ProjectsReply(projects=tenancy.project_rows([made]))

    async def archive_project(self, asked: ProjectArchive) -> ProjectsReply:
        """Archives a project, or takes it up again."""
        _check_tenant(asked.tenant)
        keys.check_project(asked.project)
        changed = await self._changes.archive_project(asked.tenant, asked.project, archived=asked.archived)
        return ProjectsReply(projects=tenancy.project_rows([changed]))

    async def list_projects(self, asked: ProjectList) -> ProjectsReply:
        """Lists the projects of a tenant, or of all."""
        if asked.tenant is not None:
            await self._known(asked.tenant)
        found = await self._store.projects(asked.tenant, ROWS_MAX + 1)
        _check_count(len(found), "projects")
        return ProjectsReply(projects=tenancy.project_rows(found))

    async def create_key(self, asked: KeyCreate) -> KeysReply:
        """Creates a key; the answer is the only place where it is ever shown."""
        _check_tenant(asked.tenant)
        scopes = keys.check_scopes(asked.scopes)
        keys.check_project(asked.project)
        keys.check_name(asked.name)
        tenant = await self._known(asked.tenant)
        tier = self._tiers().get(tenant.tier)
        now_ms = self._directory.now_ms()
        while True:
            api_key = keys.make(secrets.choice)
            key = Key(
                id=api_key.public_id,
                tenant=tenant.id,
                secret_sha256=api_key.secret_sha256,
                project=asked.project,
                scopes=scopes,
                name=asked.name,
                created_at_ms=now_ms,
                role=keys.check_role(tenant.id, asked.role, scopes),
                models=keys.check_models(asked.models, keys.MODELS_MAX if tier is None else tier.models_max),
                limits=tenancy.check_limits(asked.limits),
                expires_at_ms=keys.check_expiry(asked.expires_at_ms, now_ms),
            )
            keys.check_reach(asked.reach, key, gives=True)
            made = await self._changes.create_key(key, asked.budget)
            if made is not None:
                return KeysReply(keys=[keys.key_row(made)], secret_key=api_key.text)

    async def revoke_key(self, asked: KeyRevoke) -> KeysReply:
        """Revokes a key."""
        keys.check_key_id(asked.key_id)
        return KeysReply(keys=[keys.key_row(await self._changes.revoke_key(asked.key_id, asked.reach))])

    async def rotate_key(self, asked: KeyRotate) -> KeysReply:
        """Makes a key's successor; the answer is the only place where it is ever shown."""
        keys.check_key_id(asked.key_id)
        made, api_key = await self._changes.rotate_key(asked.key_id, asked.grace_seconds, asked.reach)
        return KeysReply(keys=[keys.key_row(made)], secret_key=api_key.text)

    async def list_keys(self, asked: KeyList) -> KeysReply:
        """Lists the keys of a tenant, or of all, or shows one."""
        if asked.tenant is not None:
            await self._known(asked.tenant)
        if asked.key_id is not None:
            keys.check_key_id(asked.key_id)
            key = await self._store.key(asked.key_id)
            if key is None or asked.tenant not in (None, key.tenant):
                raise QuestionError("not_found", f"there is no key {asked.key_id}", "key_id")
            return KeysReply(keys=[keys.key_row(key)])
        found = await self._store.keys(asked.tenant, ROWS_MAX + 1)
        _check_count(len(found), "keys")
        reply = KeysReply(keys=[keys.key_row(key) for key in found])
        usage.check_size(len(codec.encode(reply)))
        return reply

    async def note_used(self, asked: KeysUsed) -> Noted:
        """Notes when keys were used last."""
        if len(asked.keys) > USED_KEYS_MAX:
            raise _invalid("keys", f"at most {USED_KEYS_MAX} keys are noted at once")
        await self._store.note_used(asked.keys, min(max(asked.at_ms, 0), self._directory.now_ms()))
        return Noted()

    async def set_limits(self, asked: LimitsSet) -> LimitsReply:
        """Sets or removes the rate limits of a tenant or key."""
        if asked.key_id:
            keys.check_key_id(asked.key_id)
        else:
            _check_tenant(asked.tenant)
        tenant, limits = await self._changes.set_limits(asked.tenant, asked.key_id, asked.limits, asked.reach)
        return LimitsReply(tenant=tenant, key_id=asked.key_id, limits=limits)

    async def set_budget(self, asked: BudgetSet) -> BudgetsReply:
        """Sets a budget."""
        _check_tenant(asked.tenant)
        return BudgetsReply(budgets=[await self._changes.set_budget(asked)])

    async def delete_budget(self, asked: BudgetDelete) -> BudgetsReply:
        """Deletes a budget; the answer is what it was."""
        _check_tenant(asked.tenant)
        _check_budget(asked.budget)
        return BudgetsReply(budgets=[await self._changes.delete_budget(asked.tenant, asked.budget)])

    async def list_budgets(self, asked: BudgetList) -> BudgetsReply:
        """Lists the budgets of a tenant, or of all, or shows one."""
        if asked.tenant is not None:
            await self._known(asked.tenant)
        if asked.budget is not None:
            _check_budget(asked.budget)
        found = await self._store.budgets(asked.tenant, asked.budget, ROWS_MAX + 1)
        if asked.budget is not None and not found and (key_id := budgets.key_of(asked.budget)) is not None:
            # The budget of a key that follows another stands under the first one's id.
            key = await self._store.key(key_id)
            if key is not None and asked.tenant in (None, key.tenant):
                found = await self._store.budgets(key.tenant, budgets.name_of(key.first), ROWS_MAX + 1)
        _check_count(len(found), "budgets")
        if asked.budget is not None and not found:
            raise QuestionError("not_found", f"there is no budget {asked.budget}", "id")
        return BudgetsReply(budgets=found)

    async def _known(self, tenant_id: str) -> Tenant:
        _check_tenant(tenant_id)
        tenant = await self._store.tenant(tenant_id)
        if tenant is None:
            raise QuestionError("not_found", f"there is no tenant {tenant_id}", "tenant")
        return tenant

    def _check_tier(self, tier: str) -> None:
        tiers = self._tiers()
        if tier not in tiers:
            raise _invalid("tier", f"{tier[:40]!r} is no tier; accepted: {', '.join(tiers)}")


def _check_tenant(tenant_id: str) -> None:
    if not keys.is_tenant_id(tenant_id):
        raise _invalid("tenant", "a tenant's id has 1 to 40 characters of a-z, 0-9 and -")


def _check_budget(budget_id: str) -> None:
    if BUDGET_ID.match(budget_id) is None:
        raise _invalid("id", "a budget's id has 1 to 64 characters of a-z, 0-9 and -")


def _check_count(count: int, what: str) -> None:
    if count > ROWS_MAX:
        raise _invalid("tenant", f"there are more than {ROWS_MAX} {what}; ask for one tenant's")


def _invalid(param: str, message: str) -> QuestionError:
    return QuestionError("invalid_value", message, param)
