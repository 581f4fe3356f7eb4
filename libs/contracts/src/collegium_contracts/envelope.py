"""The envelope around everything a person or a model wrote.

Prompts, answers and token text never stand in a message in the open: they are sealed in an :class:`Envelope`, which
names the key that sealed it. The identity key leaves the bytes as they are; a per-tenant key replaces it without a
change of any wire file. One rule: a service that need not read content passes the envelope on unopened.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from collegium_contracts.errors import ContractError

IDENTITY_KEY_ID = "identity"


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """Sealed content: the id of the key, the nonce (empty for the identity key) and the sealed bytes."""

    key_id: str
    nonce: bytes
    body: bytes


class Keyring(Protocol):
    """Seals and opens content for a tenant."""

    def seal(self, tenant: str, plain: bytes) -> Envelope:
        """Seals plain bytes for a tenant."""
        ...

    def open(self, tenant: str, envelope: Envelope) -> bytes:
        """Opens an envelope; raises :class:`UnknownKeyError` where the key is not held."""
        ...


class UnknownKeyError(ContractError):
    """The envelope was sealed with a key that this process does not hold."""

    code = "unknown_envelope_key"


class IdentityKeyring:
    """The keyring that leaves content as it is."""

    def seal(self, tenant: str, plain: bytes) -> Envelope:
        """Wraps the bytes unchanged."""
        return Envelope(IDENTITY_KEY_ID, b"", plain)

    def open(self, tenant: str, envelope: Envelope) -> bytes:
        """Returns the bytes of an identity envelope; any other key is unknown here."""
        if envelope.key_id != IDENTITY_KEY_ID:
            raise UnknownKeyError(
                f"content of tenant {tenant} is sealed with key {envelope.key_id!r}, which is not held here"
            )
        return envelope.body
