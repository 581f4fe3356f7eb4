"""Usage, and what operators see: models with their scores, possible spend. Who may do what: identity_door."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from collegium_contracts import requests as q
from collegium_contracts import subjects as s
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.operating import csvtext
from collegium_gateway.operating.askingdoor import AskingDoor
from collegium_gateway.operating.identity_door import IdentityDoor
from collegium_gateway.operating.model_views import model_rows
from collegium_gateway.operating.reports import FORMATS, ReportDoor, csv_reply, format_of, tenant_of
from collegium_gateway.tasks.views import rfc3339

USAGE_DAYS = 30


class AdminDoor(AskingDoor):
    """Usage and administration over HTTP."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        super().__init__(platform, directory)
        self._reports = ReportDoor(self._ask, self._time_of, self._principal, directory)

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/usage", self._usage, methods=["GET"]),
            Route("/v1/admin/models", self._models, methods=["GET"]),
            Route("/v1/admin/possible-spend", self._possible_spend, methods=["GET"]),
            *IdentityDoor(self._platform, self._directory).routes(),
            *self._reports.routes(),
        ]

    async def _usage(self, request: Request) -> Response:
        principal = self._principal(request, "usage")
        query = request.query_params
        as_csv = format_of(query.get("format"), FORMATS) == "csv"
        group_by = [name for name in query.get("group_by", "").split(",") if name]
        question = q.UsageRequest(
            tenant=tenant_of(principal, query.get("tenant")),
            from_ms=self._time_of(request, "from", -timedelta(days=USAGE_DAYS)),
            to_ms=self._time_of(request, "to", timedelta(seconds=1)),
            group_by=group_by,
        )
        reply = await self._ask(s.SVC_BILLING_USAGE, question, q.UsageReply)
        data = [{**row.group, **_figures(row.figures)} for row in reply.rows]
        if as_csv:
            columns = (*dict.fromkeys(group_by), *q.UsageFigures.__struct_fields__)
            return csv_reply(csvtext.header(columns) + csvtext.lines(columns, data), "usage.csv")
        return json_reply({"data": data, "totals": _figures(reply.totals)})

    async def _possible_spend(self, request: Request) -> Response:
        tenant = self._principal(request, "admin").within(request.query_params.get("tenant") or None)
        question = q.PossibleSpendRequest(
            tenant=tenant,
            from_ms=self._time_of(request, "from", -timedelta(days=USAGE_DAYS)),
            to_ms=self._time_of(request, "to", timedelta(seconds=1)),
        )
        reply = await self._ask(s.SVC_BILLING_POSSIBLE_SPEND, question, q.PossibleSpendReply)
        return json_reply({"data": [_possible(row) for row in reply.rows], "is_cut": reply.is_cut})

    async def _models(self, request: Request) -> Response:
        principal = self._principal(request, "admin")
        return json_reply({"data": await model_rows(self._directory, principal, self._platform.now_ms())})


def _figures(figures: q.UsageFigures) -> dict[str, Any]:
    return {name: getattr(figures, name) for name in q.UsageFigures.__struct_fields__}


def _possible(row: q.PossibleSpendRow) -> dict[str, Any]:
    return {
        "task_id": row.task_id,
        "attempt": row.attempt,
        "delivery": row.delivery,
        "tenant": row.tenant,
        "model": row.model,
        "started_at": rfc3339(row.started_at_ms),
    }
