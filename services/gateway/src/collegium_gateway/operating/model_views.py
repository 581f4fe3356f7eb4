"""The roster as it is shown: each model with its scores, limits, breaker and endpoint.

One rule: who administrates one tenant sees the platform's models and that tenant's students.
"""

from __future__ import annotations

from typing import Any

from collegium_contracts.money import picos_to_usd
from collegium_contracts.state import ModelRecord, ModelScore
from collegium_contracts.students import may_ask
from collegium_contracts.windows import QuotaWindow

from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.operating.quota_views import limits_view
from collegium_gateway.tasks.views import breaker_view, endpoint_view


async def model_rows(
    directory: Directory, principal: Principal, now_ms: int, name: str | None = None
) -> list[dict[str, Any]]:
    """Returns the models that may be seen, or the one of a name."""
    board = await directory.scoreboard()
    quotas = await directory.quotas()
    scores: dict[str, list[dict[str, Any]]] = {}
    for score in board.scores if board is not None else ():
        scores.setdefault(score.model, []).append(_score(score))
    return [
        _row(directory, principal, model, quotas.get(model.name), scores.get(model.name, []), now_ms)
        for model in directory.models
        if name in (None, model.name) and (principal.reaches_all or may_ask(model.student, principal.tenant))
    ]


def _row(
    directory: Directory,
    principal: Principal,
    model: ModelRecord,
    quota: QuotaWindow | None,
    scores: list[dict[str, Any]],
    now_ms: int,
) -> dict[str, Any]:
    return {
        "name": model.name,
        "kind": model.kind,
        "rank": model.rank,
        "pool": model.pool,
        "domains": model.domains,
        "capabilities": model.capabilities,
        "fallbacks": model.fallbacks,
        "labels": model.labels,
        "enabled": model.enabled,
        "drained": model.drained,
        "added": model.registered,
        "earned": [
            {"domain": one.domain, "rank": one.rank, "tenant": one.tenant or None}
            for one in model.earned
            if principal.reaches_all or one.tenant in ("", principal.tenant)
        ],
        "context_tokens": model.context_tokens,
        "max_output_tokens": model.max_output_tokens,
        "price": {
            "input_usd_per_mtok": picos_to_usd(model.price.input_picos * 1_000_000),
            "output_usd_per_mtok": picos_to_usd(model.price.output_picos * 1_000_000),
        },
        "breaker": breaker_view(directory.breakers.get(model.name), now_ms),
        "endpoint": endpoint_view(directory.endpoints.get(model.name)),
        "limits": limits_view(model, quota),
        "scores": scores,
    }


def _score(score: ModelScore) -> dict[str, Any]:
    return {
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
