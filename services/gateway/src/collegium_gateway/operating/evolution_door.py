"""What operators and tenants see of learning over HTTP: scoreboards, ranks, gaps and rounds; and drained models.

Who administrates one tenant sees that tenant's scores, gaps and ranks, and what holds for all. One rule: nothing is
shown here but names of models and domains, and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from collegium_bus.ask import ask
from collegium_bus.errors import BusError, RequestRefusedError
from collegium_contracts import evolution as e
from collegium_contracts import subjects as s
from collegium_contracts.messages import Rank
from collegium_contracts.money import picos_to_usd
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
from collegium_gateway.operating.naming import domain_of, model_of
from collegium_gateway.tasks.views import rfc3339

LIMIT_MAX = 1_000


class RankRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/models/{name}/rank``: without ``domain`` the rank that applies where none was earned."""

    rank: Rank
    domain: str | None = None
    tenant: str = ""
    reason: str = ""


class RollbackRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/models/{name}/rank/rollback``: which rank's newest change is taken back."""

    domain: str | None = None
    tenant: str = ""
    reason: str = ""


_decode_rank = msgspec.json.Decoder(RankRequest)
_decode_rollback = msgspec.json.Decoder(RollbackRequest)


class EvolutionDoor:
    """The routes about learning."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        self._platform = platform
        self._directory = directory

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/admin/scoreboard", self._scoreboard, methods=["GET"]),
            Route("/v1/admin/ranks", self._ranks, methods=["GET"]),
            Route("/v1/admin/gaps", self._gaps, methods=["GET"]),
            Route("/v1/admin/evolution", self._cycles, methods=["GET"]),
            Route("/v1/admin/evolution/run", self._run, methods=["POST"]),
            Route("/v1/admin/evolution/{id}", self._cycle, methods=["GET"]),
            Route("/v1/admin/models/{name:path}/rank/rollback", self._roll_back, methods=["POST"]),
            Route("/v1/admin/models/{name:path}/rank", self._rank, methods=["POST"]),
            Route("/v1/admin/models/{name:path}/drain", self._drain, methods=["POST"]),
            Route("/v1/admin/models/{name:path}/resume", self._resume, methods=["POST"]),
        ]

    def _principal(self, request: Request) -> Principal:
        return self._directory.keys.authenticate(request.headers.get("authorization"))

    def _place(self, principal: Principal, body: RankRequest | RollbackRequest) -> tuple[str | None, str]:
        """Returns the domain and the tenant (empty: all) whose rank is meant; raises ApiError for one that is none."""
        tenant = principal.within(body.tenant or None) or ""
        return domain_of(body.domain), self._directory.keys.known(tenant) if tenant else ""

    def _tenant(self, request: Request) -> str | None:
        return self._principal(request).within(request.query_params.get("tenant") or None)

    async def _scoreboard(self, request: Request) -> Response:
        query = request.query_params
        asked = e.ScoreboardAsk(
            tenant=self._tenant(request) or "",
            model=query.get("model", ""),
            domain=query.get("domain"),
            half_life_days=_number(query, "half_life_days"),
        )
        reply = await ask_evolution(self._platform, s.SVC_EVOLUTION_BOARD, asked, e.ScoreboardReply)
        return json_reply(
            {
                "data": [_board_row(row) for row in reply.rows],
                "at": rfc3339(reply.at_ms),
                "half_life_days": reply.half_life_days,
                "tenant": asked.tenant or None,
                "is_cut": reply.is_cut,
            }
        )

    async def _ranks(self, request: Request) -> Response:
        asked = e.RankHistoryAsk(
            model=request.query_params.get("model", ""), tenant=self._tenant(request), limit=_limit(request, 100)
        )
        reply = await ask_evolution(self._platform, s.SVC_EVOLUTION_RANKS, asked, e.RankHistoryReply)
        return json_reply({"data": [_change(row) for row in reply.rows]})

    async def _gaps(self, request: Request) -> Response:
        asked = e.GapsAsk(tenant=self._tenant(request) or "", limit=_limit(request, 50))
        reply = await ask_evolution(self._platform, s.SVC_EVOLUTION_GAPS, asked, e.GapsReply)
        return json_reply({"data": [_gap(row) for row in reply.rows]})

    async def _cycles(self, request: Request) -> Response:
        self._principal(request)
        asked = e.CyclesAsk(limit=_limit(request, 20))
        reply = await ask_evolution(self._platform, s.SVC_EVOLUTION_CYCLES, asked, e.CyclesReply)
        return json_reply({"data": [_cycle(row) for row in reply.rows]})

    async def _cycle(self, request: Request) -> Response:
        self._principal(request)
        asked = e.CyclesAsk(id=request.path_params["id"])
        reply = await ask_evolution(self._platform, s.SVC_EVOLUTION_CYCLES, asked, e.CyclesReply)
        return json_reply(_cycle(reply.rows[0]))

    async def _run(self, request: Request) -> Response:
        asked = e.CycleRun(by=self._principal(request).key_id)
        reply = await ask_evolution(self._platform, s.SVC_EVOLUTION_CYCLES, asked, e.CyclesReply)
        return json_reply(_cycle(reply.rows[0]), 202)

    async def _rank(self, request: Request) -> Response:
        principal = self._principal(request)
        body = parse(_decode_rank, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        domain, tenant = self._place(principal, body)
        asked = e.RankChangeAsk(
            model=model_of(request.path_params["name"]),
            rank=body.rank,
            domain=domain,
            tenant=tenant,
            by=principal.key_id,
            reason=body.reason,
        )
        reply = await ask_evolution(self._platform, s.SVC_EVOLUTION_RANKS, asked, e.RankHistoryReply)
        return json_reply(_change(reply.rows[0]))

    async def _roll_back(self, request: Request) -> Response:
        principal = self._principal(request)
        body = parse(_decode_rollback, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        domain, tenant = self._place(principal, body)
        asked = e.RankRollbackAsk(
            model=model_of(request.path_params["name"]),
            domain=domain,
            tenant=tenant,
            by=principal.key_id,
            reason=body.reason,
        )
        reply = await ask_evolution(self._platform, s.SVC_EVOLUTION_RANKS, asked, e.RankHistoryReply)
        return json_reply(_change(reply.rows[0]))

    async def _drain(self, request: Request) -> Response:
        return await self._switch(request, drained=True)

    async def _resume(self, request: Request) -> Response:
        return await self._switch(request, drained=False)

    async def _switch(self, request: Request, *, drained: bool) -> Response:
        self._principal(request)
        asked = e.ModelSwitch(model=model_of(request.path_params["name"]), drained=drained)
        try:
            reply = await ask(self._platform.connection, s.SVC_ROUTER_MODEL, asked, e.ModelSetReply)
        except RequestRefusedError as error:
            raise ApiError(error.code, error.message, param=error.param) from error
        except BusError as error:
            raise ApiError("not_ready", "the router does not answer; try again", retry_after_seconds=2) from error
        return json_reply({"model": reply.model, "drained": drained, "is_new": reply.is_new})


def _number(query: Mapping[str, str], name: str) -> float:
    try:
        found = float(query.get(name, "0"))
    except ValueError:
        found = -1.0
    if not found >= 0:
        raise ApiError("invalid_value", f"{name} must be a number of days", param=name)
    return found


def _limit(request: Request, default: int) -> int:
    text = request.query_params.get("limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= LIMIT_MAX):
        raise ApiError("invalid_value", f"limit must be 1 to {LIMIT_MAX}", param="limit")
    return int(text)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _board_row(row: e.BoardRow) -> dict[str, Any]:
    drift = None
    if row.drift:
        drift = {
            "of": row.drift,
            "before": _rounded(row.drift_before),
            "after": _rounded(row.drift_after),
            "at": rfc3339(row.drift_at_ms),
        }
    return {
        "model": row.model,
        "domain": row.domain,
        "rank": row.rank,
        "calls": row.calls,
        "judged": row.judged,
        "quality": _rounded(row.quality),
        "success_rate": _rounded(row.success),
        "refusal_rate": _rounded(row.refusals),
        "duration_ms_mean": _rounded(row.duration_ms),
        "cost_usd_mean": None if row.cost_usd_picos is None else picos_to_usd(int(row.cost_usd_picos)),
        "drift": drift,
    }


def _change(row: e.RankChangeRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "model": row.model,
        "domain": row.domain,
        "tenant": row.tenant or None,
        "before": row.before,
        "after": row.after,
        "ground": row.ground,
        "reason": row.reason,
        "by": row.by,
        "at": rfc3339(row.at_ms),
        "state": row.state,
        "cycle": row.cycle or None,
        "evidence": {
            "odds": _rounded(row.odds),
            "needed": row.needed,
            "wins": row.wins,
            "losses": row.losses,
            "ties": row.ties,
            "tenants": row.tenants,
            "mean_score": _rounded(row.mean_score),
            "price_ratio": _rounded(row.price_ratio),
        },
    }


def _gap(row: e.GapRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "domain": row.domain,
        "cluster": row.cluster or None,
        "tenant": row.tenant or None,
        "size": row.size,
        "judged": row.judged,
        "signal": row.signal,
        "reason": "confidence" if row.signal == "confidence" else "outcomes",
        "accuracy": row.accuracy,
        "upper": row.upper,
        "target": row.target,
        "value_usd_month": picos_to_usd(row.value_usd_picos),
        "score": _rounded(row.score),
        "first_at": rfc3339(row.first_at_ms),
    }


def _cycle(row: e.CycleRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "state": row.state,
        "cause": row.cause,
        "by": row.by or None,
        "queries": row.queries,
        "started_at": rfc3339(row.started_at_ms),
        "ended_at": rfc3339(row.ended_at_ms) if row.ended_at_ms else None,
        "steps": [{"name": step.name, "state": step.state, "lines": step.lines} for step in row.steps],
    }
