"""The audit trail over HTTP: listed, checked, exported.

Operators (the scope ``admin`` or ``audit`` of a key of the operator's tenant) reach every chain and the platform's own;
those scopes of any other key reach that key's tenant alone. One rule: what lies outside the asker's reach is answered
as if it did not exist.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec
from collegium_bus.ask import ask
from collegium_bus.errors import BusError, RequestRefusedError
from collegium_contracts import subjects as s
from collegium_contracts.audit import OPERATOR_TENANT, PLATFORM, AuditRecord
from collegium_contracts.audit_chain import genesis
from collegium_contracts.audit_export import ChainLine, EndLine, Format, Writer
from collegium_contracts.audit_requests import (
    AuditProof,
    AuditProofRequest,
    AuditRead,
    AuditRecordsReply,
    AuditVerdict,
    AuditVerify,
)
from collegium_contracts.ids import TENANT_ID
from collegium_contracts.messages import Message
from collegium_runtime.audit import Audit
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from collegium_gateway.errors import ApiError
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal, no_tenant_id
from collegium_gateway.tasks.views import rfc3339

R = TypeVar("R", bound=Message)

PAGE: Final = 200
MAX_LIMIT: Final = 500
SCOPES: Final = frozenset({"admin", "audit"})
_MEDIA: Final = {"jsonl": "application/jsonl", "csv": "text/csv; charset=utf-8"}


def reach(principal: Principal, asked: str | None) -> str | None:
    """Returns whose chain may be read: none means all of them.

    Raises ApiError ``insufficient_scope`` for a key that may read none.
    """
    if not SCOPES & principal.scopes:
        raise ApiError("insufficient_scope", f"key {principal.key_id} lacks the scope 'audit'; use a key that has it")
    if asked is not None and asked != PLATFORM and TENANT_ID.match(asked) is None:
        raise no_tenant_id("tenant")
    if principal.tenant == OPERATOR_TENANT:
        return asked
    if asked not in (None, principal.tenant):
        raise ApiError("not_found", f"there is no audit trail of {asked!r}", param="tenant")
    return principal.tenant


class AuditDoor:
    """The audit trail over HTTP."""

    def __init__(self, platform: Platform, directory: Directory, audit: Audit) -> None:
        self._platform = platform
        self._directory = directory
        self._audit = audit

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/admin/audit", self._list, methods=["GET"]),
            Route("/v1/admin/audit/verify", self._verify, methods=["GET"]),
            Route("/v1/admin/audit/export", self._export, methods=["GET"]),
        ]

    def _asked(self, request: Request) -> tuple[Principal, str | None]:
        principal = self._directory.keys.authenticate(request.headers.get("authorization"))
        return principal, reach(principal, request.query_params.get("tenant") or None)

    async def _ask(self, subject: str, question: Message, expected: type[R]) -> R:
        try:
            return await ask(self._platform.connection, subject, question, expected)
        except RequestRefusedError as error:
            raise ApiError(error.code, error.message, param=error.param) from error
        except BusError as error:
            message = "billing does not answer; try again later"
            raise ApiError("billing_unavailable", message, retry_after_seconds=2) from error

    async def _list(self, request: Request) -> Response:
        _, tenant = self._asked(request)
        query = request.query_params
        question = AuditRead(
            tenant=tenant,
            cursor=_number(query.get("cursor") or "0", "cursor", 0, 2**62 - 1),
            from_ms=query_time(query.get("from"), "from"),
            to_ms=query_time(query.get("to"), "to"),
            action=query.get("action", ""),
            actor=query.get("actor", ""),
            outcome=query.get("outcome", ""),
            limit=_number(query.get("limit") or "50", "limit", 1, MAX_LIMIT),
        )
        reply = await self._ask(s.SVC_BILLING_AUDIT_READ, question, AuditRecordsReply)
        cursor = str(reply.next_cursor) if reply.next_cursor else None
        return json_reply({"data": [_view(record) for record in reply.records], "next_cursor": cursor})

    async def _verify(self, request: Request) -> Response:
        _, tenant = self._asked(request)
        question = AuditVerify(tenant=tenant, cursor=request.query_params.get("cursor", ""))
        reply = await self._ask(s.SVC_BILLING_AUDIT_VERIFY, question, AuditVerdict)
        holds = all(chain.problem is None for chain in reply.chains)
        data = [msgspec.to_builtins(chain) for chain in reply.chains]
        found = {"data": data, "holds": holds, "next_cursor": reply.cursor or None, "public_keys": reply.public_keys}
        return json_reply(found)

    async def _export(self, request: Request) -> Response:
        principal, tenant = self._asked(request)
        form = request.query_params.get("format", "jsonl")
        if form not in ("jsonl", "csv"):
            raise ApiError("invalid_value", "format must be jsonl or csv", param="format")
        if tenant is None:
            raise ApiError("invalid_value", f"say whose chain: a tenant, or {PLATFORM}", param="tenant")
        query = request.query_params
        question = AuditProofRequest(
            tenant=tenant, from_ms=query_time(query.get("from"), "from"), to_ms=query_time(query.get("to"), "to")
        )
        proof = await self._ask(s.SVC_BILLING_AUDIT_PROOF, question, AuditProof)
        first = await self._page(tenant, max(proof.first - 1, 0), proof.last) if proof.first else []
        details = {"format": form, "first": str(proof.first), "last": str(proof.last)}
        # Who looks for a chain that there is not does not begin it.
        begun = proof.first or tenant == PLATFORM or self._directory.keys.record(tenant) is not None
        for chain in {tenant, principal.tenant} if begun else {principal.tenant}:
            entry = self._audit.entry(chain, principal.key_id, "audit.export", object=tenant, details=details)
            self._audit.record(entry)
        return StreamingResponse(
            self._lines(proof, first, form),
            media_type=_MEDIA[form],
            headers={"content-disposition": f'attachment; filename="audit-{tenant}.{form}"'},
        )

    async def _page(self, tenant: str, after: int, through: int) -> list[AuditRecord]:
        question = AuditRead(tenant=tenant, ascending=True, cursor=after, through=through, limit=PAGE)
        return (await self._ask(s.SVC_BILLING_AUDIT_READ, question, AuditRecordsReply)).records

    async def _lines(self, proof: AuditProof, page: list[AuditRecord], form: Format) -> AsyncGenerator[str]:
        """Yields the export; what breaks off in between lacks its last line."""
        writer = Writer(form)
        tenant = proof.tenant
        after = page[0].seq - 1 if page else 0
        yield writer.head() + writer.line(
            ChainLine(
                tenant=tenant,
                after_seq=after,
                after_hash=page[0].prev_hash if page else genesis(tenant),
                checkpoint=proof.checkpoint,
                public_keys=proof.public_keys,
            )
        )
        records = 0
        while page:
            yield "".join(map(writer.line, page))
            records += len(page)
            # The first page may hold all: an empty cursor would mean the begin.
            page = await self._page(tenant, page[-1].seq, proof.last) if page[-1].seq < proof.last else []
        places = [one for one in proof.anchors if after < one.seq <= proof.last]
        if proof.head is not None and proof.head.seq == proof.last:
            places.append(proof.head)
        yield "".join(map(writer.line, [*places, EndLine(records=records)]))


def _view(record: AuditRecord) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(record)
    return {**content, "at": rfc3339(record.at_ms), "sealed_at": rfc3339(record.sealed_at_ms)}


def _number(text: str, name: str, least: int, most: int) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most:
        return int(text)
    raise ApiError("invalid_value", f"{name} must be a whole number from {least} to {most}", param=name)


def query_time(text: str | None, name: str) -> int:
    """Reads a time of the query in Unix ms; 0 without one."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ApiError("invalid_value", f"{name} must be a time in RFC 3339 or a date", param=name) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp() * 1000))
