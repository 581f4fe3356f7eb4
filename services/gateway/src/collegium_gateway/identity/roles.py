"""What each role may do on the admin routes: one table. Pure.

A key or token with the scope ``admin`` has a role, its own or its tenant's (``identity.role_of``): an owner may do
everything, an operator everything but owners' keys and deleting tenants, an auditor may read, and a member may look
after its own tenant alone. One rule: a route that stands in no row here cannot be served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from collegium_contracts.identity import PLATFORM_ROLES, Role

Permission = Literal[
    "models.read", "spend.read", "tenants.read", "tenants.write", "tenants.delete", "projects.read", "projects.write",
    "keys.read", "keys.write", "limits.read", "limits.write", "key-limits.write", "budgets.read", "budgets.write",
    "dead-letters.read", "dead-letters.write", "audit.read", "invoices.write",
    "encryption.read", "encryption.write", "ledger.read", "ledger.write", "prices.read", "prices.write",
    "cache.read", "cache.write", "search-index.read", "gates.read", "gates.write",
    "students.read", "students.write", "distill.export",
    "scoreboard.read", "ranks.read", "ranks.write", "models.write", "gaps.read", "evolution.read", "evolution.write",
    "approvals.read", "approvals.write", "policies.read", "policies.write", "domains.read", "domains.write",
    "experiments.read", "experiments.write", "tasks.read",
]  # fmt: skip

_READS: Final[frozenset[Permission]] = frozenset({
    "models.read", "spend.read", "tenants.read", "projects.read", "keys.read", "limits.read", "budgets.read",
    "dead-letters.read", "audit.read", "encryption.read",
    "ledger.read", "prices.read", "cache.read", "search-index.read", "gates.read",
    "scoreboard.read", "ranks.read", "gaps.read", "evolution.read", "approvals.read", "policies.read", "students.read",
    "domains.read", "experiments.read", "tasks.read",
})  # fmt: skip
_WRITES: Final[frozenset[Permission]] = frozenset({
    "tenants.write", "projects.write", "keys.write", "limits.write", "key-limits.write", "budgets.write",
    "dead-letters.write", "encryption.write", "ledger.write", "prices.write", "invoices.write", "cache.write",
    "gates.write", "ranks.write", "models.write", "evolution.write", "approvals.write", "policies.write",
    "students.write", "domains.write", "experiments.write",
})  # fmt: skip
# What a tenant said leaves the platform by these: an operator looks after tenants, and not into them.
_TAKES: Final[frozenset[Permission]] = frozenset({"distill.export"})
_DELETES: Final[frozenset[Permission]] = frozenset({"tenants.delete"})
# What a tenant pays for is its operator's to bound, so a member reads budgets and limits and sets those of keys alone.
_MEMBER: Final[frozenset[Permission]] = frozenset({
    "models.read", "spend.read", "tenants.read", "projects.read", "projects.write", "keys.read", "keys.write",
    "limits.read", "key-limits.write", "budgets.read", "audit.read", "cache.read", "cache.write",
    "gates.read", "scoreboard.read", "ranks.read", "gaps.read", "approvals.read", "approvals.write", "policies.read",
    "students.read", "students.write", "distill.export", "domains.read", "domains.write",
    "experiments.read", "experiments.write",
})  # fmt: skip

ROLES: Final[Mapping[Role, frozenset[Permission]]] = {
    "owner": _READS | _WRITES | _DELETES | _TAKES,
    "operator": _READS | _WRITES,
    "auditor": _READS,
    "member": _MEMBER,
}

ADMIN_PREFIX: Final = "/v1/admin/"
ADMIN_ROUTES: Final[Mapping[tuple[str, str], Permission]] = {
    ("GET", "/v1/admin/models"): "models.read",
    ("POST", "/v1/admin/models"): "models.write",
    ("GET", "/v1/admin/models/{name}"): "models.read",
    ("PATCH", "/v1/admin/models/{name}"): "models.write",
    ("DELETE", "/v1/admin/models/{name}"): "models.write",
    ("GET", "/v1/admin/possible-spend"): "spend.read",
    ("POST", "/v1/admin/invoices"): "invoices.write",
    ("GET", "/v1/admin/tenants"): "tenants.read",
    ("POST", "/v1/admin/tenants"): "tenants.write",
    ("GET", "/v1/admin/tenants/{id}"): "tenants.read",
    ("PATCH", "/v1/admin/tenants/{id}"): "tenants.write",
    ("DELETE", "/v1/admin/tenants/{id}"): "tenants.delete",
    ("POST", "/v1/admin/tenants/{id}/suspend"): "tenants.write",
    ("POST", "/v1/admin/tenants/{id}/resume"): "tenants.write",
    ("GET", "/v1/admin/tenants/{id}/storage"): "tenants.read",
    ("GET", "/v1/admin/tenants/{id}/limits"): "limits.read",
    ("PUT", "/v1/admin/tenants/{id}/limits"): "limits.write",
    ("DELETE", "/v1/admin/tenants/{id}/limits"): "limits.write",
    ("GET", "/v1/admin/projects"): "projects.read",
    ("POST", "/v1/admin/projects"): "projects.write",
    ("POST", "/v1/admin/projects/{tenant}/{id}/archive"): "projects.write",
    ("POST", "/v1/admin/projects/{tenant}/{id}/restore"): "projects.write",
    ("GET", "/v1/admin/keys"): "keys.read",
    ("POST", "/v1/admin/keys"): "keys.write",
    ("GET", "/v1/admin/keys/{id}"): "keys.read",
    ("POST", "/v1/admin/keys/{id}/revoke"): "keys.write",
    ("POST", "/v1/admin/keys/{id}/rotate"): "keys.write",
    ("GET", "/v1/admin/keys/{id}/limits"): "limits.read",
    ("PUT", "/v1/admin/keys/{id}/limits"): "key-limits.write",
    ("DELETE", "/v1/admin/keys/{id}/limits"): "key-limits.write",
    ("GET", "/v1/admin/budgets"): "budgets.read",
    ("GET", "/v1/admin/budgets/{tenant}/{id}"): "budgets.read",
    ("PUT", "/v1/admin/budgets/{tenant}/{id}"): "budgets.write",
    ("DELETE", "/v1/admin/budgets/{tenant}/{id}"): "budgets.write",
    ("GET", "/v1/admin/dead-letters"): "dead-letters.read",
    ("GET", "/v1/admin/dead-letters/{id}"): "dead-letters.read",
    ("POST", "/v1/admin/dead-letters/requeue"): "dead-letters.write",
    ("POST", "/v1/admin/dead-letters/discard"): "dead-letters.write",
    ("GET", "/v1/admin/tasks/{id}/ladder"): "tasks.read",
    ("GET", "/v1/admin/tenants/{id}/erasure"): "encryption.read",
    ("POST", "/v1/admin/tenants/{id}/erasure"): "tenants.delete",
    ("GET", "/v1/admin/tenants/{id}/data-keys"): "encryption.read",
    ("POST", "/v1/admin/tenants/{id}/data-keys/rotate"): "encryption.write",
    ("GET", "/v1/admin/encryption"): "encryption.read",
    ("POST", "/v1/admin/encryption/rewrap"): "encryption.write",
    ("GET", "/v1/admin/ledger/audit"): "ledger.read",
    ("GET", "/v1/admin/ledger/calls"): "ledger.read",
    ("POST", "/v1/admin/ledger/corrections"): "ledger.write",
    ("GET", "/v1/admin/models/{name}/prices"): "prices.read",
    ("POST", "/v1/admin/models/{name}/price"): "prices.write",
    ("POST", "/v1/admin/models/{name}/rank"): "ranks.write",
    ("POST", "/v1/admin/models/{name}/rank/rollback"): "ranks.write",
    ("POST", "/v1/admin/models/{name}/drain"): "models.write",
    ("POST", "/v1/admin/models/{name}/resume"): "models.write",
    ("GET", "/v1/admin/scoreboard"): "scoreboard.read",
    ("GET", "/v1/admin/ranks"): "ranks.read",
    ("GET", "/v1/admin/gaps"): "gaps.read",
    ("GET", "/v1/admin/evolution"): "evolution.read",
    ("GET", "/v1/admin/evolution/{id}"): "evolution.read",
    ("POST", "/v1/admin/evolution/run"): "evolution.write",
    ("DELETE", "/v1/admin/models/{name}/prices/{version}"): "prices.write",
    ("GET", "/v1/admin/gates"): "gates.read",
    ("POST", "/v1/admin/gates/test"): "gates.write",
    ("GET", "/v1/admin/gates/report"): "audit.read",
    ("GET", "/v1/admin/tenants/{id}/gates"): "gates.read",
    ("PUT", "/v1/admin/tenants/{id}/gates"): "gates.write",
    ("DELETE", "/v1/admin/tenants/{id}/gates"): "gates.write",
    ("GET", "/v1/admin/approvals"): "approvals.read",
    ("POST", "/v1/admin/approvals/claim"): "approvals.write",
    ("GET", "/v1/admin/approvals/{id}"): "approvals.read",
    ("POST", "/v1/admin/approvals/{id}/claim"): "approvals.write",
    ("POST", "/v1/admin/approvals/{id}/return"): "approvals.write",
    ("POST", "/v1/admin/approvals/{id}/move"): "approvals.write",
    ("POST", "/v1/admin/approvals/{id}/answer"): "approvals.write",
    ("GET", "/v1/admin/policies"): "policies.read",
    ("GET", "/v1/admin/policies/{tenant}"): "policies.read",
    ("POST", "/v1/admin/policies/{tenant}/rollback"): "policies.write",
    ("POST", "/v1/admin/policies/{tenant}/release"): "policies.write",
    ("GET", "/v1/admin/experiments"): "experiments.read",
    ("POST", "/v1/admin/experiments"): "experiments.write",
    ("POST", "/v1/admin/experiments/holdout"): "experiments.write",
    ("GET", "/v1/admin/experiments/{id}"): "experiments.read",
    ("POST", "/v1/admin/experiments/{id}/start"): "experiments.write",
    ("POST", "/v1/admin/experiments/{id}/ramp"): "experiments.write",
    ("POST", "/v1/admin/experiments/{id}/stop"): "experiments.write",
    ("POST", "/v1/admin/experiments/{id}/conclude"): "experiments.write",
    ("GET", "/v1/admin/flags"): "experiments.read",
    ("POST", "/v1/admin/flags/kill"): "experiments.write",
    ("POST", "/v1/admin/flags/revive"): "experiments.write",
    ("PUT", "/v1/admin/flags/{name}"): "experiments.write",
    ("DELETE", "/v1/admin/flags/{name}"): "experiments.write",
    ("POST", "/v1/admin/flags/{name}/kill"): "experiments.write",
    ("POST", "/v1/admin/flags/{name}/revive"): "experiments.write",
    ("GET", "/v1/admin/search-index"): "search-index.read",
    ("GET", "/v1/admin/students"): "students.read",
    ("POST", "/v1/admin/students"): "students.write",
    # Whoever adds an endpoint spends the operator's keys.
    ("POST", "/v1/admin/students/register"): "models.write",
    ("GET", "/v1/admin/students/{name}"): "students.read",
    ("POST", "/v1/admin/students/{name}/retire"): "students.write",
    ("GET", "/v1/admin/samples"): "students.read",
    ("GET", "/v1/admin/domains"): "domains.read",
    ("GET", "/v1/admin/domains/{id}"): "domains.read",
    ("PATCH", "/v1/admin/domains/{id}"): "domains.write",
    ("POST", "/v1/admin/domains/{id}/merge"): "domains.write",
    ("POST", "/v1/admin/distill"): "distill.export",
    ("GET", "/v1/admin/distill/{id}"): "distill.export",
    ("GET", "/v1/admin/audit"): "audit.read",
    ("GET", "/v1/admin/audit/verify"): "audit.read",
    ("GET", "/v1/admin/audit/export"): "audit.read",
}


def permission_of(method: str, path: str) -> Permission:
    """Returns what a route of the admin door needs; raises LookupError for one that has no row."""
    found = ADMIN_ROUTES.get((method, path.replace(":path}", "}")))
    if found is None:
        raise LookupError(f"{method} {path} has no row in roles.ADMIN_ROUTES: say which permission it needs")
    return found


def permits(role: Role, permission: Permission) -> bool:
    """Tells whether a role may do something, to its own tenant at least."""
    return permission in ROLES[role]


def reaches_all(role: Role) -> bool:
    """Tells whether a role reaches beyond its own tenant."""
    return role in PLATFORM_ROLES
