"""How a budget is shown: what it is, and how it stands with the owner of its holds.

One rule: what the owner did not tell is null and never zero.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

import msgspec
import structlog
from collegium_bus.ask import ask
from collegium_bus.errors import BusError, RequestRefusedError
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.identity import BudgetRow
from collegium_contracts.ids import shard_of
from collegium_contracts.money import picos_to_usd
from collegium_contracts.requests import BudgetStanding, HoldsListReply, HoldsListRequest
from collegium_runtime.platform import Platform

from collegium_gateway.tasks.views import rfc3339

log = structlog.get_logger(__name__)

# A list is shown without what its owners do not tell in time.
STANDING_SECONDS: Final = 2.0

Standings = Mapping[tuple[str, str], BudgetStanding]


class BudgetView(msgspec.Struct, frozen=True, kw_only=True):
    """A budget as it is shown. Amounts are decimal texts of dollars.

    ``captured_usd`` is what was charged in the window, ``held_usd`` what running requests may yet be charged,
    ``remaining_usd`` what may still be held; ``renews_at`` is when more of it is free (null: time alone frees nothing).
    All four are null where the owner of the budget's holds does not answer.
    """

    id: str
    tenant: str
    scope: str
    of: str | None
    usd: str
    window: str
    window_seconds: int | None
    alert_percents: list[int]
    changed_at: str
    captured_usd: str | None = None
    held_usd: str | None = None
    remaining_usd: str | None = None
    renews_at: str | None = None


def budget_view(row: BudgetRow, standing: BudgetStanding | None = None) -> BudgetView:
    """Returns a budget as it is shown."""
    budget = row.budget
    view = BudgetView(
        id=budget.id,
        tenant=row.tenant,
        scope=budget.scope,
        of=budget.of or None,
        usd=picos_to_usd(budget.limit_picos),
        window=budget.window,
        window_seconds=budget.window_seconds if budget.window == "rolling" else None,
        alert_percents=budget.alert_percents,
        changed_at=rfc3339(row.changed_at_ms),
    )
    if standing is None:
        return view
    left = budget.limit_picos - standing.captured_picos - standing.held_picos
    return msgspec.structs.replace(
        view,
        captured_usd=picos_to_usd(standing.captured_picos),
        held_usd=picos_to_usd(standing.held_picos),
        remaining_usd=picos_to_usd(max(0, left)),
        renews_at=rfc3339(standing.renews_at_ms) if standing.renews_at_ms else None,
    )


async def standings_of(platform: Platform, tenants: Collection[str]) -> Standings:
    """Asks the owners of these tenants' shards how their budgets stand; what they do not tell is absent."""
    shards = {shard_of(tenant) for tenant in tenants}
    only = next(iter(tenants)) if len(tenants) == 1 else None
    found = await asyncio.gather(*(_standing_in(platform, shard, only) for shard in shards))
    return {(one.tenant, one.budget): one for told in found for one in told}


async def _standing_in(platform: Platform, shard: int, tenant: str | None) -> list[BudgetStanding]:
    question = HoldsListRequest(tenant=tenant, holds_max=0)
    try:
        reply = await ask(
            platform.connection, s.holds_of_shard(shard), question, HoldsListReply, timeout_seconds=STANDING_SECONDS
        )
    except (BusError, ContractError, RequestRefusedError) as error:
        log.warning("budgets are shown without their standing", shard=shard, error=str(error))
        return []
    return reply.budgets
