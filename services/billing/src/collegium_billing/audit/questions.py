"""Answers about the audit trail: its records, what proves them, and whether they hold.

The gateway has checked who asks and for which tenant; here every value is checked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from collegium_contracts import audit as a
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.audit import AuditRecord
from collegium_contracts.audit_requests import (
    AuditProof,
    AuditProofRequest,
    AuditRead,
    AuditRecordsReply,
    AuditVerdict,
    AuditVerify,
)
from collegium_contracts.messages import Message
from collegium_runtime.audit_keys import AuditKeys

from collegium_billing.audit.store import AuditStore
from collegium_billing.audit.verify import Verifier
from collegium_billing.errors import QuestionError
from collegium_billing.handlers import answering
from collegium_billing.identity.keys import is_tenant_id

READ_MAX: Final = 500
ANCHORS_MAX: Final = 500
REPLY_BYTES_MAX: Final = 800_000  # of the broker's megabyte
_NUMBER_MAX: Final = 2**62


class AuditQuestions:
    """Answers what gateways ask about the audit trail."""

    def __init__(self, store: AuditStore, keys: AuditKeys) -> None:
        self._store = store
        self._keys = keys
        self._verifier = Verifier(store, keys)

    def handlers(self) -> Mapping[str, Callable[[Any, str], Awaitable[Message]]]:
        """Returns the answering function of each subject."""
        return {
            s.SVC_BILLING_AUDIT_READ: answering(AuditRead, self.read),
            s.SVC_BILLING_AUDIT_PROOF: answering(AuditProofRequest, self.proof),
            s.SVC_BILLING_AUDIT_VERIFY: answering(AuditVerify, self.verify),
        }

    async def read(self, asked: AuditRead) -> AuditRecordsReply:
        """Answers a page of records: at most READ_MAX of them, and what fits one reply."""
        _check_tenant(asked.tenant)
        if not 1 <= asked.limit <= READ_MAX:
            raise QuestionError("invalid_value", f"limit must be between 1 and {READ_MAX}", "limit")
        for name in ("cursor", "through", "from_ms", "to_ms"):
            if not 0 <= getattr(asked, name) < _NUMBER_MAX:
                raise QuestionError("invalid_value", f"{name} is out of range", name)
        found = await self._store.read(asked, asked.limit + 1)
        records = _fitting(found[: asked.limit])
        if len(records) == len(found):
            return AuditRecordsReply(records=records)
        last = records[-1]
        return AuditRecordsReply(records=records, next_cursor=last.seq if asked.tenant is not None else last.position)

    async def proof(self, asked: AuditProofRequest) -> AuditProof:
        """Answers what proves a chain; of its anchors in that part, the newest ANCHORS_MAX."""
        _check_tenant(asked.tenant)
        # Before the records, so that what is sealed meanwhile is not missed at the end.
        head = await self._store.head(asked.tenant)
        first, last = await self._store.span(asked.tenant, asked.from_ms, asked.to_ms)
        anchors = await self._store.anchors(asked.tenant)
        if head is not None and first:
            # On to the next signed place, so that every record that was asked for is covered by a signature.
            last = min([one.seq for one in (*anchors, head) if one.seq >= last], default=head.seq)
        return AuditProof(
            tenant=asked.tenant,
            head=head,
            checkpoint=await self._store.checkpoint(asked.tenant),
            anchors=[one for one in anchors if first <= one.seq <= last][-ANCHORS_MAX:],
            public_keys=self._keys.by_id,
            first=first,
            last=last,
        )

    async def verify(self, asked: AuditVerify) -> AuditVerdict:
        """Walks chains."""
        _check_tenant(asked.tenant)
        verdict = await self._verifier.verify(asked)
        return msgspec.structs.replace(verdict, public_keys=self._keys.by_id)


def _fitting(records: list[AuditRecord]) -> list[AuditRecord]:
    """Returns as many of the first records as fit one reply; at least one."""
    size = 0
    for number, record in enumerate(records):
        size += len(codec.encode(record))
        if size > REPLY_BYTES_MAX and number:
            return records[:number]
    return records


def _check_tenant(tenant: str | None) -> None:
    if tenant is not None and tenant != a.PLATFORM and not is_tenant_id(tenant):
        raise QuestionError("invalid_value", "a tenant's id has 1 to 40 characters of a-z, 0-9 and -", "tenant")
