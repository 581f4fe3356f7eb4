"""Sealing with a tenant's data key: AES-256-GCM, a random 96-bit nonce, bound to tenant, key and purpose.

A process does not seal with the data key itself but with a key derived from it and from a random salt of its own, and
derives another after MESSAGES_PER_KEY messages. So the bound for random nonces (2^32 messages a key) holds over any
number of processes without a word between them. An envelope's key id is ``<data key>.<salt>``. Not here: where data
keys stand and how they are made (datakeys). One rule: a key that was destroyed opens and seals nothing more.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Awaitable, Callable
from typing import Final

from collegium_contracts.envelope import IDENTITY_KEY_ID, Envelope, UnknownKeyError
from collegium_contracts.state import DataKeysRecord, WrappedKey
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# A quarter of what random nonces allow: at this number two are alike with a chance below 2^-33.
MESSAGES_PER_KEY: Final = 2**30
# Derived keys held of one tenant: those of its live processes, and some that read what earlier ones wrote.
OPENERS_MAX: Final = 256
SALT_BYTES: Final = 12
# A rotated key seals only when every process has read it: watches are read anew each minute, whatever was lost.
ACTIVE_AFTER_MS: Final = 90_000
_NONCE_BYTES: Final = 12
_DERIVE: Final = b"collegium content key v1\x00"

Unwrap = Callable[[str, WrappedKey], bytes]
Learn = Callable[[str], Awaitable[None]]


class _Cipher:
    """One derived key, ready to use; ``left`` counts down for the one that seals."""

    __slots__ = ("bound", "decrypt", "encrypt", "key_id", "left")

    def __init__(self, tenant: str, key_id: str, data_key: bytes, salt: bytes) -> None:
        # One block of HKDF-Expand: the data key is uniformly random, so there is nothing to extract.
        derived = hmac.digest(data_key, _DERIVE + salt + b"\x01", "sha256")
        cipher = AESGCM(derived)
        self.key_id = key_id
        self.bound = f"{tenant}\x00{key_id}\x00".encode()
        self.encrypt = cipher.encrypt
        self.decrypt = cipher.decrypt
        self.left = MESSAGES_PER_KEY


class _Keys:
    """What is held of one tenant."""

    __slots__ = ("openers", "plain", "sealer", "wrapped")

    def __init__(self, record: DataKeysRecord) -> None:
        self.wrapped = {key.id: key for key in record.keys}
        self.plain: dict[str, bytes] = {}
        self.openers: dict[str, _Cipher] = {}
        self.sealer: _Cipher | None = None


class TenantKeyring:
    """The keyring of one process. ``learn`` asks for a tenant's keys and calls :meth:`take` with what stands."""

    def __init__(self, unwrap: Unwrap, learn: Learn, now_ms: Callable[[], int]) -> None:
        self._unwrap = unwrap
        self._learn = learn
        self._now_ms = now_ms
        self._tenants: dict[str, _Keys] = {}

    def take(self, record: DataKeysRecord) -> None:
        """Replaces what is held of a tenant; without keys nothing is held any more."""
        if not record.keys:
            self._tenants.pop(record.tenant, None)
            return
        standing = self._tenants.get(record.tenant)
        if standing is not None and list(standing.wrapped.values()) == record.keys:
            return
        self._tenants[record.tenant] = _Keys(record)

    def seal(self, tenant: str, plain: bytes, purpose: str = "") -> Envelope:
        """Seals bytes with the tenant's newest key; raises UnknownKeyError where there is none."""
        keys = self._tenants.get(tenant)
        sealer = keys.sealer if keys is not None else None
        if sealer is None or not sealer.left:
            sealer = self._new_sealer(tenant)
        sealer.left -= 1
        nonce = os.urandom(_NONCE_BYTES)
        bound = sealer.bound + purpose.encode() if purpose else sealer.bound
        return Envelope(sealer.key_id, nonce, sealer.encrypt(nonce, plain, bound))

    def open(self, tenant: str, envelope: Envelope, purpose: str = "") -> bytes:
        """Opens an envelope, also one of before there were keys; raises UnknownKeyError."""
        keys = self._tenants.get(tenant)
        opener = keys.openers.get(envelope.key_id) if keys is not None else None
        if opener is None:
            if envelope.key_id == IDENTITY_KEY_ID:
                return envelope.body
            opener = self._new_opener(tenant, envelope.key_id)
        bound = opener.bound + purpose.encode() if purpose else opener.bound
        try:
            return opener.decrypt(envelope.nonce, envelope.body, bound)
        except (InvalidTag, ValueError):
            raise UnknownKeyError(
                f"content of tenant {tenant} under key {envelope.key_id!r} was altered, or belongs elsewhere"
            ) from None

    def holds(self, tenant: str, envelope: Envelope | None = None) -> bool:
        """Whether an envelope's data key is held, or without one, whether the tenant's content can be sealed."""
        keys = self._tenants.get(tenant)
        if envelope is None:
            return keys is not None
        if envelope.key_id == IDENTITY_KEY_ID:
            return True
        return keys is not None and (
            envelope.key_id in keys.openers or envelope.key_id.partition(".")[0] in keys.wrapped
        )

    async def learn(self, tenant: str) -> None:
        """Asks for the tenant's keys as they stand now."""
        await self._learn(tenant)

    def _new_sealer(self, tenant: str) -> _Cipher:
        keys = self._tenants.get(tenant)
        if keys is None:
            raise UnknownKeyError(f"there is no data key of tenant {tenant} here: it was erased, or has none yet")
        newest = self._newest(keys)
        salt = os.urandom(SALT_BYTES)
        key_id = f"{newest}.{base64.urlsafe_b64encode(salt).decode()}"
        keys.sealer = _Cipher(tenant, key_id, self._plain(tenant, keys, newest), salt)
        self._keep(keys, keys.sealer)
        return keys.sealer

    def _new_opener(self, tenant: str, key_id: str) -> _Cipher:
        data_key, _, salt_text = key_id.partition(".")
        keys = self._tenants.get(tenant)
        if keys is None or data_key not in keys.wrapped:
            raise UnknownKeyError(f"content of tenant {tenant} is sealed with key {key_id!r}, which is not held here")
        try:
            salt = base64.b64decode(salt_text, altchars=b"-_", validate=True)
        except ValueError:
            raise UnknownKeyError(f"{key_id!r} is not the id of a key") from None
        opener = _Cipher(tenant, key_id, self._plain(tenant, keys, data_key), salt)
        self._keep(keys, opener)
        return opener

    def _newest(self, keys: _Keys) -> str:
        """The newest key that everybody knows by now; the first one seals at once."""
        known_since = self._now_ms() - ACTIVE_AFTER_MS
        chosen, *later = keys.wrapped.values()
        for key in later:
            if key.created_at_ms <= known_since:
                chosen = key
        return chosen.id

    def renew(self, tenant: str) -> None:
        """Has the next message sealed with the key that is the newest by then."""
        if (keys := self._tenants.get(tenant)) is not None:
            keys.sealer = None

    @staticmethod
    def _keep(keys: _Keys, cipher: _Cipher) -> None:
        if len(keys.openers) >= OPENERS_MAX:
            del keys.openers[next(iter(keys.openers))]
        keys.openers[cipher.key_id] = cipher

    def _plain(self, tenant: str, keys: _Keys, key_id: str) -> bytes:
        plain = keys.plain.get(key_id)
        if plain is None:
            plain = keys.plain[key_id] = self._unwrap(tenant, keys.wrapped[key_id])
        return plain
