"""Who is asking: the tenant, project and key behind a request, and what the key may do. Pure.

Keys are looked up by their public id and compared in constant time by the SHA-256 of their secret (48 characters of
36, so a plain hash cannot be searched). One rule: every refusal of a key looks and takes the same.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

import msgspec
from collegium_contracts.ids import API_KEY
from collegium_contracts.state import KeyRecord, TenantRecord

from collegium_gateway.errors import ApiError

_NO_SECRET = "0" * 64


class Principal(msgspec.Struct, frozen=True):
    """The tenant, project and key of a request."""

    tenant: str
    project: str
    key_id: str
    scopes: frozenset[str]
    tier: str = "free"
    stale_answers: bool = False

    def need(self, scope: str) -> None:
        """Raises ApiError ``insufficient_scope`` unless the key has the scope."""
        if scope not in self.scopes:
            raise ApiError("insufficient_scope", f"key {self.key_id} lacks the scope {scope!r}; use a key that has it")


class KeyBook:
    """All keys by public id, kept up to date by ``learn``."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[TenantRecord, KeyRecord, Principal]] = {}
        self._of_tenant: dict[str, set[str]] = {}

    def learn(self, tenant: TenantRecord) -> None:
        """Replaces everything known of a tenant."""
        for key_id in self._of_tenant.pop(tenant.id, set()):
            self._keys.pop(key_id, None)
        self._of_tenant[tenant.id] = {key.id for key in tenant.keys}
        for key in tenant.keys:
            principal = Principal(
                tenant.id, key.project, key.id, frozenset(key.scopes), tenant.tier, tenant.stale_answers
            )
            self._keys[key.id] = (tenant, key, principal)

    def tenants(self) -> Iterable[str]:
        """The ids of all known tenants."""
        return self._of_tenant.keys()

    def authenticate(self, authorization: str | None) -> Principal:
        """Returns who holds the bearer key; raises ApiError ``missing_api_key`` or ``invalid_api_key``."""
        if not authorization:
            raise ApiError("missing_api_key", "send a key as `Authorization: Bearer sk-clg-…`")
        scheme, _, token = authorization.partition(" ")
        match = API_KEY.match(token.strip()) if scheme.lower() == "bearer" else None
        key_id, secret = match.groups() if match is not None else ("", "")
        found = self._keys.get(key_id)
        digest = hashlib.sha256(secret.encode()).hexdigest()
        right = hmac.compare_digest(digest, found[1].secret_sha256 if found is not None else _NO_SECRET)
        if found is None or not right or found[1].revoked:
            raise ApiError("invalid_api_key", "this key is not valid; check it, or ask for a new one")
        return found[2]
