"""Usage, and what operators see: models with their scores, possible spend. Who may do what: identity_door."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from collegium_contracts import requests as q
from collegium_contracts import subjects as s
from collegium_contracts.money import picos_to_usd
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway import csvtext
from collegium_gateway.askingdoor import AskingDoor
from collegium_gateway.directory import Directory
from collegium_gateway.identity_door import IdentityDoor
from collegium_gateway.quota_views import limits_view
from collegium_gateway.replies import json_reply
from collegium_gateway.reports import FORMATS, ReportDoor, csv_reply, format_of, tenant_of
from collegium_gateway.views import breaker_view, rfc3339

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
        self._principal(request, "admin")
        board = await self._directory.scoreboard()
        quotas = await self._directory.quotas()
        scores: dict[str, list[dict[str, Any]]] = {}
        for score in board.scores if board is not None else ():
            scores.setdefault(score.model, []).append(
                {
                    "domain": score.domain,
                    "rank": score.rank,
                    "calls": score.calls,
                    "succeeded": score.succeeded,
                    "success_rate": score.succeeded / score.calls if score.calls else None,
                    "duration_ms_mean": score.duration_ms_total / score.calls if score.calls else None,
                    "duration_ms_p50": score.duration_ms_p50,
                    "cost_usd": picos_to_usd(score.cost_usd_picos),
                    "judged": score.judged,
                    "score_mean": round(score.score_sum / score.judged, 6) if score.judged else None,
                }
            )
        data = [
            {
                "name": model.name,
                "kind": model.kind,
                "rank": model.rank,
                "pool": model.pool,
                "domains": model.domains,
                "enabled": model.enabled,
                "context_tokens": model.context_tokens,
                "max_output_tokens": model.max_output_tokens,
                "price": {
                    "input_usd_per_mtok": picos_to_usd(model.price.input_picos * 1_000_000),
                    "output_usd_per_mtok": picos_to_usd(model.price.output_picos * 1_000_000),
                },
                "breaker": breaker_view(self._directory.breakers.get(model.name), self._platform.now_ms()),
                "limits": limits_view(model, quotas.get(model.name)),
                "scores": scores.get(model.name, []),
            }
            for model in self._directory.models
        ]
        return json_reply({"data": data})


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
