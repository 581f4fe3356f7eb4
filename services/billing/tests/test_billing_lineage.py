"""Keys that follow each other by rotation: one budget and one rate for all of them, whoever is told of which key."""

from __future__ import annotations

from typing import Any

from collegium_billing.holds.shardbook import ShardBook
from collegium_billing.identity import budgets, tenancy
from collegium_billing.identity.keys import Key, Tenant
from collegium_billing.identity.tenancy import Project, Standing
from collegium_contracts import subjects as s
from collegium_contracts.holds import Billed, BudgetOpened, RateState
from collegium_contracts.identity import (
    BudgetDelete,
    BudgetList,
    BudgetSet,
    BudgetsReply,
    KeyRotate,
    LimitsReply,
    LimitsSet,
)
from collegium_contracts.money import PICOS_PER_USD
from collegium_contracts.requests import HoldAsk, KeyCreate, KeysReply
from collegium_contracts.state import BudgetRecord, KeyRecord, RateLimits, TenantRecord
from collegium_settings import TenantSettings

NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z
DAY_MS = 86_400_000
FIRST, SECOND, THIRD = "firstkey0001", "secondkey002", "thirdkey0003"


def record(*live: str, limits: RateLimits | None = None) -> TenantRecord:
    lineages = {SECOND: FIRST, THIRD: FIRST}
    return TenantRecord(
        id="acme",
        tier="pro",
        keys=[KeyRecord(id=one, secret_sha256="", limits=limits) for one in live],
        budgets=[BudgetRecord(id="k", scope="key", of=FIRST, limit_picos=25, window_seconds=3600)],
        lineages=lineages,
    )


def shard(standing: TenantRecord) -> ShardBook:
    book = ShardBook(0, lambda _tier: None)
    book.learn(standing)
    for name, budget_id in book.unopened():
        book.open(BudgetOpened(tenant=name, budget=budget_id, spent=[]), NOW)
    return book


def ask(number: int, key_id: str) -> HoldAsk:
    return HoldAsk(task=f"t{number}", tenant="acme", picos=10, key_id=key_id, expires_at_ms=NOW + DAY_MS)


def test_both_keys_of_a_rotation_draw_on_one_budget_during_the_grace_and_after_it() -> None:
    book = shard(record(FIRST))
    assert book.ask(ask(1, FIRST), NOW)[0].code == ""
    book.learn(record(FIRST, SECOND))
    assert book.unopened() == [], "it is the same budget, with what was counted"
    assert book.ask(ask(2, SECOND), NOW)[0].code == ""
    assert [book.ask(ask(3, key), NOW)[0].code for key in (FIRST, SECOND)] == ["insufficient_quota"] * 2
    book.learn(record(SECOND))
    billed = Billed(picos=9, tokens=0, project="default", key_id=FIRST)
    book.settled("t1", "acme", billed, NOW, 1)
    (standing,) = book.standings("acme", NOW)
    assert (standing.captured_picos, standing.held_picos) == (9, 10), "the ended key's task settles in it too"
    assert book.ask(ask(4, SECOND), NOW)[0].code == "insufficient_quota"
    assert book.recent_of("acme", "k", NOW) == [(NOW, 9)]
    assert book.ask(ask(5, "strangerkey1"), NOW)[0].code == "", "another key has nothing to do with it"


def test_both_keys_of_a_rotation_count_in_one_rate() -> None:
    limits = RateLimits(requests_per_minute=2, requests_per_day=4)
    book = shard(record(FIRST, SECOND, limits=limits))
    assert [book.ask(ask(n, key), NOW)[0].rates.remaining_requests for n, key in ((1, FIRST), (2, SECOND))] == [1, 0]
    assert book.ask(ask(3, FIRST), NOW)[0].code == "rate_limited"
    (state,) = (one for one in book.snapshot(1, NOW).rates if one.key_id)
    assert (state.key_id, sum(count for _, count in state.day_requests)) == (FIRST, 2)
    again = shard(record(SECOND, limits=limits))
    # A snapshot of before lineages counted a successor for itself.
    again.tenants["acme"].take_rates(RateState(tenant="acme", key_id=SECOND, day_requests=state.day_requests))
    assert again.ask(ask(4, SECOND), NOW)[0].rates.remaining_requests == 1


def key(key_id: str, **fields: Any) -> Key:
    values = {"tenant": "acme", "secret_sha256": "", "project": "default", "scopes": ("chat",), "name": ""}
    return Key(id=key_id, created_at_ms=NOW, **values | fields)


def test_gateways_and_owners_are_told_the_lineage_for_as_long_as_a_task_may_wait() -> None:
    ends = NOW + DAY_MS
    keys = (
        key(FIRST, expires_at_ms=ends, rotated_to=SECOND),
        key(SECOND, lineage=FIRST, expires_at_ms=ends, rotated_to=THIRD),
        key(THIRD, lineage=FIRST),
        key("foreignkey01"),
    )
    budget = BudgetRecord(id="k", scope="key", of=FIRST, limit_picos=1)
    standing = Standing(
        tenant=Tenant(id="acme", tier="pro", created_at_ms=NOW),
        keys=keys,
        projects=(Project(id="default", tenant="acme", name="", created_at_ms=NOW),),
        budgets=(budget,),
    )
    soon, late = tenancy.record(standing, ends + DAY_MS), tenancy.record(standing, ends + 33 * DAY_MS)
    assert soon.lineages == {SECOND: FIRST, THIRD: FIRST}
    assert late.lineages == {THIRD: FIRST}
    assert late.budgets == [budget], "it outlives its first key"
    assert budgets.of_lineage(standing, BudgetRecord(id=f"key-{THIRD}", scope="key", of=THIRD, limit_picos=2)) == (
        BudgetRecord(id=f"key-{FIRST}", scope="key", of=FIRST, limit_picos=2)
    )


async def test_budgets_and_limits_of_a_rotated_key_are_set_shown_and_removed_by_either_key(world: Any) -> None:
    await world.billing(TenantSettings(id="acme", tier="pro"))
    made = await world.ask(
        s.SVC_BILLING_KEY_CREATE,
        KeyCreate(tenant="acme", scopes=["chat"], budget=BudgetSet(tenant="", usd="7")),
        KeysReply,
    )
    old = made.keys[0].id
    new = (await world.ask(s.SVC_BILLING_KEY_ROTATE, KeyRotate(key_id=old, grace_seconds=0), KeysReply)).keys[0].id
    third = (await world.ask(s.SVC_BILLING_KEY_ROTATE, KeyRotate(key_id=new), KeysReply)).keys[0].id
    standing = await world.record("acme")
    assert standing.lineages == {new: old, third: old}
    assert [(one.id, one.of) for one in standing.budgets] == [(f"key-{old}", old)], "one, though its first key ended"

    question = BudgetSet(tenant="acme", budget=f"key-{third}", usd="9", scope="key", of=third)
    await world.ask(s.SVC_BILLING_BUDGET_SET, question, BudgetsReply)
    for name in (old, new, third):
        shown = await world.ask(
            s.SVC_BILLING_BUDGET_LIST, BudgetList(tenant="acme", budget=f"key-{name}"), BudgetsReply
        )
        assert [(one.budget.id, one.budget.limit_picos) for one in shown.budgets] == [(f"key-{old}", 9 * PICOS_PER_USD)]

    limits = RateLimits(requests_per_minute=3)
    await world.ask(s.SVC_BILLING_LIMITS_SET, LimitsSet(key_id=new, limits=limits), LimitsReply)
    assert {one.id: one.limits for one in (await world.record("acme")).keys} == {new: limits, third: limits}

    await world.ask(s.SVC_BILLING_BUDGET_DELETE, BudgetDelete(tenant="acme", budget=f"key-{third}"), BudgetsReply)
    assert (await world.record("acme")).budgets == []
