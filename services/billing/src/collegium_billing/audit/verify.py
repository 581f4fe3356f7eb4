"""Walking chains: every record hashed again, every link, end, anchor and checkpoint compared.

Reads what stands while the sealer goes on; works for a few seconds at a time and says where it would go on. One rule:
it tells of the first thing that is wrong with a chain, and changes nothing.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from collegium_contracts import audit as a
from collegium_contracts.audit import AuditRecord, Signed
from collegium_contracts.audit_chain import ChainCheck, Problem, heads_digest
from collegium_contracts.audit_requests import AuditVerdict, AuditVerify, ChainVerdict
from collegium_runtime.audit_keys import AuditKeys

from collegium_billing.audit.store import AuditStore
from collegium_billing.errors import QuestionError

PAGE: Final = 500
CHAINS_PAGE: Final = 200
# Well within the time that an asker waits.
BUDGET_SECONDS: Final = 2.5
# Records that the sealer or a recorder left because something was not as it should be.
FINDINGS: Final = frozenset({a.GAP, a.STREAM_REPLACED, a.UNREADABLE, a.HEAD_MISMATCH, a.LOST})


class _Cursor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Chains up to ``after`` were walked; of ``tenant``, everything up to ``seq``, whose hash is ``hash``."""

    after: str = ""
    tenant: str = ""
    seq: int = 0
    hash: str = ""
    records: int = 0
    anchors: int = 0
    findings: int = 0


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Cursor).decode


class _Walk:
    """One chain being walked."""

    def __init__(self, tenant: str, check: ChainCheck, anchors: list[Signed], keys: AuditKeys) -> None:
        self.tenant = tenant
        self.check = check
        self.anchors = [one for one in anchors if one.seq > check.seq]
        self.keys = keys
        self.records = self.found = self.findings = 0
        self.is_done = False
        self.problem: Problem | None = None

    def take(self, records: list[AuditRecord]) -> bool:
        """Takes records; false where something is wrong with one."""
        for record in records:
            self.problem = self.check.take(record) or self._anchored()
            if self.problem is not None:
                return False
            self.records += 1
            self.findings += record.action in FINDINGS
        return True

    def _anchored(self) -> Problem | None:
        while self.anchors and self.anchors[0].seq <= self.check.seq:
            anchor = self.anchors.pop(0)
            if fault := self.keys.fault(anchor):
                return Problem(tenant=self.tenant, seq=anchor.seq, kind="signature", detail=fault)
            if problem := self.check.at(anchor):
                return problem
            self.found += 1
        return None

    def end(self, head: Signed | None) -> None:
        """Compares the end reached with what was signed."""
        self.is_done = True
        if head is None:
            detail = "the chain has no signed end"
            self.problem = Problem(tenant=self.tenant, seq=self.check.seq, kind="head", detail=detail)
        elif fault := self.keys.fault(head):
            self.problem = Problem(tenant=self.tenant, seq=head.seq, kind="signature", detail=fault)
        else:
            self.problem = self.check.end(head)
        if self.problem is None and self.anchors:
            self.problem = self.check.end(self.anchors[-1])

    def verdict(self) -> ChainVerdict:
        """What was found."""
        return ChainVerdict(
            tenant=self.tenant,
            records=self.records,
            seq=self.check.seq,
            hash=self.check.head,
            anchors=self.found,
            findings=self.findings,
            problem=self.problem,
        )


class Verifier:
    """Verifies chains as they stand in the database."""

    def __init__(self, store: AuditStore, keys: AuditKeys) -> None:
        self._store = store
        self._keys = keys

    async def verify(self, asked: AuditVerify, *, budget_seconds: float = BUDGET_SECONDS) -> AuditVerdict:
        """Walks chains for about ``budget_seconds``."""
        at = _read(asked.cursor)
        deadline = asyncio.get_running_loop().time() + budget_seconds
        verdicts: list[ChainVerdict] = []
        while True:
            for tenant in await self._chains(asked, at.after):
                walk = await self._walk(tenant, at if at.tenant == tenant else _Cursor(), deadline)
                if not walk.is_done:
                    return AuditVerdict(chains=verdicts, cursor=_written(at.after, walk))
                verdicts.append(walk.verdict())
                at = _Cursor(after=tenant)
                if asyncio.get_running_loop().time() > deadline:
                    return AuditVerdict(chains=verdicts, cursor=_encode(at).decode())
            if asked.tenant is not None or not await self._store.chains(at.after, 1):
                break
        if asked.tenant is None and (problem := await self._digest()):
            verdicts.append(ChainVerdict(tenant=a.PLATFORM, records=0, seq=problem.seq, hash="", problem=problem))
        return AuditVerdict(chains=verdicts)

    async def _chains(self, asked: AuditVerify, after: str) -> list[str]:
        if asked.tenant is None:
            return await self._store.chains(after, CHAINS_PAGE)
        return [] if after == asked.tenant else [asked.tenant]

    async def _walk(self, tenant: str, at: _Cursor, deadline: float) -> _Walk:
        checkpoint = await self._store.checkpoint(tenant)
        anchors = await self._store.anchors(tenant)
        if at.seq:
            check = ChainCheck(tenant, at.seq, at.hash)
        elif checkpoint is not None:
            check = ChainCheck(tenant, checkpoint.seq, checkpoint.hash)
        else:
            check = ChainCheck(tenant)
        walk = _Walk(tenant, check, anchors, self._keys)
        walk.records, walk.found, walk.findings = at.records, at.anchors, at.findings
        if checkpoint is not None and (fault := self._keys.fault(checkpoint)):
            walk.problem = Problem(tenant=tenant, seq=checkpoint.seq, kind="signature", detail=fault)
            walk.is_done = True
            return walk
        while not walk.is_done:
            records = await self._store.chain(tenant, check.seq, PAGE)
            if not records:
                await self._finish(walk)
            elif not walk.take(records):
                walk.is_done = True
                now = await self._store.checkpoint(tenant)
                if now is not None and now.seq > max(check.seq, checkpoint.seq if checkpoint else 0):
                    # What is missing was pruned while it was walked.
                    return await self._walk(tenant, _Cursor(), deadline)
            elif asyncio.get_running_loop().time() > deadline:
                break
        return walk

    async def _finish(self, walk: _Walk) -> None:
        """Ends a walk, unless the sealer has gone on meanwhile."""
        head = await self._store.head(walk.tenant)
        if head is not None and head.seq > walk.check.seq:
            more = await self._store.chain(walk.tenant, walk.check.seq, PAGE)
            if more and walk.take(more):
                return
            if walk.problem is not None:
                walk.is_done = True
                return
        walk.end(head)

    async def _digest(self) -> Problem | None:
        """Compares the newest digest over all chains' ends with their anchors."""
        record = await self._store.last_digest()
        if record is None:
            return None
        number, digest = int(record.details.get("round", "0")), record.details.get("digest", "")
        anchors = await self._store.last_anchors(number)
        anchors.pop(a.PLATFORM, None)
        if heads_digest((one.tenant, one.seq, one.hash) for one in anchors.values()) == digest:
            return None
        detail = (
            f"round {number} signed the ends of {record.details.get('chains')} chains; the anchors of {len(anchors)}"
            " that stand give another digest"
        )
        return Problem(tenant=a.PLATFORM, seq=record.seq, kind="digest", detail=detail)


def _read(cursor: str) -> _Cursor:
    if not cursor:
        return _Cursor()
    try:
        return _decode(cursor.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise QuestionError("invalid_value", "this cursor was not given by a check", "cursor") from None


def _written(after: str, walk: _Walk) -> str:
    check = walk.check
    at = _Cursor(after, walk.tenant, check.seq, check.head, walk.records, walk.found, walk.findings)
    return _encode(at).decode()
