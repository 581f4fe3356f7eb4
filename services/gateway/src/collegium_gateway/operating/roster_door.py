"""Models over HTTP: added while the platform runs, shown with what their endpoints can do, changed and removed.

What may be said of a model is what an entry of ``models:`` may say, with the name of a key in the place of a key; it is
read by the router. One rule: where a model is is shown to those alone who may look after all of the platform.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from collegium_contracts import subjects as s
from collegium_contracts.modelstate import RegisteredModel
from collegium_contracts.money import picos_to_usd
from collegium_contracts.roster_requests import (
    ModelAdd,
    ModelChange,
    ModelRemove,
    ModelShow,
    RegistrationReply,
    RosterRequest,
)
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.admission.requests import parse
from collegium_gateway.asking import ask_router
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.operating.model_views import model_rows
from collegium_gateway.tasks.views import rfc3339

MAX_BODY_BYTES: Final = 64 * 1024
# Longer than a worker's probes, and the router's patience with them.
ADD_SECONDS: Final = 90.0


class ModelBody(msgspec.Struct, frozen=True):
    """``POST /v1/admin/models``: an entry of ``models:``, with ``key`` (a name under ``roster.keys``) for its key.

    ``force`` adds it whatever its probes say. The other fields stand in the configuration's reference.
    """

    name: str
    base_url: str
    key: str | None = None
    force: bool = False


class ModelPatch(msgspec.Struct, frozen=True):
    """``PATCH /v1/admin/models/{name}``: the fields to change, null for a default; rank and price have routes of their
    own."""

    force: bool = False


_decode_fields = msgspec.json.Decoder(dict[str, Any])

OPERATIONS: Final = (
    ("post", "/v1/admin/models", "admin", "Adds a model once its endpoint was found to work.", ModelBody),
    ("get", "/v1/admin/models/{name}", "admin", "Shows a model with what its endpoint can do.", None),
    ("patch", "/v1/admin/models/{name}", "admin", "Changes an added model; probed where that matters.", ModelPatch),
    ("delete", "/v1/admin/models/{name}", "admin", "Removes an added model; what it has in hand it ends.", None),
)
STATUSES: Final = {("post", "/v1/admin/models"): ("201",)}


class RosterDoor:
    """The routes about single models; they come after all routes below a model's name."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        self._platform = platform
        self._directory = directory

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/admin/models", self._add, methods=["POST"]),
            Route("/v1/admin/models/{name:path}", self._show, methods=["GET"]),
            Route("/v1/admin/models/{name:path}", self._change, methods=["PATCH"]),
            Route("/v1/admin/models/{name:path}", self._remove, methods=["DELETE"]),
        ]

    def _principal(self, request: Request) -> Principal:
        return self._directory.keys.authenticate(request.headers.get("authorization"))

    async def _ask(self, question: RosterRequest, timeout_seconds: float = 5.0) -> RegistrationReply:
        return await ask_router(
            self._platform, s.SVC_ROUTER_ROSTER, question, RegistrationReply, timeout_seconds=timeout_seconds
        )

    async def _fields(self, request: Request) -> tuple[dict[str, Any], bool]:
        """Returns a body's fields but ``force``, and that."""
        fields = parse(_decode_fields, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        forced = fields.pop("force", False)
        if not isinstance(forced, bool):
            raise ApiError("invalid_value", "force is true or false", param="force")
        return fields, forced

    async def _add(self, request: Request) -> Response:
        principal = self._principal(request)
        fields, forced = await self._fields(request)
        question = ModelAdd(spec=msgspec.json.encode(fields), by=principal.key_id, forced=forced)
        return json_reply(_view(await self._ask(question, ADD_SECONDS)), 201)

    async def _show(self, request: Request) -> Response:
        principal, name = self._principal(request), request.path_params["name"]
        rows = await model_rows(self._directory, principal, self._platform.now_ms(), name)
        if not rows:
            raise ApiError("not_found", "there is no model of this name", param="name")
        if not principal.reaches_all:
            return json_reply(rows[0])
        return json_reply(rows[0] | _view(await self._ask(ModelShow(model=name))))

    async def _change(self, request: Request) -> Response:
        principal = self._principal(request)
        fields, forced = await self._fields(request)
        question = ModelChange(
            model=request.path_params["name"], changes=msgspec.json.encode(fields), by=principal.key_id, forced=forced
        )
        return json_reply(_view(await self._ask(question, ADD_SECONDS)))

    async def _remove(self, request: Request) -> Response:
        question = ModelRemove(model=request.path_params["name"], by=self._principal(request).key_id)
        reply = await self._ask(question)
        return json_reply({"name": reply.model, "removed": True})


def _view(reply: RegistrationReply) -> dict[str, Any]:
    view: dict[str, Any] = {"name": reply.model, "rank": reply.rank, "added": reply.registered is not None}
    return view | (_registered(reply.registered) if reply.registered is not None else {})


def _registered(known: RegisteredModel) -> dict[str, Any]:
    said: dict[str, Any] = msgspec.json.decode(known.spec)
    return {
        "spec": said,
        "by": known.by or None,
        "at": rfc3339(known.at_ms),
        "forced": known.forced,
        "probes": [
            {
                "name": one.name,
                "state": one.state,
                "endpoint": one.endpoint,
                "needed": one.needed,
                "detail": one.detail or None,
                "duration_ms": one.duration_ms,
            }
            for one in known.found
        ],
        "probe_cost_usd": picos_to_usd(known.probe_usd_picos),
    }
