"""How entries become links of chains. Pure.

A batch is what stood in AUDIT one after the other; each entry is appended to its tenant's chain in that order. What the
sealer notices itself (a gap in the stream, bytes that are no entry, a chain's end that nobody signed) becomes an entry
of its own. One rule: the same batch on the same heads gives the same records, but for the time of sealing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec
from collegium_contracts import audit as a
from collegium_contracts.audit import AuditEntry, AuditRecord, Signed
from collegium_contracts.audit_chain import genesis, link

ACTOR = "service:billing"


class Arrived(NamedTuple):
    """An entry and its sequence in AUDIT; 0 for one that the sealer made itself."""

    entry: AuditEntry
    sequence: int


class Head(NamedTuple):
    """The end of a chain: its last record's number, hash and time of sealing."""

    seq: int
    hash: str
    sealed_at_ms: int = 0


class Links(NamedTuple):
    """What a batch adds: records in order, and the new ends of the chains concerned."""

    records: list[AuditRecord]
    heads: dict[str, Head]


def own_entry(
    entry_id: str,
    now_ms: int,
    action: str,
    *,
    tenant: str = a.PLATFORM,
    outcome: a.Outcome = "done",
    reason: str = "",
    details: Mapping[str, str] | None = None,
) -> AuditEntry:
    """Returns an entry that the sealer makes of itself."""
    return a.bounded(
        AuditEntry(
            id=entry_id,
            tenant=tenant,
            service="billing",
            actor=ACTOR,
            action=action,
            outcome=outcome,
            at_ms=now_ms,
            reason=reason,
            details=dict(details or {}),
        )
    )


def extend(
    heads: Mapping[str, Head],
    arrived: Sequence[Arrived],
    standing: Collection[tuple[str, str]],
    *,
    stream: str,
    now_ms: int,
) -> Links:
    """Appends entries to their chains; those whose (tenant, id) stands already, or came twice, are left out.

    A record is never sealed earlier than the one before it, whatever the clock says.
    """
    known = set(standing)
    ends = dict(heads)
    moved: dict[str, Head] = {}
    records: list[AuditRecord] = []
    for one in arrived:
        entry = a.bounded(one.entry)
        key = (entry.tenant, entry.id)
        if key in known:
            continue
        known.add(key)
        head = ends.get(entry.tenant) or Head(0, genesis(entry.tenant))
        record = link(
            entry,
            seq=head.seq + 1,
            prev_hash=head.hash,
            sealed_at_ms=max(now_ms, head.sealed_at_ms),
            stream=stream,
            stream_sequence=one.sequence,
        )
        records.append(record)
        ends[entry.tenant] = moved[entry.tenant] = Head(record.seq, record.hash, record.sealed_at_ms)
    return Links(records, moved)


def gaps(expected: int, sequences: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the sequences that are missing before and between those that came, as (first, last) pairs."""
    found: list[tuple[int, int]] = []
    for sequence in sequences:
        if sequence > expected:
            found.append((expected, sequence - 1))
        expected = sequence + 1
    return found


def place(kind: str, tenant: str, head: Head, *, at_ms: int, round_: int, sign: Callable[[Signed], Signed]) -> Signed:
    """Returns a signed place of a chain."""
    unsigned = msgspec.convert(
        {
            "kind": kind,
            "tenant": tenant,
            "seq": head.seq,
            "hash": head.hash,
            "at_ms": at_ms,
            "round": round_,
            "key_id": "",
            "signature": "",
        },
        Signed,
    )
    return sign(unsigned)
