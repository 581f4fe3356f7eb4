"""Tenants, projects, keys, limits and budgets: what is kept, published and refused, on a real broker and database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_billing.identity.budgets import BUDGETS_MAX
from collegium_billing.identity.keys import Key, Tenant
from collegium_billing.identity.store import IdentityStore
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import subjects as s
from collegium_contracts.identity import (
    BudgetDelete,
    BudgetList,
    BudgetSet,
    BudgetsReply,
    KeyRotate,
    KeysUsed,
    LimitsReply,
    LimitsSet,
    Noted,
    ProjectArchive,
    ProjectCreate,
    ProjectList,
    ProjectsReply,
    Reach,
    TenantChange,
)
from collegium_contracts.money import PICOS_PER_USD
from collegium_contracts.requests import (
    KeyCreate,
    KeyList,
    KeyRevoke,
    KeysReply,
    TenantList,
    TenantsReply,
)
from collegium_contracts.state import MAX_BUDGET_PICOS, RateLimits
from collegium_runtime.platform import unix_ms
from collegium_settings import Secret, TenantSettings
from collegium_settings.settings import BudgetSettings, KeySettings, ProjectSettings, RateLimitSettings
from collegium_store import open_pool

FIRST_KEY = "sk-clg-acmekey00001-" + "a" * 48
SECOND_KEY = "sk-clg-acmekey00002-" + "b" * 48
ACME = TenantSettings(id="acme", tier="pro", api_key=Secret(FIRST_KEY))
ENDS_MS = unix_ms() + 86_400_000
OTHER = TenantSettings(id="other", tier="free", api_key=Secret("sk-clg-otherkey0001-" + "c" * 48))


class Billing:
    """Billing's answers by name."""

    def __init__(self, world: Any) -> None:
        self._world = world

    async def key(self, **fields: Any) -> tuple[Any, str]:
        question = KeyCreate(**({"tenant": "acme", "scopes": ["chat"]} | fields))
        made = await self._world.ask(s.SVC_BILLING_KEY_CREATE, question, KeysReply)
        return made.keys[0], made.secret_key

    async def keys(self) -> dict[str, Any]:
        listed = await self._world.ask(s.SVC_BILLING_KEY_LIST, KeyList(tenant="acme"), KeysReply)
        return {row.id: row for row in listed.keys}

    async def rotate(self, key_id: str, grace_seconds: int = 3600, **fields: Any) -> Any:
        question = KeyRotate(key_id=key_id, grace_seconds=grace_seconds, **fields)
        return (await self._world.ask(s.SVC_BILLING_KEY_ROTATE, question, KeysReply)).keys[0]

    async def revoke(self, key_id: str, **fields: Any) -> Any:
        question = KeyRevoke(key_id=key_id, **fields)
        return (await self._world.ask(s.SVC_BILLING_KEY_REVOKE, question, KeysReply)).keys[0]

    async def change(self, tenant: str = "acme", **fields: Any) -> Any:
        question = TenantChange(tenant=tenant, **fields)
        return (await self._world.ask(s.SVC_BILLING_TENANT_CHANGE, question, TenantsReply)).tenants[0]

    async def project(self, project: str, tenant: str = "acme") -> Any:
        question = ProjectCreate(tenant=tenant, project=project)
        return (await self._world.ask(s.SVC_BILLING_PROJECT_CREATE, question, ProjectsReply)).projects[0]

    async def archive(self, project: str, *, archived: bool = True) -> Any:
        question = ProjectArchive(tenant="acme", project=project, archived=archived)
        return (await self._world.ask(s.SVC_BILLING_PROJECT_ARCHIVE, question, ProjectsReply)).projects[0]

    async def limits(self, **fields: Any) -> LimitsReply:
        return await self._world.ask(s.SVC_BILLING_LIMITS_SET, LimitsSet(**fields), LimitsReply)

    async def budget(self, usd: str = "25.00", **fields: Any) -> Any:
        question = BudgetSet(**({"tenant": "acme", "usd": usd} | fields))
        return (await self._world.ask(s.SVC_BILLING_BUDGET_SET, question, BudgetsReply)).budgets[0].budget

    async def budgets(self, tenant: str | None = "acme") -> list[Any]:
        return (await self._world.ask(s.SVC_BILLING_BUDGET_LIST, BudgetList(tenant=tenant), BudgetsReply)).budgets


@pytest.fixture
async def billing(world: Any) -> Billing:
    await world.billing(ACME, OTHER)
    return Billing(world)


async def refused(asking: Awaitable[Any]) -> tuple[str, str | None]:
    with pytest.raises(RequestRefusedError) as refusal:
        await asking
    return refusal.value.code, refusal.value.param


async def test_a_key_has_rights_of_its_own_and_gateways_see_them(world: Any, billing: Billing) -> None:
    limits = RateLimits(requests_per_minute=5)
    row, _ = await billing.key(
        models=["m", "m", "n"], expires_at_ms=ENDS_MS, limits=limits, budget=BudgetSet(tenant="", usd="1.5")
    )
    record = await world.record("acme")
    key = next(one for one in record.keys if one.id == row.id)
    assert (key.models, key.expires_at_ms, key.limits) == (["m", "n"], ENDS_MS, limits)
    assert [(one.id, one.scope, one.of, one.limit_picos) for one in record.budgets] == [
        (f"key-{row.id}", "key", row.id, 3 * PICOS_PER_USD // 2)
    ]


async def test_a_refused_budget_leaves_no_key_behind(world: Any, billing: Billing) -> None:
    before = await billing.keys()
    assert await refused(billing.key(budget=BudgetSet(tenant="acme", usd="-1"))) == ("invalid_value", "usd")
    assert await billing.keys() == before


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"scopes": ["root"]}, "scopes"),
        ({"models": ["../../etc"]}, "models"),
        ({"models": [f"m{n}" for n in range(21)]}, "models"),
        ({"expires_at_ms": 1}, "expires_at"),
        ({"expires_at_ms": -1}, "expires_at"),
        ({"expires_at_ms": 2**60}, "expires_at"),
        ({"limits": RateLimits(concurrency=0)}, "concurrency"),
        ({"limits": RateLimits(requests_per_day=-5)}, "requests_per_day"),
        ({"limits": RateLimits(token_window_seconds=1)}, "token_window_seconds"),
        ({"role": "owner"}, "role"),
        ({"role": "owner", "scopes": ["admin"]}, "role"),
        ({"role": "root", "scopes": ["admin"]}, "role"),
        ({"project": "../default"}, "project"),
        ({"tenant": "../acme"}, "tenant"),
        ({"tenant": "acme\r\nx: y"}, "tenant"),
    ],
)
async def test_a_key_with_bad_rights_is_refused_and_nothing_changes(
    billing: Billing, fields: dict[str, Any], param: str
) -> None:
    before = await billing.keys()
    assert await refused(billing.key(**fields)) == ("invalid_value", param)
    assert await billing.keys() == before


async def test_a_key_belongs_to_a_project_that_stands(billing: Billing, world: Any) -> None:
    assert await refused(billing.key(project="web")) == ("not_found", "project")
    await billing.project("web")
    assert await refused(billing.project("web")) == ("already_exists", "project")
    row, _ = await billing.key(project="web")
    await billing.archive("web")
    assert await refused(billing.key(project="web")) == ("invalid_value", "project")
    record = await world.record("acme")
    assert record.projects == ["default"]
    assert row.id in {key.id for key in record.keys}, "its keys go on"
    assert (await billing.archive("web", archived=False)).archived_at_ms is None
    await billing.key(project="web")
    assert await refused(billing.archive("default")) == ("invalid_value", "project")
    listed = await world.ask(s.SVC_BILLING_PROJECT_LIST, ProjectList(tenant="acme"), ProjectsReply)
    assert [(one.id, one.keys) for one in listed.projects] == [("default", 1), ("web", 2)]


async def test_a_rotated_key_has_a_successor_with_its_rights_and_ends_after_its_grace(
    world: Any, billing: Billing
) -> None:
    old, _ = await billing.key(models=["m"], budget=BudgetSet(tenant="", usd="7"), scopes=["chat", "usage"])
    new = await billing.rotate(old.id, 3600)
    assert (new.models, new.scopes, new.project) == (old.models, old.scopes, old.project)
    known = {key.id: key for key in (await world.record("acme")).keys}
    assert known[new.id].expires_at_ms == 0
    assert known[old.id].expires_at_ms > 0
    assert known[old.id].secret_sha256 != known[new.id].secret_sha256
    assert (await billing.keys())[old.id].rotated_to == new.id
    assert {one.budget.of: one.budget.limit_picos for one in await billing.budgets()} == {old.id: 7 * PICOS_PER_USD}
    assert await refused(billing.rotate(old.id)) == ("already_exists", "key_id")
    assert await refused(billing.rotate(new.id, -1)) == ("invalid_value", "grace_seconds")
    at_once = await billing.rotate(new.id, 0)
    live = {key.id for key in (await world.record("acme")).keys}
    assert new.id not in live
    assert at_once.id in live


async def test_a_key_of_another_tenant_is_as_if_it_were_absent(billing: Billing) -> None:
    foreign = Reach(tenant="other", owners=False, scopes=["admin", "chat"])
    assert await refused(billing.revoke("acmekey00001", reach=foreign)) == ("not_found", "key_id")
    assert await refused(billing.rotate("acmekey00001", reach=foreign)) == ("not_found", "key_id")
    assert await refused(billing.limits(key_id="acmekey00001", reach=foreign)) == ("not_found", "key_id")
    assert (await billing.keys())["acmekey00001"].revoked_at_ms is None


async def test_nobody_gives_away_more_than_they_have(billing: Billing) -> None:
    member = Reach(tenant="acme", owners=False, scopes=["admin", "chat"])
    assert (await refused(billing.key(scopes=["usage"], reach=member)))[0] == "insufficient_role"
    assert (await refused(billing.rotate("acmekey00001", reach=member)))[0] == "insufficient_role"
    assert (await billing.revoke("acmekey00001", reach=member)).revoked_at_ms is not None


async def test_keys_of_owners_are_owners_business(billing: Billing) -> None:
    operator = Reach(owners=False)
    owners = {"tenant": "operator", "scopes": ["admin"]}
    assert (await refused(billing.key(**owners, reach=operator)))[0] == "insufficient_role"
    key, _ = await billing.key(**owners, reach=Reach())
    for attempt in (billing.revoke(key.id, reach=operator), billing.rotate(key.id, reach=operator)):
        assert (await refused(attempt))[0] == "insufficient_role"
    auditor, _ = await billing.key(**owners, role="auditor", reach=operator)
    assert (await billing.revoke(auditor.id, reach=operator)).revoked_at_ms is not None


async def test_a_tenant_is_suspended_resumed_and_moved(world: Any, billing: Billing) -> None:
    assert (await billing.change(state="suspended")).state == "suspended"
    record = await world.record("acme")
    assert (record.state, len(record.keys)) == ("suspended", 1)
    assert (await billing.change(state="active", tier="enterprise")).tier == "enterprise"
    record = await world.record("acme")
    assert (record.state, record.tier) == ("active", "enterprise")
    assert await refused(billing.change(tier="gold")) == ("invalid_value", "tier")
    assert await refused(billing.change(tenant="absent", tier="pro")) == ("not_found", "tenant")
    for state in ("suspended", "deleted"):
        assert await refused(billing.change(tenant="operator", state=state)) == ("invalid_value", "tenant")


async def test_a_deleted_tenant_is_marked_its_keys_are_revoked_and_it_stays_so(world: Any) -> None:
    app = await world.billing(ACME, OTHER)
    billing = Billing(world)
    await billing.budget()
    assert (await billing.change(state="deleted")).state == "deleted"
    record = await world.record("acme")
    assert (record.state, record.keys, record.budgets, record.projects) == ("deleted", [], [], [])
    assert all(row.revoked_at_ms for row in (await billing.keys()).values())
    assert await refused(billing.key()) == ("not_found", "tenant")
    assert await refused(billing.budget()) == ("not_found", "tenant")
    assert await refused(billing.change(state="active")) == ("not_found", "tenant")
    assert (await billing.change(state="deleted")).state == "deleted"
    await app.stop()
    await world.billing(ACME, OTHER)
    assert (await world.record("acme")).state == "deleted", "the configuration does not bring it back"


async def test_limits_are_set_shown_published_and_removed(world: Any, billing: Billing) -> None:
    limits = RateLimits(requests_per_minute=60, tokens_per_window=10**6, token_window_seconds=3600)
    assert (await billing.limits(tenant="acme", limits=limits)).limits == limits
    assert (await billing.limits(key_id="acmekey00001", limits=limits)).tenant == "acme"
    record = await world.record("acme")
    assert (record.limits, record.keys[0].limits) == (limits, limits)
    shown = await world.ask(s.SVC_BILLING_TENANT_LIST, TenantList(tenant="acme"), TenantsReply)
    assert shown.tenants[0].limits == limits
    assert (await billing.limits(tenant="acme", limits=RateLimits())).limits is None
    await billing.limits(key_id="acmekey00001")
    record = await world.record("acme")
    assert (record.limits, record.keys[0].limits) == (None, None)
    assert await refused(billing.limits(tenant="../acme", limits=limits)) == ("invalid_value", "tenant")


async def test_budgets_are_set_changed_listed_deleted_and_published(world: Any, billing: Billing) -> None:
    made = await billing.budget("0.000000000001", alert_percents=[100, 80, 80])
    assert (made.id, made.limit_picos, made.alert_percents) == ("tenant", 1, [80, 100])
    await billing.project("web")
    await billing.budget("9000000", scope="project", of="web", window="calendar_month")
    changed = await billing.budget("25.5", window_seconds=3600)
    assert (await world.record("acme")).budgets == [
        msgspec.structs.replace(changed, id="project-web", scope="project", of="web", limit_picos=MAX_BUDGET_PICOS,
                                window="calendar_month", window_seconds=30 * 86_400),
        changed,
    ]  # fmt: skip
    assert [one.budget for one in await billing.budgets()] == (await world.record("acme")).budgets
    assert await billing.budgets("other") == []
    gone = await world.ask(s.SVC_BILLING_BUDGET_DELETE, BudgetDelete(tenant="acme", budget="tenant"), BudgetsReply)
    assert gone.budgets[0].budget == changed
    again = world.ask(s.SVC_BILLING_BUDGET_DELETE, BudgetDelete(tenant="acme", budget="tenant"), BudgetsReply)
    assert await refused(again) == ("not_found", "id")
    assert [one.id for one in (await world.record("acme")).budgets] == ["project-web"]


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"usd": "-1"}, ("invalid_value", "usd")),
        ({"usd": "0"}, ("invalid_value", "usd")),
        ({"usd": "0.000"}, ("invalid_value", "usd")),
        ({"usd": "9000000.000000000001"}, ("invalid_value", "usd")),
        ({"usd": "9" * 40}, ("invalid_value", "usd")),
        ({"usd": "9" * 5000}, ("invalid_value", "usd")),
        ({"usd": "0.0000000000001"}, ("invalid_value", "usd")),
        ({"usd": "1e3"}, ("invalid_value", "usd")),
        ({"usd": "NaN"}, ("invalid_value", "usd")),
        ({"usd": "1\n"}, ("invalid_value", "usd")),
        ({"usd": "١"}, ("invalid_value", "usd")),
        ({"budget": "../x"}, ("invalid_value", "id")),
        ({"scope": "project", "of": "absent"}, ("not_found", "of")),
        ({"scope": "key", "of": "otherkey0001"}, ("not_found", "of")),
        ({"scope": "key"}, ("invalid_value", "of")),
        ({"of": "x"}, ("invalid_value", "of")),
        ({"window_seconds": 0}, ("invalid_value", "window")),
        ({"window_seconds": 2**40}, ("invalid_value", "window")),
        ({"alert_percents": [0]}, ("invalid_value", "alert_percents")),
        ({"alert_percents": list(range(1, 20))}, ("invalid_value", "alert_percents")),
        ({"tenant": "absent"}, ("not_found", "tenant")),
    ],
)
async def test_a_bad_budget_is_refused_and_nothing_changes(
    billing: Billing, fields: dict[str, Any], refusal: tuple[str, str]
) -> None:
    standing = await billing.budget("3")
    assert await refused(billing.budget(**fields)) == refusal
    assert [one.budget for one in await billing.budgets(None)] == [standing]


async def test_budgets_have_a_number(world: Any, billing: Billing) -> None:
    store = IdentityStore(world.pool)
    budget = await billing.budget("1")
    async with store.change("acme", 1) as change:
        assert change is not None
        for number in range(1, BUDGETS_MAX):
            await change.set_budget(msgspec.structs.replace(budget, id=f"b{number}"))
    assert await refused(billing.budget("1", budget="onemore")) == ("invalid_value", "tenant")
    await billing.budget("2")


async def test_what_gateways_could_not_follow_is_refused(world: Any, billing: Billing) -> None:
    store = IdentityStore(world.pool)
    models = tuple(f"{number:0>128}" for number in range(32))
    key = Key(
        id="k0000000", tenant="acme", secret_sha256="0" * 64, project="default", scopes=("chat",), name="",
        created_at_ms=1, models=models,
    )  # fmt: skip
    async with store.change("acme", 1) as change:
        assert change is not None
        for number in range(55):
            assert await change.add_key(msgspec.structs.replace(key, id=f"k{number:07}"))
    before = await billing.keys()
    fits = True
    for _ in range(10):
        try:
            await billing.key(models=[f"m{number:0>127}" for number in range(20)])
        except RequestRefusedError as reply:
            fits = (reply.code, reply.param) != ("invalid_value", "tenant")
            break
    assert not fits
    assert len(await billing.keys()) - len(before) < 10
    assert (await billing.revoke("k0000000")).revoked_at_ms is not None, "what makes it smaller is not refused"


async def test_when_a_key_was_used_last_is_noted(world: Any, billing: Billing) -> None:
    assert (await billing.keys())["acmekey00001"].last_used_at_ms is None
    for at_ms in (2_000, 1_000):
        told = KeysUsed(keys=["acmekey00001", "absent000"], at_ms=at_ms)
        await world.ask(s.SVC_BILLING_KEYS_USED, told, Noted)
    assert (await billing.keys())["acmekey00001"].last_used_at_ms == 2_000


async def test_the_configuration_makes_what_is_absent_and_overwrites_nothing(world: Any) -> None:
    budget = BudgetSettings(usd=Decimal("25.00"), window_seconds=86_400)
    configured = msgspec.structs.replace(
        ACME,
        budget=budget,
        limits=RateLimitSettings(concurrency=3),
        projects=(ProjectSettings(id="web", budget=budget),),
        keys=(KeySettings(api_key=Secret(SECOND_KEY), project="web", models=("m",), budget=budget),),
    )
    app = await world.billing(configured)
    record = await world.record("acme")
    assert [(one.id, one.limit_picos) for one in record.budgets] == [
        ("key-acmekey00002", 25 * PICOS_PER_USD), ("project-web", 25 * PICOS_PER_USD), ("tenant", 25 * PICOS_PER_USD),
    ]  # fmt: skip
    assert (record.projects, record.limits) == (["default", "web"], RateLimits(concurrency=3))
    assert [(key.id, key.project, key.models) for key in record.keys] == [
        ("acmekey00001", "default", []), ("acmekey00002", "web", ["m"]),
    ]  # fmt: skip
    billing = Billing(world)
    await billing.budget("1")
    await billing.revoke("acmekey00002")
    standing = await world.record("acme")
    await app.stop()
    await world.billing(configured)
    assert await world.record("acme") == standing


async def test_two_changes_at_once_keep_the_limit_of_keys(database_url: str, world: Any) -> None:
    await world.billing(ACME)
    pool = await open_pool(world.database_url, application_name="test", max_size=4)
    store = IdentityStore(pool)

    async def add(number: int) -> int:
        async with store.change("acme", 1) as change:
            assert change is not None
            before = len(change.before.keys)
            key = msgspec.structs.replace(change.before.keys[0], id=f"k{number:07}")
            assert await change.add_key(key)
            return before

    assert sorted(await asyncio.gather(*(add(number) for number in range(8)))) == list(range(1, 9))
    await pool.close()


async def test_a_tenant_is_not_made_without_its_first_key(world: Any) -> None:
    store = IdentityStore(world.pool)
    await world.billing()

    def tenant(name: str) -> tuple[Tenant, Key]:
        key = Key(
            id="samekey0", tenant=name, secret_sha256=name, project="default", scopes=("chat",), name="",
            created_at_ms=7,
        )  # fmt: skip
        return Tenant(id=name, tier="pro", created_at_ms=5), key

    assert await store.create_tenant(*tenant("first"))
    assert not await store.create_tenant(*tenant("second"))
    assert await store.tenant("second") is None
    assert await store.key("samekey0") == tenant("first")[1]


async def test_nothing_of_a_change_that_raises_is_kept(world: Any, billing: Billing) -> None:
    store = IdentityStore(world.pool)

    async def fail() -> None:
        async with store.change("acme", 1) as change:
            assert change is not None
            await change.set_tenant(tier="free", state="suspended")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert (await store.tenant("acme")).state == "active"
    with pytest.raises(asyncpg.CheckViolationError):
        await world.pool.execute("UPDATE billing.tenants SET state = 'gone'")
