"""How budgets stand, as the admin API tells: of a tenant, a project and a key, by whichever gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from collegium_contracts.identity import BudgetRow
from collegium_contracts.requests import BudgetStanding
from collegium_contracts.state import BudgetRecord
from collegium_gateway.operating.budget_views import budget_view
from collegium_settings import PriceSettings
from collegium_testing.eventually import eventually
from collegium_testing.platform import RunningPlatform

PRICE = PriceSettings(input_usd_per_mtok=Decimal("0.02"), output_usd_per_mtok=Decimal("0.06"))
NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z
ROW = BudgetRow(tenant="acme", budget=BudgetRecord(id="b", scope="tenant", limit_picos=25 * 10**12), changed_at_ms=NOW)


def standing(captured: int, held: int, renews_at_ms: int = 0) -> BudgetStanding:
    return BudgetStanding(
        budget="b",
        tenant="acme",
        scope="tenant",
        of="",
        limit_picos=25 * 10**12,
        captured_picos=captured,
        held_picos=held,
        renews_at_ms=renews_at_ms,
    )


def test_a_budget_is_shown_with_what_is_captured_held_and_left() -> None:
    shown = budget_view(ROW, standing(5 * 10**12, 10**11, NOW))
    assert (shown.captured_usd, shown.held_usd, shown.remaining_usd) == ("5", "0.1", "19.9")
    assert shown.renews_at == "2026-01-01T00:00:00.000Z"
    assert budget_view(ROW, standing(30 * 10**12, 0)).remaining_usd == "0", "overspent leaves nothing"


def test_what_the_owner_did_not_tell_is_null_and_not_zero() -> None:
    shown = budget_view(ROW)
    assert (shown.usd, shown.captured_usd, shown.held_usd, shown.remaining_usd, shown.renews_at) == ("25",) + (
        None,
    ) * 4


@pytest.fixture
async def platform(clean_nats_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[Any]:
    services = ("billing", "router", "worker-pool", "gateway")
    async with RunningPlatform(
        clean_nats_url, database_url, folder=tmp_path, services=services, models=({"name": "sim", "price": PRICE},)
    ) as running:
        (hosted,) = (one for one in running._hosted if one.platform.service == "gateway")
        url = f"http://127.0.0.1:{hosted.app.port}"
        owner = {"authorization": f"Bearer {(tmp_path / 'admin.key').read_text().strip()}"}
        async with aiohttp.ClientSession(url, headers=owner) as session:
            yield session


async def admin(session: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Any:
    async with session.request(method, f"/v1/admin/{path}", json=body) as response:
        assert response.status in (200, 201), await response.text()
        return await response.json()


async def test_every_budget_shows_what_a_chat_was_charged(platform: aiohttp.ClientSession) -> None:
    await admin(platform, "POST", "tenants", {"id": "initech", "tier": "pro"})
    await admin(platform, "POST", "projects", {"tenant": "initech", "id": "web"})
    old = await admin(
        platform,
        "POST",
        "keys",
        {"tenant": "initech", "project": "web", "scopes": ["chat"], "budget": {"usd": "3", "window": "1h"}},
    )
    new = await admin(platform, "POST", f"keys/{old['id']}/rotate", {"grace": "1h"})
    await admin(platform, "PUT", "budgets/initech/tenant", {"usd": "1", "window": "calendar_month"})
    await admin(platform, "PUT", "budgets/initech/web", {"usd": "2", "scope": "project", "of": "web", "window": "1h"})

    async def opened() -> bool:
        shown = (await admin(platform, "GET", "budgets?tenant=initech"))["data"]
        return len(shown) == 3 and all(one["captured_usd"] == "0" and one["renews_at"] is None for one in shown)

    await eventually(opened)
    cost = Decimal(0)
    for key in (old, new):
        body = {"model": "sim", "messages": [{"role": "user", "content": "hi"}], "collegium": {"cache": "off"}}
        headers = {"authorization": f"Bearer {key['key']}"}

        async def answered(headers: Any = headers, body: Any = body) -> Any:
            async with platform.post("/v1/chat/completions", json=body, headers=headers) as response:
                return await response.json() if response.status == 200 else None

        cost += Decimal((await eventually(answered))["collegium"]["cost_usd"])
    assert cost > 0

    async def captured() -> list[Any] | None:
        shown = (await admin(platform, "GET", "budgets"))["data"]
        done = [one for one in shown if Decimal(one["captured_usd"]) == cost and one["held_usd"] == "0"]
        return shown if len(done) == 3 else None

    shown = {one["id"]: one for one in await eventually(captured)}
    assert set(shown) == {"tenant", "web", f"key-{old['id']}"}, "both keys draw on one"
    for one in shown.values():
        assert Decimal(one["remaining_usd"]) == Decimal(one["usd"]) - cost
        assert one["renews_at"] is not None
    single = await admin(platform, "GET", f"budgets/initech/key-{new['id']}")
    assert single == shown[f"key-{old['id']}"]
