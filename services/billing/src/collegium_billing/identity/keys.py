"""API keys and tenants: how keys are made, read, hashed and described to gateways.

Here: pure functions over ids, secrets and records. Not here: where keys are kept. One rule: a secret leaves this module
only inside the key that is shown once; everything stored or published is its SHA-256.

A secret has 48 characters of 36: 248 bits of chance, so a fast hash without salt is enough.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
from collegium_contracts.identity import OPERATOR_TENANT, Reach, TenantState, role_of
from collegium_contracts.ids import API_KEY, KEY_ID, PROJECT_ID, TENANT_ID
from collegium_contracts.requests import KeyRow, TenantRow
from collegium_contracts.state import RateLimits

from collegium_billing.errors import MalformedKeyError, QuestionError

OPERATOR: Final = OPERATOR_TENANT
OPERATOR_TIER: Final = "enterprise"
SCOPES: Final = ("admin", "approvals", "audit", "chat", "knowledge", "tasks", "usage")
OPERATOR_SCOPES: Final = ("admin", "chat", "knowledge", "tasks", "usage")  # admin reads what audit does
TENANT_SCOPES: Final = ("chat", "knowledge", "tasks", "usage")
DEFAULT_PROJECT: Final = "default"

ROLES: Final = ("owner", "operator", "auditor", "member")
MODELS_MAX: Final = 32  # of one allow-list; the list travels with every task of its key
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}\Z")
NAME_CHARS_MAX = 100  # a label for people
EXPIRY_DAYS_MAX: Final = 3_660
DAY_MS: Final = 86_400_000
# A record with this many keys stays under 256 KB, the most that is stored in the open in one message.
LIVE_KEYS_MAX = 500

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_PUBLIC_CHARS = 12
_SECRET_CHARS = 48


class ApiKey(NamedTuple):
    """A key in the open, as it is shown once."""

    public_id: str
    secret: str

    @property
    def text(self) -> str:
        """The key as clients send it."""
        return f"sk-clg-{self.public_id}-{self.secret}"

    @property
    def secret_sha256(self) -> str:
        """The hash under which the key is kept: SHA-256 of the secret, in hex."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant as it is kept; ``keys`` counts those not revoked, ``projects`` those not archived.

    ``stale_answers``: it may be shown answers that are too old while no model can be asked. ``pool`` is its own.
    ``gates`` are the rules that its requests pass, ``verified`` is what its operator vouches for of all its users.
    ``collects_since_ms`` above 0: since then it agrees that its work is learned from; ``grants`` are the tenants that
    what was learned answers for too.
    """

    id: str
    tier: str
    created_at_ms: int
    state: TenantState = "active"
    limits: RateLimits | None = None
    keys: int = 0
    projects: int = 0
    stale_answers: bool = False
    pool: str = ""
    gates: tuple[str, ...] = ()
    verified: dict[str, int] = {}
    collects_since_ms: int = 0
    grants: tuple[str, ...] = ()


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is kept; it lives until it is revoked or ``expires_at_ms`` (0: never) has come.

    ``lineage`` (empty: its own) is the id of the first of the keys that follow each other by rotation.
    """

    id: str
    tenant: str
    secret_sha256: str
    project: str
    scopes: tuple[str, ...]
    name: str
    created_at_ms: int
    revoked_at_ms: int | None = None
    role: str = ""
    models: tuple[str, ...] = ()
    limits: RateLimits | None = None
    expires_at_ms: int = 0
    last_used_at_ms: int | None = None
    rotated_to: str = ""
    lineage: str = ""

    @property
    def first(self) -> str:
        """The id under which budgets and limits of the key stand: that of the first key of its lineage."""
        return self.lineage or self.id

    def lives(self, now_ms: int) -> bool:
        """Tells whether the key lets anybody in at a time."""
        return self.revoked_at_ms is None and (self.expires_at_ms == 0 or now_ms < self.expires_at_ms)


def make(choose: Callable[[Sequence[str]], str]) -> ApiKey:
    """Makes a new key; ``choose`` picks one character of many (``secrets.choice``)."""
    return ApiKey(
        "".join(choose(_ALPHABET) for _ in range(_PUBLIC_CHARS)),
        "".join(choose(_ALPHABET) for _ in range(_SECRET_CHARS)),
    )


def parse(text: str, origin: str) -> ApiKey:
    """Reads a key; raises MalformedKeyError, which names its ``origin`` and never the text."""
    match = API_KEY.match(text)
    if match is None:
        raise MalformedKeyError(
            f"{origin} is not an API key: sk-clg-<8 to 16 of a-z0-9>-<48 of a-z0-9> is accepted; replace it"
        )
    return ApiKey(*match.groups())


def key_row(key: Key) -> KeyRow:
    """Returns a key as it is shown."""
    return KeyRow(
        id=key.id,
        tenant=key.tenant,
        project=key.project,
        name=key.name,
        scopes=list(key.scopes),
        created_at_ms=key.created_at_ms,
        revoked_at_ms=key.revoked_at_ms,
        role=key.role,
        models=list(key.models),
        expires_at_ms=key.expires_at_ms,
        limits=key.limits,
        last_used_at_ms=key.last_used_at_ms,
        rotated_to=key.rotated_to,
    )


def tenant_row(tenant: Tenant) -> TenantRow:
    """Returns a tenant as it is shown."""
    return TenantRow(
        id=tenant.id,
        tier=tenant.tier,
        created_at_ms=tenant.created_at_ms,
        keys=tenant.keys,
        state=tenant.state,
        projects=tenant.projects,
        limits=tenant.limits,
        stale_answers=tenant.stale_answers,
        pool=tenant.pool,
        gates=list(tenant.gates),
        verified=tenant.verified,
        collects_since_ms=tenant.collects_since_ms,
        grants=list(tenant.grants),
    )


def check_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """Returns scopes once each; raises QuestionError for none or for unknown ones."""
    if not scopes or not set(scopes) <= set(SCOPES):
        raise QuestionError("invalid_value", f"a key needs scopes of: {', '.join(SCOPES)}", "scopes")
    return tuple(scope for scope in SCOPES if scope in scopes)


def check_key_id(key_id: str) -> None:
    """Raises QuestionError for what is no key's public id."""
    if KEY_ID.match(key_id) is None:
        raise QuestionError("invalid_value", "a key's public id has 8 to 16 characters of a-z and 0-9", "key_id")


def check_project(project: str) -> None:
    """Raises QuestionError for what is no project's id."""
    if PROJECT_ID.match(project) is None:
        raise QuestionError("invalid_value", "a project's id has 1 to 40 characters of a-z, 0-9 and -", "project")


def check_name(name: str) -> None:
    """Raises QuestionError for a name that is too long or cannot be shown on one line."""
    if len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise QuestionError("invalid_value", f"a key's name has at most {NAME_CHARS_MAX} printable characters", "name")


def check_models(models: Sequence[str], most: int) -> tuple[str, ...]:
    """Returns an allow-list, each name once; raises QuestionError for too many and for what is no model's name."""
    names = tuple(dict.fromkeys(models))
    if len(names) > min(most, MODELS_MAX) or any(MODEL_NAME.match(name) is None for name in names):
        raise QuestionError(
            "invalid_value", f"models: at most {min(most, MODELS_MAX)} names of models for this tenant's tier", "models"
        )
    return names


def check_role(tenant: str, role: str, scopes: Sequence[str]) -> str:
    """Returns a key's role; raises QuestionError for one that is unknown, without effect, or not this tenant's."""
    if not role:
        return role
    if role not in ROLES:
        raise QuestionError("invalid_value", f"{role[:40]!r} is no role; accepted: {', '.join(ROLES)}", "role")
    if "admin" not in scopes:
        raise QuestionError("invalid_value", "a role needs the scope admin", "role")
    if role_of(tenant, role) != role:
        raise QuestionError("invalid_value", f"keys of {tenant} may have the role member alone", "role")
    return role


def check_expiry(expires_at_ms: int, now_ms: int) -> int:
    """Returns when a key ends (0: never); raises QuestionError for what has passed or lies too far ahead."""
    if expires_at_ms and not now_ms < expires_at_ms <= now_ms + EXPIRY_DAYS_MAX * DAY_MS:
        raise QuestionError(
            "invalid_value", f"a key ends in the future, within {EXPIRY_DAYS_MAX} days, or never", "expires_at"
        )
    return expires_at_ms


def check_reach(reach: Reach, key: Key, *, gives: bool) -> None:
    """Raises QuestionError where a key lies outside an asker's reach; ``gives``: the asker is shown a secret for it."""
    if reach.tenant is not None and key.tenant != reach.tenant:
        raise QuestionError("not_found", f"there is no key {key.id}", "key_id")
    if not reach.owners and "admin" in key.scopes and role_of(key.tenant, key.role) == "owner":
        raise QuestionError("insufficient_role", "only an owner makes, rotates, limits or revokes keys of owners")
    if gives and reach.scopes is not None and not set(key.scopes) <= set(reach.scopes):
        raise QuestionError("insufficient_role", "a key that you give may have no scope that yours lacks", "scopes")


def is_tenant_id(value: str) -> bool:
    """Tells whether a value may be a tenant's id."""
    return TENANT_ID.match(value) is not None
