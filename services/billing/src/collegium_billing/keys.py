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
from collegium_contracts.ids import API_KEY, TENANT_ID
from collegium_contracts.requests import KeyRow, TenantRow
from collegium_contracts.state import KeyRecord, TenantRecord

from collegium_billing.errors import MalformedKeyError, QuestionError

OPERATOR: Final = "operator"
OPERATOR_TIER: Final = "enterprise"
SCOPES: Final = ("admin", "audit", "chat", "tasks", "usage")
OPERATOR_SCOPES: Final = ("admin", "chat", "tasks", "usage")  # admin reads what audit does
TENANT_SCOPES: Final = ("chat", "tasks", "usage")
DEFAULT_PROJECT: Final = "default"

PUBLIC_ID = re.compile(r"[a-z0-9]{8,16}\Z")
PROJECT_ID = re.compile(r"[a-z0-9-]{1,40}\Z")
NAME_CHARS_MAX = 100  # a label for people
# A record with this many keys stays under 256 KB, the most that is stored in the open in one message.
LIVE_KEYS_MAX = 500
REVOKED_KEYS_SHOWN = 500

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
    """A tenant as it is kept; ``keys`` counts the live ones."""

    id: str
    tier: str
    created_at_ms: int
    keys: int = 0


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is kept."""

    id: str
    tenant: str
    secret_sha256: str
    project: str
    scopes: tuple[str, ...]
    name: str
    created_at_ms: int
    revoked_at_ms: int | None = None


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


def record(tenant: Tenant, keys: Sequence[Key]) -> TenantRecord:
    """Returns a tenant as gateways know it: all live keys, and the revoked ones that were made last, sorted by id."""
    live = [key for key in keys if key.revoked_at_ms is None]
    revoked = sorted((key for key in keys if key.revoked_at_ms is not None), key=lambda key: key.created_at_ms)
    shown = sorted([*live, *revoked[-REVOKED_KEYS_SHOWN:]], key=lambda key: key.id)
    return TenantRecord(id=tenant.id, tier=tenant.tier, keys=[_key_record(key) for key in shown])


def _key_record(key: Key) -> KeyRecord:
    return KeyRecord(
        id=key.id,
        secret_sha256=key.secret_sha256,
        project=key.project,
        scopes=list(key.scopes),
        revoked=key.revoked_at_ms is not None,
    )


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
    )


def tenant_row(tenant: Tenant) -> TenantRow:
    """Returns a tenant as it is shown."""
    return TenantRow(id=tenant.id, tier=tenant.tier, created_at_ms=tenant.created_at_ms, keys=tenant.keys)


def check_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """Returns scopes once each; raises QuestionError for none or for unknown ones."""
    if not scopes or not set(scopes) <= set(SCOPES):
        raise QuestionError("invalid_value", f"a key needs scopes of: {', '.join(SCOPES)}", "scopes")
    return tuple(scope for scope in SCOPES if scope in scopes)


def check_key_id(key_id: str) -> None:
    """Raises QuestionError for what is no key's public id."""
    if PUBLIC_ID.match(key_id) is None:
        raise QuestionError("invalid_value", "a key's public id has 8 to 16 characters of a-z and 0-9", "key_id")


def check_project(project: str) -> None:
    """Raises QuestionError for what is no project's id."""
    if PROJECT_ID.match(project) is None:
        raise QuestionError("invalid_value", "a project's id has 1 to 40 characters of a-z, 0-9 and -", "project")


def check_name(name: str) -> None:
    """Raises QuestionError for a name that is too long or cannot be shown on one line."""
    if len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise QuestionError("invalid_value", f"a key's name has at most {NAME_CHARS_MAX} printable characters", "name")


def is_tenant_id(value: str) -> bool:
    """Tells whether a value may be a tenant's id."""
    return TENANT_ID.match(value) is not None
