"""Who is asking: the tenant, project and key behind a request, and what the key may do. Pure.

Keys are looked up by their public id and compared in constant time by the SHA-256 of their secret (48 characters of
36, so a plain hash cannot be searched). One rule: every refusal of a key looks and takes the same.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec
from collegium_contracts.identity import Reach, Role, role_of
from collegium_contracts.ids import API_KEY, TENANT_ID
from collegium_contracts.memory_paths import PathReach, reach_of
from collegium_contracts.state import KeyRecord, RateLimits, TenantRecord

from collegium_gateway.errors import ApiError
from collegium_gateway.identity import roles

_NO_SECRET = "0" * 64


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000


class Principal(msgspec.Struct, frozen=True):
    """The tenant, project and key of a request; ``models`` (empty: all) are those that it may ask.

    ``role`` is what the scope ``admin`` means for it. ``key_limits`` and the tenant's are over the tier's. ``projects``
    are those of its tenant. ``gates`` and
    ``verified`` are its tenant's; ``claims`` are what its token says of its user. ``collects_since_ms`` above 0: its
    tenant agrees since then that its work is learned from.
    """

    tenant: str
    project: str
    key_id: str
    scopes: frozenset[str]
    tier: str = "free"
    role: Role = "member"
    models: tuple[str, ...] = ()
    key_limits: RateLimits | None = None
    stale_answers: bool = False
    pool: str = ""
    gates: tuple[str, ...] = ()
    verified: dict[str, int] = {}
    claims: dict[str, Any] = {}
    projects: tuple[str, ...] = ()
    collects_since_ms: int = 0

    def need(self, scope: str) -> None:
        """Raises ApiError ``insufficient_scope`` unless the key has the scope."""
        if scope not in self.scopes:
            raise ApiError("insufficient_scope", f"key {self.key_id} lacks the scope {scope!r}; use a key that has it")

    def need_permission(self, permission: roles.Permission) -> None:
        """Raises ApiError unless the key administrates, and its role may do this; ``audit`` alone reads the trail."""
        if not _suffices(self.scopes, permission):
            self.need("admin")
        if not roles.permits(self.role, permission):
            raise ApiError("insufficient_role", f"key {self.key_id} is of the role {self.role}, without {permission}")

    def may(self, permission: roles.Permission) -> bool:
        """Whether it may do something, to its own tenant at least."""
        is_let_in = "admin" in self.scopes or _suffices(self.scopes, permission)
        return is_let_in and roles.permits(self.role, permission)

    @property
    def reviews_all(self) -> bool:
        """Whether it is of the operator's people who answer questions, whosever tasks they are about."""
        return ("admin" in self.scopes or "approvals" in self.scopes) and roles.reaches_all(self.role)

    @property
    def reaches_all(self) -> bool:
        """Whether it administrates every tenant, not its own alone."""
        return "admin" in self.scopes and roles.reaches_all(self.role)

    @property
    def reach(self) -> Reach:
        """What billing lets it touch."""
        if self.reaches_all:
            return Reach(owners=self.role == "owner")
        return Reach(tenant=self.tenant, owners=False, scopes=sorted(self.scopes))

    @property
    def memory_reach(self) -> PathReach:
        """Which paths of memory it may name."""
        return reach_of(self.project, self.projects, is_admin="admin" in self.scopes)

    def within(self, tenant: str | None) -> str | None:
        """Returns the tenant that is meant: none of those who reach all is all, a member's is its own.

        Raises ApiError ``insufficient_role`` where a member names another, whether that exists or not, and
        ``invalid_value`` where what is named (not empty) is no tenant's id.
        """
        if self.reaches_all:
            if tenant and TENANT_ID.match(tenant) is None:
                raise no_tenant_id("tenant")
            return tenant
        if tenant not in (None, self.tenant):
            raise ApiError("insufficient_role", f"key {self.key_id} administrates {self.tenant} alone", param="tenant")
        return self.tenant


class TokenBook(Protocol):
    """Tokens of others that were verified before: see tokens.py."""

    def authenticate(self, token: str) -> Principal:
        """Returns who holds a token, or raises ApiError."""
        ...


class KeyBook:
    """All keys by public id, kept up to date by ``learn``; ``used`` are those let in since it was taken."""

    def __init__(self, now_ms: Callable[[], int] = _unix_ms) -> None:
        self._now_ms = now_ms
        self._keys: dict[str, tuple[TenantRecord, KeyRecord, Principal]] = {}
        self._of_tenant: dict[str, set[str]] = {}
        self._records: dict[str, TenantRecord] = {}
        self.tokens: TokenBook | None = None
        self.used: set[str] = set()

    def learn(self, tenant: TenantRecord) -> None:
        """Replaces everything known of a tenant."""
        for key_id in self._of_tenant.pop(tenant.id, set()):
            self._keys.pop(key_id, None)
        self._of_tenant[tenant.id] = {key.id for key in tenant.keys}
        self._records[tenant.id] = tenant
        projects = projects_of(tenant)
        for key in tenant.keys:
            principal = Principal(
                tenant.id,
                key.project,
                key.id,
                frozenset(key.scopes),
                tenant.tier,
                role_of(tenant.id, key.role),
                tuple(key.models),
                key.limits,
                tenant.stale_answers,
                tenant.pool,
                tuple(tenant.gates),
                tenant.verified,
                projects=projects,
                collects_since_ms=tenant.collects_since_ms,
            )
            self._keys[key.id] = (tenant, key, principal)

    def tenants(self) -> Iterable[str]:
        """The ids of all known tenants."""
        return self._of_tenant.keys()

    def record(self, tenant: str) -> TenantRecord | None:
        """Returns a tenant as billing published it, or none."""
        return self._records.get(tenant)

    def known(self, tenant: str) -> str:
        """Returns the id of a tenant that there is; raises ApiError for what is no id, unknown or deleted."""
        if TENANT_ID.match(tenant) is None:
            raise no_tenant_id("tenant")
        record = self._records.get(tenant)
        if record is None or record.state == "deleted":
            raise ApiError("not_found", f"there is no tenant {tenant}", param="tenant")
        return tenant

    def authenticate(self, authorization: str | None) -> Principal:
        """Returns who holds the bearer key or token.

        Raises ApiError ``missing_api_key``, ``invalid_api_key`` (also where it was revoked or has expired), a token's
        refusals, or ``tenant_suspended`` to whoever has a right key.
        """
        if not authorization:
            raise ApiError("missing_api_key", "send a key as `Authorization: Bearer sk-clg-…`")
        scheme, _, token = authorization.partition(" ")
        is_bearer = scheme.lower() == "bearer"
        token = token.strip()
        match = API_KEY.match(token) if is_bearer else None
        if match is None and is_bearer and self.tokens is not None and token.count(".") == 2:
            return self.tokens.authenticate(token)
        key_id, secret = match.groups() if match is not None else ("", "")
        found = self._keys.get(key_id)
        digest = hashlib.sha256(secret.encode()).hexdigest()
        right = hmac.compare_digest(digest, found[1].secret_sha256 if found is not None else _NO_SECRET)
        if found is None or not right or found[1].revoked or self._has_expired(found[1]):
            raise ApiError("invalid_api_key", "this key is not valid; check it, or ask for a new one")
        if found[0].state != "active":
            raise suspended(found[0].id)
        self.used.add(key_id)
        return found[2]

    def _has_expired(self, key: KeyRecord) -> bool:
        return key.expires_at_ms > 0 and self._now_ms() >= key.expires_at_ms


def projects_of(tenant: TenantRecord) -> tuple[str, ...]:
    """Returns a tenant's projects, also archived ones that have keys."""
    return tuple(sorted({*tenant.projects, *(key.project for key in tenant.keys)}))


def _suffices(scopes: frozenset[str], permission: roles.Permission) -> bool:
    """Whether a scope of its own lets in, without ``admin``."""
    return (permission == "audit.read" and "audit" in scopes) or (
        permission in ("approvals.read", "approvals.write") and "approvals" in scopes
    )


def no_tenant_id(param: str) -> ApiError:
    """Returns the refusal of a name that can be no tenant's."""
    return ApiError("invalid_value", "a tenant's id has 1 to 40 characters of a-z, 0-9 and -", param=param)


def suspended(tenant: str) -> ApiError:
    """Returns the refusal of whoever belongs to a suspended tenant."""
    return ApiError("tenant_suspended", f"tenant {tenant} is suspended; ask its operator to resume it")
