"""A tenant with everything that is its own: keys, projects, budgets, limits; and what may be done to it. Pure.

Here: the record that gateways follow, and the checks of a change against what stands. Not here: the single values of a
key (keys) and of a budget (budgets). One rule: a record fits one message, so whatever would make it larger is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from collegium_contracts import codec
from collegium_contracts.identity import ProjectRow, TenantState
from collegium_contracts.ids import TENANT_ID
from collegium_contracts.state import BudgetRecord, KeyRecord, RateLimits, TenantRecord

from collegium_billing.errors import QuestionError
from collegium_billing.identity.keys import LIVE_KEYS_MAX, OPERATOR, Key, Tenant

REVOKED_KEYS_SHOWN: Final = 500
# Rotated keys whose schedules a key goes on with; older ones stop.
FOLLOWED_KEYS_SHOWN: Final = 64
PROJECTS_MAX: Final = 1_000
# The most that is stored in the open in one message.
RECORD_BYTES_MAX: Final = 250_000
LIMIT_MAX: Final = 10**12  # of requests or tokens: more is a slip of the keyboard
TOKEN_WINDOW_SECONDS: Final = (60, 31 * 86_400)
# A task waits for its time 30 days at most.
LINEAGE_MS: Final = 32 * 86_400_000
GATES_MAX: Final = 50
AGE_MAX: Final = 150
# Beyond a few others it is no grant but a publication.
GRANTS_MAX: Final = 20
_GATE_NAME: Final = re.compile(r"[a-z][a-z0-9_\-]{0,63}\Z")


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A project as it is kept; ``keys`` counts those not revoked."""

    id: str
    tenant: str
    name: str
    created_at_ms: int
    archived_at_ms: int | None = None
    keys: int = 0


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant and all that is its own, at one moment."""

    tenant: Tenant
    keys: tuple[Key, ...] = ()
    projects: tuple[Project, ...] = ()
    budgets: tuple[BudgetRecord, ...] = ()

    def key(self, key_id: str) -> Key | None:
        """Returns a key of the tenant, or none."""
        return next((key for key in self.keys if key.id == key_id), None)


def record(standing: Standing, now_ms: int) -> TenantRecord:
    """Returns a tenant as gateways know it: all live keys, and the revoked ones that were made last, sorted by id.

    A deleted tenant has nothing; a budget of a key that ended is left out.
    """
    tenant = standing.tenant
    if tenant.state == "deleted":
        return TenantRecord(id=tenant.id, tier=tenant.tier, state="deleted")
    live = [key for key in standing.keys if key.lives(now_ms)]
    followed = _followed(standing.keys)
    revoked = sorted((key for key in standing.keys if key.revoked_at_ms is not None), key=lambda key: key.created_at_ms)
    shown = [_key_record(key, followed.get(key.id, ())) for key in live] + [
        KeyRecord(id=key.id, secret_sha256=key.secret_sha256, revoked=True) for key in revoked[-REVOKED_KEYS_SHOWN:]
    ]
    alive = {key.first for key in live}
    # What an ended key asked may settle, or be released, for as long as a task may wait.
    since_ms = now_ms - LINEAGE_MS
    told = (key for key in standing.keys if key.lineage and (key.lives(now_ms) or _ended_ms(key) >= since_ms))
    return TenantRecord(
        id=tenant.id,
        tier=tenant.tier,
        state=tenant.state,
        keys=sorted(shown, key=lambda key: key.id),
        projects=[project.id for project in standing.projects if project.archived_at_ms is None],
        budgets=[budget for budget in standing.budgets if budget.scope != "key" or budget.of in alive],
        limits=tenant.limits,
        stale_answers=tenant.stale_answers,
        lineages={key.id: key.lineage for key in told},
        pool=tenant.pool,
        gates=list(tenant.gates),
        verified=tenant.verified,
        collects_since_ms=tenant.collects_since_ms,
        grants=list(tenant.grants),
    )


def _ended_ms(key: Key) -> int:
    return min(at for at in (key.revoked_at_ms, key.expires_at_ms) if at)


def _followed(keys: Sequence[Key]) -> dict[str, list[str]]:
    """Returns, by key, those that were rotated and that it stands for now; one that was revoked is nobody's."""
    by_id = {key.id: key for key in keys}
    found: dict[str, list[str]] = {}
    for key in sorted(keys, key=lambda key: key.created_at_ms):
        if key.revoked_at_ms is not None or not key.rotated_to:
            continue
        last = key
        while last.rotated_to and (after := by_id.get(last.rotated_to)) is not None:
            last = after
        found.setdefault(last.id, []).append(key.id)
    return {name: ids[-FOLLOWED_KEYS_SHOWN:] for name, ids in found.items()}


def _key_record(key: Key, follows: Sequence[str]) -> KeyRecord:
    return KeyRecord(
        id=key.id,
        secret_sha256=key.secret_sha256,
        project=key.project,
        scopes=list(key.scopes),
        expires_at_ms=key.expires_at_ms,
        models=list(key.models),
        limits=key.limits,
        role=key.role,
        follows=list(follows),
    )


def check_size(standing: Standing, now_ms: int) -> None:
    """Raises QuestionError where a tenant has become more than one message holds."""
    if len(codec.encode(record(standing, now_ms))) > RECORD_BYTES_MAX:
        raise QuestionError(
            "invalid_value",
            f"tenant {standing.tenant.id} has more keys, allow-lists, projects and budgets than gateways can follow; "
            "revoke or delete some",
            "tenant",
        )


def check_present(standing: Standing) -> None:
    """Raises QuestionError for a deleted tenant, of which nothing changes any more."""
    if standing.tenant.state == "deleted":
        raise QuestionError("not_found", f"there is no tenant {standing.tenant.id}", "tenant")


def check_new_key(standing: Standing, key: Key, now_ms: int, *, live_keys_max: int = LIVE_KEYS_MAX) -> None:
    """Raises QuestionError where a tenant cannot have this key: too many, or a project that is unknown or archived."""
    check_present(standing)
    project = next((one for one in standing.projects if one.id == key.project), None)
    if project is None:
        raise QuestionError(
            "not_found", f"tenant {key.tenant} has no project {key.project}; create it first", "project"
        )
    if project.archived_at_ms is not None:
        raise QuestionError("invalid_value", f"project {key.project} is archived and takes no new keys", "project")
    if sum(one.lives(now_ms) for one in standing.keys) >= live_keys_max:
        raise QuestionError(
            "invalid_value",
            f"tenant {key.tenant} has {live_keys_max} live keys, the most it may have; revoke one",
            "tenant",
        )


def check_rotation(key: Key, now_ms: int) -> None:
    """Raises QuestionError for a key that cannot be rotated: one that ended, or has its successor."""
    if key.rotated_to:
        raise QuestionError("already_exists", f"key {key.id} was rotated: {key.rotated_to} follows it", "key_id")
    if not key.lives(now_ms):
        raise QuestionError("invalid_value", f"key {key.id} was revoked or has expired; create a new one", "key_id")


def check_state(standing: Standing, state: TenantState | None) -> None:
    """Raises QuestionError for a change of state that cannot be: of the operator, or of what is deleted."""
    if state in ("suspended", "deleted") and standing.tenant.id == OPERATOR:
        raise QuestionError("invalid_value", "the operator's own tenant is neither suspended nor deleted", "tenant")
    if state != "deleted":
        check_present(standing)


def check_pool(tenant: Tenant, has_own_pool: bool) -> None:
    """Raises QuestionError for a tenant with a pool of its own whose tier has no such feature."""
    if tenant.pool and not has_own_pool:
        raise QuestionError(
            "feature_not_in_tier",
            f"tier {tenant.tier} of tenant {tenant.id} lacks the feature dedicated_pool, and the tenant has pool"
            f" {tenant.pool}; change the tier, or take the pool away",
            "pool",
        )


def check_grants(tenant: str, grants: Sequence[str] | None) -> None:
    """Raises QuestionError where grants are not a few tenants' ids."""
    if grants is None:
        return
    if len(grants) > GRANTS_MAX or not all(TENANT_ID.fullmatch(one) for one in grants):
        raise QuestionError(
            "invalid_value", f"grants name at most {GRANTS_MAX} tenants by their ids", "learning_grants"
        )
    if tenant in grants:
        raise QuestionError("invalid_value", "a tenant needs no grant of its own", "learning_grants")


def check_gates(gates: Sequence[str] | None, verified: Mapping[str, int] | None) -> None:
    """Raises QuestionError for what are no names of rules, or nothing that can be vouched for.

    Whether there are such rules is known to gateways, which ask.
    """
    if gates is not None and (
        len(gates) > GATES_MAX or len(set(gates)) < len(gates) or not all(map(_GATE_NAME.match, gates))
    ):
        raise QuestionError("invalid_value", f"gates are at most {GATES_MAX} different names of rules", "gates")
    if verified is not None and not (set(verified) <= {"age"} and 0 <= verified.get("age", 0) <= AGE_MAX):
        raise QuestionError("invalid_value", f"verified holds an age of 0 to {AGE_MAX}, or nothing", "verified")


def check_limits(limits: RateLimits | None) -> RateLimits | None:
    """Returns limits as they are kept (none where nothing is limited); raises QuestionError with the field at fault."""
    if limits is None:
        return None
    names = ("requests_per_minute", "tokens_per_minute", "requests_per_day", "tokens_per_window", "concurrency")
    values: dict[str, int | None] = {name: getattr(limits, name) for name in names}
    for name, value in values.items():
        if value is not None and not 1 <= value <= LIMIT_MAX:
            raise QuestionError("invalid_value", f"{name} must be between 1 and {LIMIT_MAX}, or none", name)
    low, high = TOKEN_WINDOW_SECONDS
    if not low <= limits.token_window_seconds <= high:
        raise QuestionError("invalid_value", f"a window of tokens has {low} to {high} seconds", "token_window_seconds")
    return limits if any(value is not None for value in values.values()) else None


def project_rows(projects: Sequence[Project]) -> list[ProjectRow]:
    """Returns projects as they are shown."""
    return [
        ProjectRow(
            id=one.id,
            tenant=one.tenant,
            name=one.name,
            created_at_ms=one.created_at_ms,
            archived_at_ms=one.archived_at_ms,
            keys=one.keys,
        )
        for one in projects
    ]
