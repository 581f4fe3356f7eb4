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
    """Seals and opens content for a tenant.

    ``purpose`` binds content to its place where that is known: what was sealed for one opens for no other.
    """

    def seal(self, tenant: str, plain: bytes, purpose: str = "") -> Envelope:
        """Seals plain bytes for a tenant; raises :class:`UnknownKeyError` where the tenant has no key here."""
        ...

    def open(self, tenant: str, envelope: Envelope, purpose: str = "") -> bytes:
        """Opens an envelope; raises :class:`UnknownKeyError` where the key is not held, or the bytes are not its."""
        ...

    def holds(self, tenant: str, envelope: Envelope | None = None) -> bool:
        """Whether the key of an envelope is held, or without one, whether content of the tenant can be sealed."""
        ...

    async def learn(self, tenant: str) -> None:
        """Reads the tenant's keys anew, for content that came faster than its key."""
        ...


class UnknownKeyError(ContractError):
    """The envelope was sealed with a key that this process does not hold."""

    code = "unknown_envelope_key"


class IdentityKeyring:
    """The keyring that leaves content as it is."""

    def seal(self, tenant: str, plain: bytes, purpose: str = "") -> Envelope:
        """Wraps the bytes unchanged."""
        return Envelope(IDENTITY_KEY_ID, b"", plain)

    def open(self, tenant: str, envelope: Envelope, purpose: str = "") -> bytes:
        """Returns the bytes of an identity envelope; any other key is unknown here."""
        if envelope.key_id != IDENTITY_KEY_ID:
            raise UnknownKeyError(
                f"content of tenant {tenant} is sealed with key {envelope.key_id!r}, which is not held here"
            )
        return envelope.body

    def holds(self, tenant: str, envelope: Envelope | None = None) -> bool:
        """Whether an envelope needs no key."""
        return envelope is None or envelope.key_id == IDENTITY_KEY_ID

    async def learn(self, tenant: str) -> None:
        """Has nothing to read."""


async def held(keyring: Keyring, tenant: str, *envelopes: Envelope | None) -> None:
    """Reads the tenant's keys once where one of the envelopes came faster than its key; what is unknown stays so."""
    for envelope in envelopes:
        if envelope is not None and not keyring.holds(tenant, envelope):
            await keyring.learn(tenant)
            return
