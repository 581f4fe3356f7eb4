"""The chain of a tenant's audit records, and how it is checked. Pure; the whole of what a verifier must know.

The hash of a record is the SHA-256 of its canonical bytes: the JSON object of all its fields but ``hash`` (and
``position``), keys sorted, no white space, UTF-8, only texts, whole numbers and an object of texts in it (RFC 8785 for
such values). ``prev_hash`` is the hash of the record before it, and of the first one :func:`genesis`. A signature is
made over the canonical bytes of what is signed, ``signature`` left out. One rule: whoever can hash and parse JSON can
check a chain without this program.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from collegium_contracts.audit import AuditEntry, AuditRecord, Signed

_GENESIS: Final = "collegium audit chain v1\n"
_UNHASHED: Final = ("hash", "position")

ProblemKind = Literal[
    "altered", "missing", "repeated", "unlinked", "head", "anchor", "checkpoint", "signature", "digest"
]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Where a chain does not hold: the first record concerned, and what is wrong with it."""

    tenant: str
    seq: int
    kind: ProblemKind
    detail: str


def canonical(fields: Mapping[str, Any]) -> bytes:
    """Returns the canonical bytes of an object."""
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )


def genesis(tenant: str) -> str:
    """Returns what stands for the record before a tenant's first one, so that chains cannot be exchanged."""
    return hashlib.sha256(f"{_GENESIS}{tenant}".encode()).hexdigest()


def hash_of(record: AuditRecord) -> str:
    """Returns the hash that a record must have."""
    fields = {name: getattr(record, name) for name in AuditRecord.__struct_fields__ if name not in _UNHASHED}
    return hashlib.sha256(canonical(fields)).hexdigest()


def link(
    entry: AuditEntry, *, seq: int, prev_hash: str, sealed_at_ms: int, stream: str, stream_sequence: int
) -> AuditRecord:
    """Returns an entry as the next record of its tenant's chain; the entry must be bounded."""
    record = AuditRecord(
        tenant=entry.tenant,
        seq=seq,
        id=entry.id,
        at_ms=entry.at_ms,
        sealed_at_ms=sealed_at_ms,
        service=entry.service,
        actor=entry.actor,
        action=entry.action,
        object=entry.object,
        outcome=entry.outcome,
        reason=entry.reason,
        details=entry.details,
        trace=entry.trace,
        count=entry.count,
        stream=stream,
        stream_sequence=stream_sequence,
        prev_hash=prev_hash,
        hash="",
    )
    return msgspec.structs.replace(record, hash=hash_of(record))


def signed_bytes(signed: Signed) -> bytes:
    """Returns what a signature is made over."""
    fields = {name: getattr(signed, name) for name in Signed.__struct_fields__ if name != "signature"}
    return canonical(fields)


def heads_digest(heads: Iterable[tuple[str, int, str]]) -> str:
    """Returns the digest of the ends of several chains: (tenant, seq, hash) each, in any order."""
    return hashlib.sha256(canonical({tenant: [seq, hash_] for tenant, seq, hash_ in heads})).hexdigest()


class ChainCheck:
    """Checks a chain record by record in the order of ``seq``, from its begin or from a place that is known to hold."""

    def __init__(self, tenant: str, seq: int = 0, head: str | None = None) -> None:
        self.tenant = tenant
        self.seq = seq
        self.head = head if head is not None else genesis(tenant)

    def take(self, record: AuditRecord) -> Problem | None:
        """Takes the next record; returns what is wrong with it, after which no more may be taken."""
        wanted = self.seq + 1
        if record.tenant != self.tenant:
            return self._problem(wanted, "altered", f"a record of the tenant {record.tenant!r} stands in this chain")
        if record.seq != wanted:
            if record.seq < wanted:
                return self._problem(record.seq, "repeated", f"record {record.seq} stands where {wanted} belongs")
            return self._problem(wanted, "missing", f"records {wanted} to {record.seq - 1} are missing")
        if (computed := hash_of(record)) != record.hash:
            return self._problem(wanted, "altered", f"its fields hash to {computed}, it says {record.hash}")
        if record.prev_hash != self.head:
            return self._problem(wanted, "unlinked", f"it follows {record.prev_hash}, the record before is {self.head}")
        self.seq, self.head = wanted, record.hash
        return None

    def end(self, signed: Signed) -> Problem | None:
        """Compares the chain's end with a signed place that must be it."""
        if signed.seq > self.seq:
            return self._problem(
                self.seq + 1, "missing", f"records {self.seq + 1} to {signed.seq} are missing at the end"
            )
        if signed.seq < self.seq:
            return self._problem(signed.seq + 1, "head", f"what follows {signed.seq} was not sealed by the sealer")
        return None if signed.hash == self.head else self._differs(signed)

    def at(self, signed: Signed) -> Problem | None:
        """Compares the place reached with a signed one of the same ``seq``."""
        return None if (signed.seq, signed.hash) == (self.seq, self.head) else self._differs(signed)

    def _differs(self, signed: Signed) -> Problem:
        return self._problem(
            signed.seq, signed.kind, f"the {signed.kind} says {signed.hash}, the record is {self.head}"
        )

    def _problem(self, seq: int, kind: ProblemKind, detail: str) -> Problem:
        return Problem(tenant=self.tenant, seq=seq, kind=kind, detail=detail)
