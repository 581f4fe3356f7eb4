"""Questions about the audit trail that gateways ask of billing.

The gateway has checked who asks; ``tenant`` none means all tenants, the platform's own chain included.
"""

from __future__ import annotations

import msgspec

from collegium_contracts.audit import AuditRecord, Signed
from collegium_contracts.audit_chain import Problem
from collegium_contracts.base import Message


class AuditRead(Message, frozen=True, kw_only=True):
    """Asks for records: newest first, or ``ascending``, those after ``cursor`` (0: from the first).

    The cursor is a record's ``seq`` where a tenant is named, else its ``position``. ``through`` (0: no bound) is the
    last ``seq`` wanted of an ascending read.
    """

    tenant: str | None = None
    ascending: bool = False
    cursor: int = 0
    through: int = 0
    from_ms: int = 0
    to_ms: int = 0
    action: str = ""
    actor: str = ""
    outcome: str = ""
    limit: int = 100


class AuditRecordsReply(Message, frozen=True, kw_only=True):
    """The records; ``next_cursor`` is 0 where there are no more."""

    records: list[AuditRecord]
    next_cursor: int = 0


class AuditProofRequest(Message, frozen=True, kw_only=True):
    """Asks for what proves one chain, and which records of it lie in [from, to) (0: no bound)."""

    tenant: str
    from_ms: int = 0
    to_ms: int = 0


class AuditProof(Message, frozen=True, kw_only=True):
    """The proof of one chain: its head, the checkpoint it begins after, its anchors, and the keys that signed them.

    ``first`` and ``last`` are the ``seq`` of the records asked for (0: there are none).
    """

    tenant: str
    head: Signed | None
    checkpoint: Signed | None
    anchors: list[Signed]
    public_keys: dict[str, str]
    first: int
    last: int


class AuditVerify(Message, frozen=True, kw_only=True):
    """Asks to walk chains, from where ``cursor`` (empty: from the begin) says, for as long as an answer may take."""

    tenant: str | None = None
    cursor: str = ""


class ChainVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one chain: how many records and anchors hold, the last one, and the first problem if any.

    ``findings`` counts records that tell of something that was not as it should be (``audit.gap`` and the like).
    """

    tenant: str
    records: int
    seq: int
    hash: str
    anchors: int = 0
    findings: int = 0
    problem: Problem | None = None


class AuditVerdict(Message, frozen=True, kw_only=True):
    """The chains that were walked to their end; ``cursor`` (empty: done) is where the next question goes on.

    ``public_keys`` are those whose signatures count, by name.
    """

    chains: list[ChainVerdict]
    public_keys: dict[str, str] = {}
    cursor: str = ""


AuditQuestion = AuditRead | AuditProofRequest | AuditVerify
AuditAnswer = AuditRecordsReply | AuditProof | AuditVerdict
