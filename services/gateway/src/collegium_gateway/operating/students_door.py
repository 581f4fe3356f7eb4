"""Students over HTTP: which there are, making and retiring them, the samples they are made of, and exports of those.

One rule: a member sees and makes its own tenant's alone, and nobody is shown another's words.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from collegium_bus.errors import BusError
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope, UnknownKeyError, held
from collegium_contracts.errors import UndecodableMessageError
from collegium_contracts.ids import TENANT_ID
from collegium_contracts.messages import Message
from collegium_contracts.students import (
    DistillExport,
    DistillReply,
    ExportFormat,
    ExportShape,
    SamplesAsk,
    SamplesReply,
    StudentDrop,
    StudentKind,
    StudentRegister,
    StudentRow,
    StudentsAsk,
    StudentSpawn,
    StudentsReply,
)
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from yarl import URL

from collegium_gateway.admission.requests import parse
from collegium_gateway.asking import ask_evolution
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal, no_tenant_id
from collegium_gateway.operating.naming import domain_of
from collegium_gateway.tasks.views import rfc3339
from collegium_gateway.webhooks.callbacks import check_url
from collegium_gateway.webhooks.store import WebhookStore

R = TypeVar("R", bound=Message)

MAX_BODY_BYTES: Final = 16 * 1024
# With its evaluation items.
EXPORT_BODY_BYTES_MAX: Final = 768 * 1024
ASK_SECONDS: Final = 20.0
EXPORT_SECONDS: Final = 150.0
# Its endpoint is probed first.
REGISTER_SECONDS: Final = 90.0
ROWS_MAX: Final = 20_000
JSON_LINES: Final = "application/jsonl"


class SpawnBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/students``: a student of a tenant's verified samples in a domain."""

    domain: str
    tenant: str | None = None
    kind: StudentKind = "head"
    base: str = ""


class RegisterBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/students/register``: a model fine-tuned on an export; ``model`` is an entry as
    ``POST /v1/admin/models`` takes it, but for its rank and domains."""

    export: str
    model: dict[str, Any]
    tenant: str | None = None
    force: bool = False


class ExportBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/distill``: a tenant's verified samples as JSON lines.

    ``format`` ``openai``: as that provider takes them. ``evaluation``: texts that nothing like may be trained on.
    """

    domain: str = ""
    shape: ExportShape = "response"
    max_rows: int = 10_000
    tenant: str | None = None
    format: ExportFormat = "annotated"
    temperature: float = 1.0
    evaluation: list[str] = []
    callback_url: str | None = None


_decode_register = msgspec.json.Decoder(RegisterBody)
_decode_spawn = msgspec.json.Decoder(SpawnBody)
_decode_export = msgspec.json.Decoder(ExportBody)
_decode_envelope = msgspec.msgpack.Decoder(Envelope).decode

OPERATIONS: Final = (
    ("get", "/v1/admin/students", "admin", "Lists students: the models that were made of tenants' work.", None),
    ("post", "/v1/admin/students", "admin", "Makes a student of a tenant's verified samples.", SpawnBody),
    ("post", "/v1/admin/students/register", "admin", "Takes in a model fine-tuned on an export.", RegisterBody),
    ("get", "/v1/admin/students/{name}", "admin", "Shows a student.", None),
    ("post", "/v1/admin/students/{name}/retire", "admin", "Retires a student.", None),
    ("get", "/v1/admin/samples", "admin", "Counts a tenant's samples by domain.", None),
    ("post", "/v1/admin/distill", "admin", "Writes a tenant's verified samples for fine-tuning.", ExportBody),
    ("get", "/v1/admin/distill/{id}", "admin", "Returns an export as JSON lines.", None),
)
QUERY: Final = {
    "/v1/admin/students": ("tenant",),
    "/v1/admin/samples": ("tenant",),
    "/v1/admin/distill/{id}": ("tenant",),
}
STATUSES: Final = {
    ("post", "/v1/admin/students"): ("202",),
    ("post", "/v1/admin/students/register"): ("201",),
    ("post", "/v1/admin/distill"): ("201",),
}


class StudentsDoor:
    """The routes about students."""

    def __init__(self, platform: Platform, directory: Directory, webhooks: WebhookStore) -> None:
        self._webhooks = webhooks
        self._platform = platform
        self._directory = directory

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/admin/students", self._list, methods=["GET"]),
            Route("/v1/admin/students", self._spawn, methods=["POST"]),
            Route("/v1/admin/students/register", self._register, methods=["POST"]),
            Route("/v1/admin/students/{name}", self._show, methods=["GET"]),
            Route("/v1/admin/students/{name}/retire", self._retire, methods=["POST"]),
            Route("/v1/admin/samples", self._samples, methods=["GET"]),
            Route("/v1/admin/distill", self._export, methods=["POST"]),
            Route("/v1/admin/distill/{id}", self._exported, methods=["GET"]),
        ]

    def _principal(self, request: Request) -> Principal:
        return self._directory.keys.authenticate(request.headers.get("authorization"))

    async def _body(self, request: Request) -> bytes:
        return await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES)

    async def _ask(self, question: Message, expected: type[R], timeout_seconds: float = ASK_SECONDS) -> R:
        return await ask_evolution(
            self._platform, s.SVC_EVOLUTION_STUDENTS, question, expected, timeout_seconds=timeout_seconds
        )

    async def _list(self, request: Request) -> Response:
        tenant = self._principal(request).within(request.query_params.get("tenant"))
        reply = await self._ask(StudentsAsk(tenant=tenant), StudentsReply)
        return json_reply({"data": [_view(row) for row in reply.rows]})

    async def _show(self, request: Request) -> Response:
        tenant, name = self._principal(request).within(None), request.path_params["name"]
        reply = await self._ask(StudentsAsk(tenant=tenant, model=name), StudentsReply)
        if not reply.rows:
            raise ApiError("not_found", "there is no student of this name", param="name")
        return json_reply(_view(reply.rows[0]))

    async def _spawn(self, request: Request) -> Response:
        principal = self._principal(request)
        body = parse(_decode_spawn, await self._body(request))
        domain, tenant = domain_of(body.domain), self._known(principal, body.tenant)
        record = self._directory.keys.record(tenant)
        question = StudentSpawn(
            tenant=tenant,
            domain=domain,
            by=principal.key_id,
            grants=record.grants if record is not None else [],
            kind=body.kind,
            base=body.base,
        )
        reply = await self._ask(question, StudentsReply)
        return json_reply(_view(reply.rows[0]), 202)

    async def _register(self, request: Request) -> Response:
        principal = self._principal(request)
        body = parse(_decode_register, await self._body(request))
        tenant = self._known(principal, body.tenant)
        record = self._directory.keys.record(tenant)
        question = StudentRegister(
            tenant=tenant,
            export=body.export,
            spec=msgspec.json.encode(body.model),
            tier=record.tier if record is not None else "",
            grants=record.grants if record is not None else [],
            by=principal.key_id,
            forced=body.force,
        )
        reply = await self._ask(question, StudentsReply, REGISTER_SECONDS)
        return json_reply(_view(reply.rows[0]), 201)

    async def _retire(self, request: Request) -> Response:
        principal = self._principal(request)
        question = StudentDrop(model=request.path_params["name"], tenant=principal.within(None), by=principal.key_id)
        reply = await self._ask(question, StudentsReply)
        return json_reply(_view(reply.rows[0]))

    async def _samples(self, request: Request) -> Response:
        tenant = _one(self._principal(request), request.query_params.get("tenant"))
        reply = await self._ask(SamplesAsk(tenant=tenant), SamplesReply)
        return json_reply({"data": msgspec.to_builtins(reply.rows)})

    async def _export(self, request: Request) -> Response:
        principal = self._principal(request)
        body = parse(_decode_export, await asgi.read_body(request.scope, request.receive, EXPORT_BODY_BYTES_MAX))
        if not 0 < body.max_rows <= ROWS_MAX:
            raise ApiError("invalid_value", f"max_rows is 1 to {ROWS_MAX}", param="max_rows")
        domain, tenant = domain_of(body.domain), self._known(principal, body.tenant)
        url = self._callback(body.callback_url)
        question = DistillExport(
            tenant=tenant,
            domain=domain,
            shape=body.shape,
            max_rows=body.max_rows,
            by=principal.key_id,
            format=body.format,
            temperature=body.temperature,
            evaluation=body.evaluation,
        )
        reply = await self._ask(question, DistillReply, EXPORT_SECONDS)
        shown = {
            "id": reply.content,
            "export": reply.id,
            "rows": reply.rows,
            "held_out": reply.held_out,
            "left_out": reply.left_out,
            "manifest": msgspec.json.decode(reply.manifest),
        }
        if url is not None:
            await self._webhooks.open_at_once(tenant, reply.id, url)
        return json_reply(shown, 201)

    def _known(self, principal: Principal, named: str | None) -> str:
        return self._directory.keys.known(_one(principal, named))

    def _callback(self, text: str | None) -> URL | None:
        if text is None:
            return None
        return check_url(text, allow_private=self._platform.settings.webhooks.allow_private_addresses)

    async def _exported(self, request: Request) -> Response:
        tenant = _one(self._principal(request), request.query_params.get("tenant"))
        keyring = self._platform.keyring
        try:
            sealed = _decode_envelope(await self._platform.claims.get(request.path_params["id"]))
            await held(keyring, tenant, sealed)
            lines = keyring.open(tenant, sealed, f"distill:{tenant}")
        except (UndecodableMessageError, UnknownKeyError, msgspec.DecodeError):
            raise ApiError("not_found", "there is no export of this id and tenant", param="id") from None
        except BusError as error:
            raise ApiError("broker_unavailable", "the export cannot be read now", retry_after_seconds=2) from error
        return Response(lines, media_type=JSON_LINES)


def _one(principal: Principal, named: str | None) -> str:
    """Returns the one tenant that is meant; raises ApiError where somebody who reaches all names none."""
    tenant = principal.within(named) or principal.tenant
    if TENANT_ID.fullmatch(tenant) is None:
        raise no_tenant_id("tenant")
    return tenant


def _view(row: StudentRow) -> dict[str, Any]:
    return {
        "name": row.model,
        "tenant": row.tenant,
        "domain": row.domain,
        "kind": row.kind,
        "state": row.state,
        "made_at": rfc3339(row.made_at_ms),
        "retired_at": rfc3339(row.retired_at_ms) if row.retired_at_ms else None,
        "samples": row.samples,
        "labels": row.labels,
        "base": row.base or None,
        "exemplars": row.exemplars,
        "held_out": row.held_out,
        "held_out_asked": row.held_out_asked,
        "held_out_right": row.held_out_right,
        "confidence_min": row.confidence,
        "sha256": row.digest or None,
        "by": row.by or None,
        "reason": row.reason or None,
    }
