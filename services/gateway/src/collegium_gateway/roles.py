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
]  # fmt: skip

_READS: Final[frozenset[Permission]] = frozenset({
    "models.read", "spend.read", "tenants.read", "projects.read", "keys.read", "limits.read", "budgets.read",
    "dead-letters.read", "audit.read", "encryption.read",
    "ledger.read", "prices.read", "cache.read", "search-index.read", "gates.read",
})  # fmt: skip
_WRITES: Final[frozenset[Permission]] = frozenset({
    "tenants.write", "projects.write", "keys.write", "limits.write", "key-limits.write", "budgets.write",
    "dead-letters.write", "encryption.write", "ledger.write", "prices.write", "invoices.write", "cache.write",
    "gates.write",
})  # fmt: skip
_DELETES: Final[frozenset[Permission]] = frozenset({"tenants.delete"})
# What a tenant pays for is its operator's to bound, so a member reads budgets and limits and sets those of keys alone.
_MEMBER: Final[frozenset[Permission]] = frozenset({
    "models.read", "spend.read", "tenants.read", "projects.read", "projects.write", "keys.read", "keys.write",
    "limits.read", "key-limits.write", "budgets.read", "audit.read", "cache.read", "cache.write",
    "gates.read",
})  # fmt: skip

ROLES: Final[Mapping[Role, frozenset[Permission]]] = {
    "owner": _READS | _WRITES | _DELETES,
    "operator": _READS | _WRITES,
    "auditor": _READS,
    "member": _MEMBER,
}

ADMIN_PREFIX: Final = "/v1/admin/"
ADMIN_ROUTES: Final[Mapping[tuple[str, str], Permission]] = {
    ("GET", "/v1/admin/models"): "models.read",
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
    ("GET", "/v1/admin/gates"): "gates.read",
    ("POST", "/v1/admin/gates/test"): "gates.write",
    ("GET", "/v1/admin/gates/report"): "audit.read",
    ("GET", "/v1/admin/tenants/{id}/gates"): "gates.read",
    ("PUT", "/v1/admin/tenants/{id}/gates"): "gates.write",
    ("DELETE", "/v1/admin/tenants/{id}/gates"): "gates.write",
    ("GET", "/v1/admin/search-index"): "search-index.read",
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
