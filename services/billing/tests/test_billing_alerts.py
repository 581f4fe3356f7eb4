"""Budgets' alerts: once a threshold and window, posted until taken; and the purge, which no report notices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from collegium_billing.books.booking import book
from collegium_billing.books.purging import Purging, horizon_ms
from collegium_billing.books.store import Store
from collegium_billing.books.sums import DAY_MS, HOUR_MS
from collegium_billing.holds.spending import Spending
from collegium_billing.reports import alerts
from collegium_billing.reports.alert_store import AlertStore
from collegium_billing.reports.alerting import Alerting
from collegium_billing.reports.usage import UsageQuery
from collegium_billing.reports.usage_store import UsageStore
from collegium_contracts.scope import AllTenants
from collegium_contracts.state import BudgetRecord
from collegium_contracts.webhooks import key_of, signature
from collegium_settings import Settings
from collegium_settings.secret import Secret
from collegium_settings.settings import AlertSettings, RequestLogSettings

ALL = AllTenants("a test")
SECRET = "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldY"


def budget(**fields: Any) -> BudgetRecord:
    return BudgetRecord(**({"id": "b", "scope": "tenant", "limit_picos": 100, "alert_percents": [50, 100]} | fields))


@pytest.mark.parametrize(
    ("used", "limit", "percents"),
    [(0, 0, []), (1, 0, [50, 100]), (49, 100, []), (50, 100, [50]), (100, 100, [50, 100])],
)
def test_a_threshold_is_reached_exactly(used: int, limit: int, percents: list[int]) -> None:
    assert alerts.passed(budget(limit_picos=limit), used) == percents


def test_windows_begin_where_their_calendar_says(make: Any) -> None:
    now = make.now_ms + 40 * DAY_MS + 5  # 2026-02-10
    month = alerts.window_of(budget(window="calendar_month"), now)
    assert month == (make.now_ms + 31 * DAY_MS, now + 1000, make.now_ms + 31 * DAY_MS)
    day = alerts.window_of(budget(window="calendar_day"), now)
    assert day.from_ms == day.began_at_ms == make.now_ms + 40 * DAY_MS
    rolling = alerts.window_of(budget(window_seconds=90), now)
    assert rolling == (make.now_ms + 40 * DAY_MS - HOUR_MS, now + 1000, 0)


class Receiver:
    """Takes webhooks; answers with what ``statuses`` holds, then 200."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield receiver
    await runner.cleanup()


async def test_a_passed_threshold_is_told_once_and_posted_until_taken(world: Any, receiver: Receiver) -> None:
    make, platform = world.make, await world.platform()
    clock = [make.now_ms + HOUR_MS]
    settings = AlertSettings(webhook_url=receiver.url, webhook_secret=Secret(SECRET))
    platform.settings = msgspec.structs.replace(platform.settings, alerts=settings)
    platform.now_ms = lambda: clock[0]
    alerting = Alerting(platform, UsageStore(world.pool), AlertStore(world.pool))
    budgets = {"acme": [budget(), budget(id="p", scope="project", of="other", window="calendar_day")]}
    await Store(world.pool).book(book([make.settled(make.task("a"), [make.call()], charge=60)]), [])

    receiver.statuses = [503]
    for _ in range(2):
        await alerting.look(budgets)
        await alerting.post()
    assert len(receiver.got) == 1
    clock[0] += 10_000
    await alerting.post()
    await alerting.post()
    assert len(receiver.got) == 2
    (first, body), (again, same_body) = receiver.got
    assert (first["webhook-id"], body) == (again["webhook-id"], same_body)
    signed = signature(key_of(SECRET), again["webhook-id"], int(again["webhook-timestamp"]), same_body)
    assert again["webhook-signature"] == signed
    told = msgspec.json.decode(body)
    assert told["type"] == "budget.threshold"
    assert (told["data"]["budget"], told["data"]["percent"], told["data"]["used_usd"]) == ("b", 50, "0.00000000006")
    value = platform.metrics.registry.get_sample_value
    assert value("collegium_budget_used_ratio", {"tenant": "acme", "budget": "b"}) == 0.6
    assert value("collegium_budget_used_ratio", {"tenant": "acme", "budget": "p"}) == 0

    # The rolling window has passed, and is filled anew.
    clock[0] += 31 * DAY_MS
    await alerting.look(budgets)
    late = make.settled(make.task("b"), [make.call()], charge=100, at_ms=clock[0])
    await Store(world.pool).book(book([late]), [])
    await alerting.look(budgets)
    await alerting.post()
    assert [msgspec.json.decode(body)["data"]["percent"] for _, body in receiver.got[2:]] == [50, 100]


async def test_what_is_purged_is_still_in_the_report(world: Any) -> None:
    make = world.make
    for number, at_ms in enumerate((0, 40 * DAY_MS, 60 * DAY_MS)):
        task = make.task(str(number))
        events = [make.started(task, at_ms=make.now_ms + at_ms)]
        events.append(make.settled(task, [make.call()], at_ms=make.now_ms + at_ms))
        await Store(world.pool).book(book(events), [])
    now = make.now_ms + 61 * DAY_MS
    reports = UsageStore(world.pool)
    whole = UsageQuery(ALL, make.now_ms, make.now_ms + 62 * DAY_MS, ("day", "model"))
    before = await reports.usage(whole, now)
    purging = Purging(world.pool, lambda: now, Settings)
    assert await purging.purge() == 3
    assert await purging.purge() == 0
    assert await world.count("billing.tasks") == await world.count("billing.starts") == 2
    assert await reports.usage(whole, now) == before
    # As many days as are kept, up to now, are read to the millisecond.
    assert horizon_ms(now, 30) <= now - 30 * DAY_MS - HOUR_MS
    await reports.usage(UsageQuery(ALL, now - 30 * DAY_MS + 1, now, ()), now)


async def test_what_is_purged_still_counts_against_budgets(world: Any) -> None:
    make = world.make
    now = make.now_ms + 40 * DAY_MS
    for number, (days, charge) in enumerate(((0, 1), (1, 10), (20, 100), (39, 1000))):
        task = make.task(str(number), project="web" if days == 1 else "default")
        settled = make.settled(task, [make.call()], charge=charge, at_ms=make.now_ms + days * DAY_MS + 1_234_567)
        await Store(world.pool).book(book([settled]), [])
    spending = Spending(world.pool)
    budgets = [
        budget(window_seconds=50 * 86_400),
        budget(window_seconds=39 * 86_400),
        budget(window_seconds=38 * 86_400),
        budget(window_seconds=50 * 86_400, scope="project", of="web"),
        budget(window_seconds=50 * 86_400, scope="key", of="other"),
    ]

    async def spent() -> list[int]:
        return [sum(picos for _, picos in await spending.spent("acme", one, now, now)) for one in budgets]

    assert await spent() == [1111, 1110, 1100, 10, 0]
    assert (
        await Purging(world.pool, lambda: now, lambda: Settings(requests=RequestLogSettings(retention_days=7))).purge()
        > 0
    )
    assert await world.count("billing.tasks") == 1
    assert await spent() == [1111, 1110, 1100, 10, 0]
    [(first_ms, _), *_] = await spending.spent("acme", budgets[2], now, now)
    assert first_ms >= make.now_ms + 19 * DAY_MS
