"""What a configured tenant has beside itself: projects, further keys, limits, budgets; each is made when absent.

One rule: what stands is never overwritten, so that what was changed at run time outlives a restart. A revoked key, an
archived project and a deleted tenant stand; a limit or budget that was removed does not, and comes back.
"""

from __future__ import annotations

from collegium_contracts.identity import BudgetSet
from collegium_contracts.state import RateLimits
from collegium_settings.settings import BudgetSettings, KeySettings, RateLimitSettings, TenantSettings

from collegium_billing.errors import KeyConflictError, QuestionError
from collegium_billing.identity import budgets, keys, tenancy
from collegium_billing.identity.keys import Key
from collegium_billing.identity.store import Change, IdentityStore


async def introduce(store: IdentityStore, configured: TenantSettings, now_ms: int) -> None:
    """Makes what is absent; raises QuestionError or KeyConflictError for what cannot be made."""
    if not (configured.projects or configured.keys or configured.limits or configured.budget):
        return
    async with store.change(configured.id, now_ms) as change:
        if change is None or change.before.tenant.state == "deleted":
            return
        before = change.before
        if configured.limits is not None and before.tenant.limits is None:
            await change.set_limits("", tenancy.check_limits(limits_of(configured.limits)))
        if configured.budget is not None:
            await _budget(change, _asked(configured.id, configured.budget), now_ms)
        for project in configured.projects:
            await change.add_project(project.id, project.name or "")
            if project.budget is not None:
                await _budget(change, _asked(configured.id, project.budget, "project", project.id), now_ms)
        for number, key in enumerate(configured.keys):
            await _key(change, configured.id, key, number, now_ms)


async def _budget(change: Change, asked: BudgetSet, now_ms: int) -> None:
    budget = budgets.read(asked)
    if all(one.id != budget.id for one in change.before.budgets):
        budgets.check(await change.after(), budget, now_ms)
        await change.set_budget(budget)


async def _key(change: Change, tenant: str, configured: KeySettings, number: int, now_ms: int) -> None:
    where = f"tenants[{tenant}].keys[{number}]"
    api_key = keys.parse(configured.api_key.reveal(), f"{where}.api_key")
    if change.before.key(api_key.public_id) is not None:
        return
    scopes = keys.check_scopes(configured.scopes)
    key = Key(
        id=api_key.public_id,
        tenant=tenant,
        secret_sha256=api_key.secret_sha256,
        project=configured.project,
        scopes=scopes,
        name=configured.name or "",
        created_at_ms=now_ms,
        role=keys.check_role(tenant, configured.role or "", scopes),
        models=keys.check_models(configured.models, keys.MODELS_MAX),
        limits=tenancy.check_limits(limits_of(configured.limits)),
    )
    try:
        tenancy.check_new_key(await change.after(), key, now_ms)
    except QuestionError as error:
        raise QuestionError(error.code, f"{where}: {error.message}", error.param) from error
    if not await change.add_key(key):
        raise KeyConflictError(f"{where}.api_key: its public id belongs to another key; give it one of its own")
    if configured.budget is not None:
        await _budget(change, _asked(tenant, configured.budget, "key", key.id), now_ms)


def limits_of(configured: RateLimitSettings | None) -> RateLimits | None:
    """Returns configured limits as they are kept."""
    if configured is None:
        return None
    return RateLimits(
        requests_per_minute=configured.requests_per_minute,
        tokens_per_minute=configured.tokens_per_minute,
        requests_per_day=configured.requests_per_day,
        tokens_per_window=configured.tokens.max if configured.tokens is not None else None,
        token_window_seconds=configured.tokens.window_seconds if configured.tokens is not None else 5 * 3600,
        concurrency=configured.concurrency,
    )


def _asked(tenant: str, configured: BudgetSettings, scope: str = "tenant", of: str = "") -> BudgetSet:
    return BudgetSet(
        tenant=tenant,
        usd=f"{configured.usd:f}",
        scope=scope,  # pyright: ignore[reportArgumentType] - one of the three by its callers
        of=of,
        window=configured.calendar or "rolling",
        window_seconds=configured.window_seconds,
        alert_percents=list(configured.alert_percents),
    )
