"""A policy as operators see it: figures by model and domain. Pure. One rule: no vector and no weight is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from collegium_contracts.policies import Cell, RoutingPolicy
from collegium_contracts.policy_requests import Compared, ModelView, PolicyRow, PolicyState

DOMAINS_SHOWN_MAX: Final = 100


def row_of(
    policy: RoutingPolicy,
    state: PolicyState,
    why: str,
    *,
    by: str = "evolution",
    cycle: str = "",
    compared: Compared | None = None,
) -> PolicyRow:
    """Returns a version as it is shown; of very many domains those with most outcomes."""
    ordered = sorted(policy.domains.items(), key=lambda item: (-sum(cell.rows for cell in item[1]), item[0]))
    return PolicyRow(
        tenant=policy.tenant,
        version=policy.version,
        created_at_ms=policy.created_at_ms,
        state=state,
        rows=policy.rows,
        family=policy.family,
        tolerance=policy.tolerance,
        why=why,
        by=by,
        cycle=cycle,
        embeds=policy.embeds,
        pinned=policy.pinned,
        rolled_back_from=policy.rolled_back_from,
        everywhere=_views(policy.models, policy.everywhere),
        domains={name: _views(policy.models, cells) for name, cells in sorted(ordered[:DOMAINS_SHOWN_MAX])},
        compared=compared,
    )


def _views(models: Sequence[str], cells: Sequence[Cell]) -> list[ModelView]:
    return [
        ModelView(
            model=model,
            rows=cell.rows,
            quality=round(cell.mean, 4),
            sd=round(cell.sd, 4),
            cost_usd=round(cell.cost_usd_picos / 1e12, 10),
            seconds=round(cell.seconds, 3),
        )
        for model, cell in zip(models, cells, strict=True)
    ]
