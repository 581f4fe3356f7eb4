"""The audit trail: what services tell of acts, and what is sealed of it.

An entry says who did what to what, and how it ended; the sealer puts it into its tenant's chain (audit_chain.py), as a
record. One rule: no secret, no prompt and no answer stands in an entry, and every text in it is bounded and printable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from collegium_contracts.base import Message

# Whose chain holds what belongs to no tenant; no tenant's id has an underscore.
PLATFORM: Final = "_platform"
# Whose administrators and auditors see every tenant's trail; those of others see their own.
OPERATOR_TENANT: Final = "operator"

MAX_TEXT_CHARS: Final = 300
MAX_DETAILS: Final = 24

# Entries that the sealer writes of itself.
GAP: Final = "audit.gap"
STREAM_REPLACED: Final = "audit.stream_replaced"
UNREADABLE: Final = "audit.unreadable"
HEAD_MISMATCH: Final = "audit.head_mismatch"
ANCHORED: Final = "audit.anchored"
PRUNED: Final = "audit.pruned"
# What a recorder had to drop, told as soon as there is room again.
LOST: Final = "audit.lost"

KEY_USED: Final = "key.used"
KEY_REFUSED: Final = "key.refused"

Outcome = Literal["begun", "done", "refused", "failed"]


class AuditEntry(Message, frozen=True, kw_only=True):
    """Somebody did something, or was refused it (hop 13).

    ``actor`` is a key's public id, a token's subject or ``service:<name>``; ``object`` is what was acted on; ``reason``
    is the error's code or the words given for the act. ``begun`` stands before an act, and the entry of its end names
    it in ``details["begun"]``. ``count`` above 1: so many of the same kind since the entry before. ``id`` is unique for
    good: what was stored twice is sealed once.
    """

    id: str
    tenant: str
    service: str
    actor: str
    action: str
    outcome: Outcome
    at_ms: int
    object: str = ""
    reason: str = ""
    details: dict[str, str] = {}
    trace: str = ""
    count: int = 1


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One link of a tenant's chain: the entry, where in AUDIT it stood (0: made by the sealer), and its hashes (hex).

    ``seq`` counts from 1 within the tenant. ``position`` orders the records of all tenants; it is no part of the link.
    """

    tenant: str
    seq: int
    id: str
    at_ms: int
    sealed_at_ms: int
    service: str
    actor: str
    action: str
    object: str
    outcome: str
    reason: str
    details: dict[str, str]
    trace: str
    count: int
    stream: str
    stream_sequence: int
    prev_hash: str
    hash: str
    position: int = 0


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """The signature of one place in a chain: up to ``seq``, whose hash is ``hash``, it stood so at ``at_ms``.

    ``kind``: ``head`` is the chain's end now, ``anchor`` one of its ends in time (of the round ``round``),
    ``checkpoint`` says that what lies at and before it was pruned. ``signature`` is Ed25519 in hex.
    """

    kind: Literal["head", "anchor", "checkpoint"]
    tenant: str
    seq: int
    hash: str
    at_ms: int
    round: int
    key_id: str
    signature: str


def printable(text: str, limit: int = MAX_TEXT_CHARS) -> str:
    """Returns a text without control characters and lone surrogates, cut to a length."""
    cut = text[:limit]
    if cut.isascii() and cut.isprintable():
        return cut
    return "".join(one if one.isprintable() else "\ufffd" for one in cut)


def bounded(entry: AuditEntry) -> AuditEntry:
    """Returns an entry as it may be stored: every text printable and at most MAX_TEXT_CHARS, no more than MAX_DETAILS.

    Doing it again changes nothing.
    """
    return msgspec.structs.replace(
        entry,
        id=printable(entry.id),
        service=printable(entry.service),
        actor=printable(entry.actor),
        action=printable(entry.action),
        object=printable(entry.object),
        reason=printable(entry.reason),
        details=bounded_details(entry.details),
        trace=printable(entry.trace),
    )


def bounded_details(details: Mapping[str, str]) -> dict[str, str]:
    """Returns details as they may be stored."""
    kept = list(details.items())[:MAX_DETAILS]
    return {printable(name, 60): printable(text) for name, text in kept}
