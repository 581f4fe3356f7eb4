"""Checking an exported audit chain by itself: no gateway, no database, no network.

One rule: keys that the file itself brings prove only that it was not changed since somebody held them; whether they are
the installation's is for who checks to know, so it is said which kind was used.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from collegium_contracts.audit import AuditRecord, Signed
from collegium_contracts.audit_chain import ChainCheck, Problem, genesis
from collegium_contracts.audit_export import ChainLine, EndLine, MalformedExportError, read_lines
from collegium_runtime.audit_keys import AuditKeys


class FileVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of an export.

    Records from ``first`` to ``last`` are linked; a signature of one of ``keys`` covers those up to ``covered``.
    ``begins`` says what the first record follows: ``genesis``, ``checkpoint``, or ``middle`` for a part of a chain.
    """

    tenant: str
    records: int
    first: int
    last: int
    covered: int
    begins: str
    keys: list[str]
    trusted: bool
    problem: Problem | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong with it and all of it is covered."""
        return self.problem is None and self.covered == self.last


class _Check:
    """An export being read."""

    def __init__(self, chain: ChainLine, trusted: Iterable[str]) -> None:
        given = list(trusted)
        self.chain = chain
        self.trusted = bool(given)
        self.keys = AuditKeys(given or chain.public_keys.values())
        self.links = ChainCheck(chain.tenant, chain.after_seq, chain.after_hash)
        self.hashes: dict[int, str] = {}
        self.records = 0
        self.covered = chain.after_seq
        self.used: set[str] = set()
        self.is_ended = False

    def begins(self) -> tuple[str, Problem | None]:
        """Says what the first record follows, and what is wrong with that."""
        chain, checkpoint = self.chain, self.chain.checkpoint
        if chain.after_seq == 0:
            if chain.after_hash == genesis(chain.tenant):
                return "genesis", None
            return "genesis", self.problem(0, "unlinked", "its begin is not that of this tenant's chain")
        if checkpoint is None or checkpoint.seq != chain.after_seq:
            return "middle", None
        if checkpoint.tenant != chain.tenant or checkpoint.hash != chain.after_hash:
            return "checkpoint", self.problem(checkpoint.seq, "checkpoint", "the checkpoint is of another place")
        fault = self.keys.fault(checkpoint)
        return "checkpoint", self.problem(checkpoint.seq, "signature", fault) if fault else None

    def take(self, line: AuditRecord | Signed | EndLine) -> Problem | None:
        """Takes one line."""
        match line:
            case AuditRecord():
                self.records += 1
                problem = self.links.take(line)
                self.hashes[self.links.seq] = self.links.head
                return problem
            case EndLine():
                self.is_ended = True
                if line.records == self.records:
                    return None
                detail = f"the file holds {self.records} records of {line.records}"
                return self.problem(self.links.seq + 1, "missing", detail)
            case _:
                return self._place(line)

    def _place(self, place: Signed) -> Problem | None:
        if fault := self.keys.fault(place):
            return self.problem(place.seq, "signature", fault)
        if place.tenant != self.chain.tenant or self.hashes.get(place.seq) != place.hash:
            return self.problem(place.seq, place.kind, f"the {place.kind} at {place.seq} does not fit the records")
        self.covered = max(self.covered, place.seq)
        self.used.add(place.key_id)
        return None

    def problem(self, seq: int, kind: str, detail: str) -> Problem:
        """Makes a problem of this chain."""
        return msgspec.convert({"tenant": self.chain.tenant, "seq": seq, "kind": kind, "detail": detail}, Problem)


def verify_lines(text: Iterable[str], trusted: Iterable[str] = ()) -> FileVerdict:
    """Checks an export's lines; ``trusted`` are public keys in hex, none: those of the file.

    Raises MalformedExportError for what is no export.
    """
    lines = read_lines(text)
    chain = next(lines, None)
    if not isinstance(chain, ChainLine):
        raise MalformedExportError("the export does not begin with its chain")
    check = _Check(chain, trusted)
    begins, problem = check.begins()
    for line in lines:
        if problem is not None:
            break
        if isinstance(line, ChainLine) or check.is_ended:
            raise MalformedExportError("something follows the end of the export")
        problem = check.take(line)
    if problem is None and not check.is_ended:
        problem = check.problem(check.links.seq + 1, "missing", "the file breaks off before its end")
    return FileVerdict(
        tenant=chain.tenant,
        records=check.records,
        first=chain.after_seq + 1 if check.records else 0,
        last=check.links.seq,
        covered=check.covered,
        begins=begins,
        keys=sorted(check.used),
        trusted=check.trusted,
        problem=problem,
    )
