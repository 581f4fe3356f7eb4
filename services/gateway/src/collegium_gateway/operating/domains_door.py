"""Discovered domains over HTTP: which there are, what they are called, and merging them.

One rule: a member sees its own tenant's alone, and words of a tenant are shown to whoever may take them away, and to
nobody who only looks after it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from collegium_contracts import subjects as s
from collegium_contracts.domain_requests import DomainMerge, DomainRename, DomainRow, DomainsAsk, DomainsReply
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.admission.requests import parse
from collegium_gateway.asking import ask_evolution
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.tasks.views import rfc3339

MAX_BODY_BYTES: Final = 4 * 1024


class DomainRenameBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``PATCH /v1/admin/domains/{id}``: what a domain is called; empty: by its words again."""

    name: str


class DomainMergeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/domains/{id}/merge``: into which other one; empty or its own id: into none any more."""

    into: str = ""


_decode_rename = msgspec.json.Decoder(DomainRenameBody)
_decode_merge = msgspec.json.Decoder(DomainMergeBody)

OPERATIONS: Final = (
    ("get", "/v1/admin/domains", "admin", "Lists domains that were discovered, the largest first.", None),
    ("get", "/v1/admin/domains/{id}", "admin", "Shows a discovered domain.", None),
    ("patch", "/v1/admin/domains/{id}", "admin", "Renames a discovered domain.", DomainRenameBody),
    ("post", "/v1/admin/domains/{id}/merge", "admin", "Merges a discovered domain into another.", DomainMergeBody),
)
QUERY: Final = {"/v1/admin/domains": ("tenant",)}


class DomainsDoor:
    """The routes about discovered domains."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        self._platform = platform
        self._directory = directory

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/admin/domains", self._list, methods=["GET"]),
            Route("/v1/admin/domains/{id}", self._show, methods=["GET"]),
            Route("/v1/admin/domains/{id}", self._rename, methods=["PATCH"]),
            Route("/v1/admin/domains/{id}/merge", self._merge, methods=["POST"]),
        ]

    def _principal(self, request: Request) -> Principal:
        return self._directory.keys.authenticate(request.headers.get("authorization"))

    async def _list(self, request: Request) -> Response:
        principal = self._principal(request)
        tenant = principal.within(request.query_params.get("tenant") or None)
        rows = await self._ask(DomainsAsk(tenant=tenant, with_terms=_sees_words(principal)))
        return json_reply({"data": [_view(row) for row in rows]})

    async def _show(self, request: Request) -> Response:
        principal, topic = self._principal(request), request.path_params["id"]
        rows = await self._ask(DomainsAsk(tenant=principal.within(None), id=topic, with_terms=_sees_words(principal)))
        if not rows:
            raise ApiError("not_found", "there is no discovered domain of this id", param="id")
        return json_reply(_view(rows[0]))

    async def _rename(self, request: Request) -> Response:
        principal = self._principal(request)
        body = parse(_decode_rename, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        asked = DomainRename(
            id=request.path_params["id"],
            name=body.name.strip(),
            by=principal.key_id,
            tenant=principal.within(None),
            with_terms=_sees_words(principal),
        )
        return json_reply(_view((await self._ask(asked))[0]))

    async def _merge(self, request: Request) -> Response:
        principal = self._principal(request)
        body = parse(_decode_merge, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        asked = DomainMerge(
            id=request.path_params["id"],
            into=body.into,
            by=principal.key_id,
            tenant=principal.within(None),
            with_terms=_sees_words(principal),
        )
        return json_reply(_view((await self._ask(asked))[0]))

    async def _ask(self, asked: DomainsAsk | DomainRename | DomainMerge) -> list[DomainRow]:
        reply = await ask_evolution(self._platform, s.SVC_EVOLUTION_DOMAINS, asked, DomainsReply)
        return reply.rows


def _sees_words(principal: Principal) -> bool:
    return principal.may("distill.export")


def _view(row: DomainRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "tenant": row.tenant,
        "name": row.named or ", ".join(row.terms) or row.id,
        "state": row.state,
        "terms": row.terms,
        "questions": row.questions,
        "share": round(row.questions / row.of_questions, 4) if row.of_questions else 0.0,
        "first_at": rfc3339(row.first_at_ms),
        "last_at": rfc3339(row.last_at_ms),
        "into": row.into or None,
        "by": row.by or None,
    }
