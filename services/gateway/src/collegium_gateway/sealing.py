"""Sealing what is kept for a client and may hold a secret: AES-256-GCM under the installation's key.

The key is derived from ``encryption.key`` of the configuration, or from a file in the data folder that is made once
(mode 0600). Gateways on several machines need the same ``encryption.key``; those of one data folder share the file. One
rule: what is sealed is bound to its place (``bound_to``), so that it cannot be shown elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from collegium_contracts.envelope import Envelope, UnknownKeyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FILE_NAME: Final = "encryption.key"
_NONCE_BYTES: Final = 12
_PURPOSE: Final = b"collegium kept replies v1"


class Sealer:
    """Seals and opens bytes; the key is made ready at the first use."""

    def __init__(self, data_dir: Path, configured: str | None) -> None:
        self._data_dir = data_dir
        self._configured = configured
        self._cipher: AESGCM | None = None
        self._key_id = ""

    def seal(self, plain: bytes, bound_to: str) -> Envelope:
        """Seals bytes for one place."""
        cipher = self.prepare()
        nonce = os.urandom(_NONCE_BYTES)
        return Envelope(self._key_id, nonce, cipher.encrypt(nonce, plain, bound_to.encode()))

    def open(self, envelope: Envelope, bound_to: str) -> bytes:
        """Opens an envelope; raises UnknownKeyError for another key, another place, or altered bytes."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - see prepare

        cipher = self.prepare()
        if envelope.key_id != self._key_id:
            raise UnknownKeyError(f"sealed with key {envelope.key_id!r}; set encryption.key alike on every gateway")
        try:
            return cipher.decrypt(envelope.nonce, envelope.body, bound_to.encode())
        except InvalidTag:
            raise UnknownKeyError("the sealed bytes were altered, or belong elsewhere") from None

    def prepare(self) -> AESGCM:
        """Makes the key ready, and raises OSError where its file can be neither read nor made."""
        if self._cipher is None:
            # Loaded at the first use: it costs a fiftieth of a second, and most gateways never seal.
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415
            from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

            secret = self._configured or _read_or_make(self._data_dir)
            key = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(secret.encode())
            self._key_id = hashlib.sha256(key).hexdigest()[:16]
            self._cipher = AESGCM(key)
        return self._cipher


def _read_or_make(data_dir: Path) -> str:
    """Returns the file's secret, made first where it is absent; whoever makes it first wins."""
    path = data_dir / FILE_NAME
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{FILE_NAME}.{secrets.token_hex(4)}")
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
