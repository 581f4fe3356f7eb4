"""The key that signs places in audit chains (Ed25519), and checking its signatures.

The key is derived from ``audit.signing_key`` of the configuration, or from a file in the data folder that is made once
(mode 0600). It is no part of the envelope key: that one is rotated and destroyed with content, this one must outlast
what it signed. One rule: a public key is named by its hash, and which names are trusted is said by the operator, never
by what is being checked.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from collegium_contracts.audit import Signed
from collegium_contracts.audit_chain import signed_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FILE_NAME: Final = "audit.key"
_PURPOSE: Final = b"collegium audit signatures v1"


def key_id_of(public_key: str) -> str:
    """Returns the name of a public key (hex): the begin of its SHA-256."""
    return hashlib.sha256(bytes.fromhex(public_key)).hexdigest()[:16]


class AuditSigner:
    """Signs places of chains; ``public_key`` is hex."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes_raw().hex()
        self.key_id = key_id_of(self.public_key)

    def sign(self, place: Signed) -> Signed:
        """Returns a place signed by this key."""
        named = msgspec.structs.replace(place, key_id=self.key_id, signature="")
        return msgspec.structs.replace(named, signature=self._key.sign(signed_bytes(named)).hex())


class AuditKeys:
    """The public keys that are trusted."""

    def __init__(self, public_keys: Iterable[str]) -> None:
        self.by_id = {key_id_of(one): one for one in public_keys}

    def fault(self, signed: Signed) -> str | None:
        """Returns why a signature does not count, or none where it does."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - heavy, and few processes need it
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

        public_key = self.by_id.get(signed.key_id)
        if public_key is None:
            return f"the {signed.kind} at {signed.seq} is signed by the key {signed.key_id}, which is not trusted"
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
            key.verify(bytes.fromhex(signed.signature), signed_bytes(signed))
        except (InvalidSignature, ValueError):
            return f"the signature of the {signed.kind} at {signed.seq} is not that of the key {signed.key_id}"
        return None


def load_signer(data_dir: Path, configured: str | None) -> AuditSigner:
    """Returns the signer; raises OSError where its file can be neither read nor made."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - heavy
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    secret = configured or _read_or_make(data_dir)
    seed = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(secret.encode())
    return AuditSigner(Ed25519PrivateKey.from_private_bytes(seed))


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
