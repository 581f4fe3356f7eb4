"""The request log, invoices and stored bytes over HTTP; and usage as CSV.

One rule: a tenant's key sees its own tenant; another's name in the query is heard from an operator only, and refused
from everybody else.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import msgspec
from collegium_contracts import reports as r
from collegium_contracts import subjects as s
from collegium_contracts.ids import TASK_ID, TENANT_ID
from collegium_contracts.messages import Message
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from collegium_gateway.admission.requests import parse
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal, no_tenant_id
from collegium_gateway.operating import csvtext
from collegium_gateway.tasks.views import rfc3339

R = TypeVar("R", bound=Message)
Ask = Callable[[str, Message, type[Any]], Awaitable[Any]]
TimeOf = Callable[[Request, str, timedelta], int]
Authenticate = Callable[[Request, str], Principal]

PAGE_ROWS = 100
PAGE_ROWS_MAX = 1_000
DAYS = 30
MAX_BODY_BYTES = 1024
_NUMBER = re.compile(r"[0-9]{1,18}")
FORMATS = ("json", "csv")
COLUMNS = tuple(
    {"created_at_ms": "created_at", "settled_at_ms": "settled_at"}.get(name, name)
    for name in r.RequestRow.__struct_fields__
)


class InvoiceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/invoices``; the month is written like ``2026-01``."""

    tenant: str
    month: str


_decode_invoice = msgspec.json.Decoder(InvoiceBody)


class ReportDoor:
    """Reports over HTTP; ``ask``, ``time_of`` and ``authenticate`` are the admin door's."""

    def __init__(self, ask: Ask, time_of: TimeOf, authenticate: Authenticate, directory: Directory) -> None:
        self._ask = ask
        self._time_of = time_of
        self._authenticate = authenticate
        self._directory = directory

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/requests", self._requests, methods=["GET"]),
            Route("/v1/invoices", self._invoices, methods=["GET"]),
            Route("/v1/invoices/{id}", self._invoice, methods=["GET"]),
            Route("/v1/admin/invoices", self._make_invoice, methods=["POST"]),
            Route("/v1/admin/tenants/{id}/storage", self._stored, methods=["GET"]),
        ]

    async def _requests(self, request: Request) -> Response:
        principal = self._authenticate(request, "usage")
        query = request.query_params
        before_ms, before_id = _cursor_of(query.get("cursor"))
        as_csv = format_of(query.get("format"), FORMATS) == "csv"
        asked = r.RequestsRequest(
            tenant=tenant_of(principal, query.get("tenant")) or principal.tenant,
            from_ms=self._time_of(request, "from", -timedelta(days=DAYS)),
            to_ms=self._time_of(request, "to", timedelta(seconds=1)),
            state=query.get("state", ""),
            model=query.get("model", ""),
            key_id=query.get("key", ""),
            before_ms=before_ms,
            before_id=before_id,
            limit=PAGE_ROWS_MAX if as_csv else _limit_of(query.get("limit")),
        )
        page = await self._page(asked)
        if not as_csv:
            return json_reply({"data": [_shown(row) for row in page.rows], "next_cursor": _cursor(page)})
        return csv_reply(self._lines(asked, page), "requests.csv")

    async def _page(self, asked: r.RequestsRequest) -> r.RequestsReply:
        return await self._ask(s.SVC_BILLING_REQUESTS, asked, r.RequestsReply)

    async def _lines(self, asked: r.RequestsRequest, page: r.RequestsReply) -> AsyncIterator[bytes]:
        """Yields all pages as they are read; one is held at a time."""
        yield csvtext.header(COLUMNS)
        while True:
            yield csvtext.lines(COLUMNS, map(_shown, page.rows))
            if not page.has_more:
                return
            last = page.rows[-1]
            page = await self._page(
                msgspec.structs.replace(asked, before_ms=last.settled_at_ms, before_id=last.task_id)
            )

    async def _invoices(self, request: Request) -> Response:
        principal = self._authenticate(request, "usage")
        asked = r.InvoiceList(tenant=tenant_of(principal, request.query_params.get("tenant")))
        reply: r.InvoicesReply = await self._ask(s.SVC_BILLING_INVOICE_LIST, asked, r.InvoicesReply)
        return json_reply({"data": [_invoice(row) for row in reply.invoices]})

    async def _invoice(self, request: Request) -> Response:
        principal = self._authenticate(request, "usage")
        as_html = format_of(request.query_params.get("format"), ("json", "html")) == "html"
        asked = r.InvoiceList(tenant=tenant_of(principal, None), id=request.path_params["id"], as_html=as_html)
        reply: r.InvoicesReply = await self._ask(s.SVC_BILLING_INVOICE_LIST, asked, r.InvoicesReply)
        if not as_html:
            return Response(reply.document, media_type="application/json")
        # The page needs nothing but its own style, and may do nothing else.
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        return Response(reply.document, media_type="text/html", headers={"content-security-policy": policy})

    async def _make_invoice(self, request: Request) -> Response:
        self._authenticate(request, "admin")
        body = parse(_decode_invoice, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        asked = r.InvoiceMake(tenant=body.tenant, month=body.month)
        reply: r.InvoicesReply = await self._ask(s.SVC_BILLING_INVOICE_MAKE, asked, r.InvoicesReply)
        return Response(reply.document, status_code=201, media_type="application/json")

    async def _stored(self, request: Request) -> Response:
        principal = self._authenticate(request, "admin")
        tenant = request.path_params["id"]
        if TENANT_ID.fullmatch(tenant) is None:
            raise no_tenant_id("id")
        principal.within(tenant)
        book, record = self._directory.storage, self._directory.keys.record(tenant)
        assert book is not None, "a running gateway follows what is stored"
        parts = book.parts(tenant)
        shown = {name: {"items": part.items, "bytes": part.bytes} for name, part in sorted(parts.items())}
        tasks = parts["gateway"].items if "gateway" in parts else 0
        limit = book.limit_bytes(record.tier) if record is not None else None
        answer = {"tenant": tenant, "tasks": tasks, "stored_bytes": book.used_bytes(tenant), "limit_bytes": limit}
        return json_reply({**answer, "parts": shown})


def tenant_of(principal: Principal, asked: str | None) -> str | None:
    """Returns whose figures may be shown: an operator's choice (none: all tenants'), or the key's own tenant."""
    if principal.reaches_all:
        return principal.within(asked or None)
    if asked and asked != principal.tenant:
        raise ApiError("insufficient_scope", f"key {principal.key_id} may not see other tenants", param="tenant")
    return principal.tenant


def format_of(text: str | None, formats: tuple[str, ...]) -> str:
    """Reads the query's ``format``; the first is the default."""
    if not text:
        return formats[0]
    if text not in formats:
        raise ApiError("invalid_value", f"format must be one of {', '.join(formats)}", param="format")
    return text


def csv_reply(content: AsyncIterator[bytes] | bytes, name: str) -> Response:
    """Returns a CSV file, streamed where its content is."""
    headers = {"content-disposition": f'attachment; filename="{name}"', "x-content-type-options": "nosniff"}
    if isinstance(content, bytes):
        return Response(content, media_type=csvtext.MEDIA_TYPE, headers=headers)
    return StreamingResponse(content, media_type=csvtext.MEDIA_TYPE, headers=headers)


def _shown(row: r.RequestRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in r.RequestRow.__struct_fields__}
    created_ms = values.pop("created_at_ms")
    values["created_at"] = rfc3339(created_ms) if created_ms is not None else None
    values["settled_at"] = rfc3339(values.pop("settled_at_ms"))
    return {column: values[column] for column in COLUMNS}


def _invoice(row: r.InvoiceRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "tenant": row.tenant,
        "month": row.month,
        "total_usd": row.total_usd,
        "made_at": rfc3339(row.made_at_ms),
    }


def _limit_of(text: str | None) -> int:
    if not text:
        return PAGE_ROWS
    if _NUMBER.fullmatch(text) is None or not 1 <= int(text) <= PAGE_ROWS_MAX:
        raise ApiError("invalid_value", f"limit must be between 1 and {PAGE_ROWS_MAX}", param="limit")
    return int(text)


def _cursor(page: r.RequestsReply) -> str | None:
    if not page.has_more:
        return None
    last = page.rows[-1]
    return base64.urlsafe_b64encode(f"{last.settled_at_ms}.{last.task_id}".encode()).decode().rstrip("=")


def _cursor_of(text: str | None) -> tuple[int, str]:
    if not text:
        return 0, ""
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        plain = ""
    settled, _, task_id = plain.partition(".")
    if _NUMBER.fullmatch(settled) is None or TASK_ID.match(task_id) is None:
        raise ApiError("invalid_value", "cursor is not one that a list returned", param="cursor")
    return int(settled), task_id
