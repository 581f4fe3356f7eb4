"""The envelope key: what the tenants' data keys are wrapped under.

It comes from ``encryption.key`` (any long random text; ``encryption.previous`` still unwraps) or, where that is not
set, from a file in the data folder that is made once, mode 0600. One rule: no key is made where wrapped data keys
stand already, because it could open none of them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from collegium_contracts.envelope import UnknownKeyError
from collegium_contracts.state import WrappedKey
from collegium_settings.settings import EncryptionSettings
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FILE_NAME: Final = "encryption.key"
NONCE_BYTES: Final = 12
DATA_KEY_BYTES: Final = 32
_PURPOSE: Final = b"collegium envelope key v1"


class EnvelopeKeyError(Exception):
    """The envelope key is missing or is not the one under which the data keys that stand were wrapped."""


class EnvelopeKey(NamedTuple):
    """A key that wraps: its id, which tells nothing of it, and its cipher."""

    id: str
    cipher: AESGCM


def derive(secret: str) -> EnvelopeKey:
    """Makes the key of a secret text by HKDF-SHA256."""
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(secret.encode())
    return EnvelopeKey(hashlib.sha256(key).hexdigest()[:16], AESGCM(key))


class EnvelopeKeys:
    """The key that wraps and the earlier ones that still unwrap."""

    def __init__(self, data_dir: Path, encryption: EncryptionSettings) -> None:
        self.path = data_dir / FILE_NAME
        self._is_configured = encryption.key is not None
        self._newest = derive(encryption.key.reveal()) if encryption.key is not None else None
        self._by_id = {key.id: key for key in (derive(one.reveal()) for one in encryption.previous)}
        if self._newest is not None:
            self._by_id[self._newest.id] = self._newest

    def check(self, wrapped_by: Iterable[str]) -> None:
        """Raises EnvelopeKeyError unless every key under which something is wrapped is here."""
        used = sorted(set(wrapped_by))
        if not used:
            return
        self._read()
        missing = [key_id for key_id in used if key_id not in self._by_id]
        if not missing:
            return
        where = (
            "encryption.key is not the key (nor encryption.previous one)"
            if self._is_configured
            else f"{self.path} {'is not the file' if self.path.exists() else 'is missing'}"
        )
        raise EnvelopeKeyError(
            f"the tenants' data keys are wrapped under key {', '.join(missing)}, and {where}: restore {self.path} from "
            "its backup, or set encryption.key (or encryption.previous) to the text that the platform was started "
            "with; without it stored prompts and answers cannot be read"
        )

    def make(self) -> None:
        """Makes the file where no key is configured and none stands; raises OSError where that is refused."""
        if self._newest is None:
            self._use(derive(read_or_make(self.path)))

    @property
    def newest(self) -> EnvelopeKey:
        """The key that wraps; raises EnvelopeKeyError where there is none."""
        self._read()
        if self._newest is None:
            raise EnvelopeKeyError(f"there is no envelope key: {self.path} is missing and encryption.key is not set")
        return self._newest

    def wrap(self, tenant: str, key_id: str, plain: bytes, now_ms: int) -> WrappedKey:
        """Encrypts a data key, bound to its tenant and id."""
        key, nonce = self.newest, os.urandom(NONCE_BYTES)
        wrapped = key.cipher.encrypt(nonce, plain, _bound(tenant, key_id))
        return WrappedKey(id=key_id, wrapped_by=key.id, nonce=nonce, wrapped=wrapped, created_at_ms=now_ms)

    def unwrap(self, tenant: str, wrapped: WrappedKey) -> bytes:
        """Returns a data key; raises UnknownKeyError where its envelope key is not here, or it was altered."""
        if wrapped.wrapped_by not in self._by_id:
            self._read()
        key = self._by_id.get(wrapped.wrapped_by)
        if key is None:
            raise UnknownKeyError(
                f"data key {wrapped.id} of tenant {tenant} is wrapped under envelope key {wrapped.wrapped_by}, which "
                "is neither encryption.key nor one of encryption.previous"
            )
        try:
            return key.cipher.decrypt(wrapped.nonce, wrapped.wrapped, _bound(tenant, wrapped.id))
        except InvalidTag:
            raise UnknownKeyError(f"data key {wrapped.id} of tenant {tenant} was altered, or is another's") from None

    def _read(self) -> None:
        if self._newest is None and self.path.exists():
            self._use(derive(self.path.read_text().strip()))

    def _use(self, key: EnvelopeKey) -> None:
        self._newest = key
        self._by_id[key.id] = key


def _bound(tenant: str, key_id: str) -> bytes:
    return f"data key\x00{tenant}\x00{key_id}".encode()


def read_or_make(path: Path) -> str:
    """Returns the file's secret, made first where it is absent; whoever makes it first wins."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(f"{secrets.token_hex(32)}\n")
                file.flush()
                os.fsync(file.fileno())
            # A link, unlike a rename, refuses to replace what another process put there meanwhile.
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
