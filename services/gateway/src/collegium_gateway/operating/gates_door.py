"""Gates over HTTP: which rules there are, which a tenant has, what they say of a text, what they did.

Rules are the configuration's; what is set here is which of them a tenant passes. One rule: what a rule looks for is
shown to those alone who administrate all tenants.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from collegium_contracts import identity as i
from collegium_contracts import requests as q
from collegium_contracts import subjects as s
from collegium_contracts.audit_requests import AuditRead, AuditRecordsReply
from collegium_contracts.gates import GateRule, Point
from collegium_gates import age, deciding
from collegium_gates.age import Vouched
from collegium_gates.deciding import Outcome
from collegium_gates.telling import ACTION_PREFIX
from collegium_gates.units import Segment, Unit
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.admission.gating import Gating
from collegium_gateway.admission.requests import parse
from collegium_gateway.asking import ask_billing
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.operating import csvtext
from collegium_gateway.operating.audit_door import query_time, reach
from collegium_gateway.operating.gate_report import DECISIONS, SUMS, Report, decode_gates, decode_test

MAX_BODY_BYTES: Final = 256 * 1024
PAGE: Final = 500
# A report reads so many decisions at most; for more, ask for a shorter time.
RECORDS_MAX: Final = 50_000


class GatesDoor:
    """The routes about gates."""

    def __init__(self, platform: Platform, directory: Directory, gating: Gating) -> None:
        self._platform = platform
        self._directory = directory
        self._gating = gating

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/admin/gates", self._list, methods=["GET"]),
            Route("/v1/admin/gates/test", self._test, methods=["POST"]),
            Route("/v1/admin/gates/report", self._report, methods=["GET"]),
            Route("/v1/admin/tenants/{id}/gates", self._of_tenant, methods=["GET", "PUT", "DELETE"]),
        ]

    def _principal(self, request: Request) -> Principal:
        return self._directory.keys.authenticate(request.headers.get("authorization"))

    async def _list(self, request: Request) -> Response:
        principal = self._principal(request)
        registry = self._gating.registry
        shown = [
            {
                "name": name,
                "version": registry.references[name].partition("@")[2],
                "everyone": name in registry.everyone,
                **_view(rule, whole=principal.reaches_all),
            }
            for name, rule in registry.rules.items()
        ]
        return json_reply({"data": shown})

    async def _of_tenant(self, request: Request) -> Response:
        principal = self._principal(request)
        tenant = principal.within(request.path_params["id"])
        if request.method in ("GET", "HEAD"):
            question: Any = q.TenantList(tenant=tenant)
            reply = await ask_billing(self._platform, s.SVC_BILLING_TENANT_LIST, question, q.TenantsReply)
            return json_reply(_gates_of(reply.tenants[0]))
        gates: list[str] = []
        verified: dict[str, int] = {}
        if request.method == "PUT":
            body = parse(decode_gates, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
            gates, verified = body.gates, body.verified
            for name in gates:
                if name not in self._gating.registry.rules:
                    raise ApiError("unknown_gate", f"there is no gate {name[:64]!r}", param="gates")
        change = i.TenantChange(tenant=request.path_params["id"], gates=gates, verified=verified)
        reply = await ask_billing(self._platform, s.SVC_BILLING_TENANT_CHANGE, change, q.TenantsReply)
        return json_reply(_gates_of(reply.tenants[0]))

    async def _test(self, request: Request) -> Response:
        self._principal(request)
        body = parse(decode_test, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        if body.point not in ("request", "answer", "tool"):
            raise ApiError("invalid_value", "point must be request, answer or tool", param="point")
        point: Point = body.point
        registry = self._gating.registry
        for name in body.gates:
            if name not in registry.rules:
                raise ApiError("unknown_gate", f"there is no gate {name[:64]!r}", param="gates")
        rules = [registry.rules[name] for name in dict.fromkeys(body.gates) if point in registry.rules[name].on]
        role = "user" if point == "request" else "assistant"
        unit = Unit(body.text, role, (Segment((0,), 0, len(body.text)),))
        today = datetime.fromtimestamp(self._platform.now_ms() / 1000, UTC).date()
        vouched = Vouched(request=body.verified)
        ages = [Outcome(rule, age.evaluate(rule, vouched, today)) for rule in rules if rule.kind == "age"]
        first = deciding.decide(ages, [], point, "")
        verdict = await self._gating.checking.check([rule for rule in rules if rule.kind != "age"], [unit], point)
        decisions = [*first.decisions, *verdict.decisions]
        text = None if any(one.blocks for one in decisions) else deciding.applied(body.text, verdict.changes.get(0, ()))
        result = "blocked" if text is None else "passed" if text == body.text else "changed"
        shown = [msgspec.to_builtins(one) for one in decisions]
        return json_reply({"result": result, "text": text, "decisions": shown, "tried": [one.name for one in rules]})

    async def _report(self, request: Request) -> Response:
        principal = self._principal(request)
        query = request.query_params
        tenant = reach(principal, query.get("tenant") or None)
        form, details = query.get("format", "json"), query.get("details", "") in ("1", "true", "yes")
        if form not in ("json", "csv"):
            raise ApiError("invalid_value", "format must be json or csv", param="format")
        report, read, cursor = Report(), 0, 0
        question = AuditRead(
            tenant=tenant,
            from_ms=query_time(query.get("from"), "from"),
            to_ms=query_time(query.get("to"), "to"),
            action=ACTION_PREFIX,
            limit=PAGE,
        )
        while read < RECORDS_MAX:
            page = msgspec.structs.replace(question, cursor=cursor)
            reply = await ask_billing(self._platform, s.SVC_BILLING_AUDIT_READ, page, AuditRecordsReply)
            report.feed(reply.records, details=details)
            read, cursor = read + len(reply.records), reply.next_cursor
            if not cursor:
                break
        if form == "csv":
            columns, rows = (DECISIONS, report.decisions) if details else (SUMS, report.sums())
            headers = {
                "content-disposition": 'attachment; filename="gates.csv"',
                "x-collegium-is-cut": "true" if cursor else "false",
            }
            content = csvtext.header(columns) + csvtext.lines(columns, rows)
            return Response(content, media_type=csvtext.MEDIA_TYPE, headers=headers)
        found: dict[str, Any] = {"data": report.sums(), "totals": report.totals, "is_cut": bool(cursor)}
        return json_reply({**found, "decisions": report.decisions} if details else found)


def _view(rule: GateRule, *, whole: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "kind": rule.kind, "on": rule.on, "action": rule.action, "required": rule.required
    }  # fmt: skip
    if whole:
        fields: dict[str, Any] = msgspec.to_builtins(rule)
        about = {key: value for key, value in fields.items() if key not in ("type", "v", "name", *shown)}
        if rule.schema:
            about["schema"] = msgspec.Raw(rule.schema)
        shown["parameters"] = about
    return shown


def _gates_of(row: q.TenantRow) -> dict[str, Any]:
    return {"tenant": row.id, "gates": row.gates, "verified": row.verified}
