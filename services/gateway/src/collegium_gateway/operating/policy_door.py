"""Routing policies over HTTP: what stands, what stood, and taking a version back.

Who administrates one tenant sees that tenant's. One rule: figures by model and domain are shown, and no vector.
"""

from __future__ import annotations

from typing import Any

import msgspec
from collegium_contracts import subjects as s
from collegium_contracts.policies import OPERATOR
from collegium_contracts.policy_requests import (
    PoliciesAsk,
    PoliciesReply,
    PolicyRelease,
    PolicyRollback,
    PolicyRow,
)
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
from collegium_gateway.operating.identity_door import MAX_BODY_BYTES
from collegium_gateway.tasks.views import rfc3339

HISTORY_MAX = 200


class PolicyRollbackRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/policies/{tenant}/rollback``: without ``version`` the one before; 0: as without a policy."""

    version: int | None = None


_decode_rollback = msgspec.json.Decoder(PolicyRollbackRequest)


class PolicyDoor:
    """The routes about policies."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        self._platform = platform
        self._directory = directory

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/admin/policies", self._standing, methods=["GET"]),
            Route("/v1/admin/policies/{tenant}", self._history, methods=["GET"]),
            Route("/v1/admin/policies/{tenant}/rollback", self._roll_back, methods=["POST"]),
            Route("/v1/admin/policies/{tenant}/release", self._release, methods=["POST"]),
        ]

    def _principal(self, request: Request) -> Principal:
        return self._directory.keys.authenticate(request.headers.get("authorization"))

    async def _standing(self, request: Request) -> Response:
        tenant = self._principal(request).within(request.query_params.get("tenant") or None)
        return await self._ask(PoliciesAsk(tenant=tenant))

    async def _history(self, request: Request) -> Response:
        tenant = _named(self._principal(request), request)
        text = request.query_params.get("limit", "50")
        if not text.isdecimal() or not 1 <= int(text) <= HISTORY_MAX:
            raise ApiError("invalid_value", f"limit is a number from 1 to {HISTORY_MAX}", param="limit")
        return await self._ask(PoliciesAsk(tenant=tenant, history=True, limit=int(text)))

    async def _roll_back(self, request: Request) -> Response:
        principal = self._principal(request)
        body = parse(_decode_rollback, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        if body.version is not None and not 0 <= body.version < 2**63:
            raise ApiError("invalid_value", "version is a number from 0 on", param="version")
        tenant = _named(principal, request) or ""
        return await self._change(PolicyRollback(tenant=tenant, by=principal.key_id, version=body.version))

    async def _release(self, request: Request) -> Response:
        principal = self._principal(request)
        return await self._change(PolicyRelease(tenant=_named(principal, request) or "", by=principal.key_id))

    async def _ask(self, asked: PoliciesAsk) -> Response:
        reply = await ask_evolution(self._platform, s.SVC_EVOLUTION_POLICIES, asked, PoliciesReply)
        return json_reply({"data": [_view(row) for row in reply.rows]})

    async def _change(self, asked: PolicyRollback | PolicyRelease) -> Response:
        reply = await ask_evolution(self._platform, s.SVC_EVOLUTION_POLICIES, asked, PoliciesReply)
        return json_reply(_view(reply.rows[0]))


def _named(principal: Principal, request: Request) -> str | None:
    """Returns whose policy is meant: a tenant's, or the operator's, which is no tenant."""
    named: str = request.path_params["tenant"]
    return named if named == OPERATOR and principal.reaches_all else principal.within(named)


def _view(row: PolicyRow) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(row)
    for name, default in (
        ("embeds", False),
        ("pinned", False),
        ("everywhere", []),
        ("domains", {}),
        ("compared", None),
    ):
        shown.setdefault(name, default)
    shown["created_at"] = rfc3339(shown.pop("created_at_ms"))
    shown["operators"] = row.tenant == OPERATOR
    shown["by"] = row.by
    return shown
