"""Billing as a service, against a real broker and a real database."""

import asyncio
import random
import stat
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import pytest
from collegium_billing.books.booking import book
from collegium_billing.books.fold import SPAN_BOOK, Event, Fold
from collegium_billing.books.store import Store
from collegium_billing.errors import KeyConflictError
from collegium_billing.identity import keys
from collegium_billing.reports.usage import DAY_MS
from collegium_bus.direct import DirectReader
from collegium_bus.errors import RequestRefusedError
from collegium_bus.events import EventLoop
from collegium_bus.kv import Bucket, Entry
from collegium_contracts import codec, consumers
from collegium_contracts import subjects as s
from collegium_contracts.messages import DeadLetter, JourneyMessage
from collegium_contracts.money import picos_to_usd
from collegium_contracts.requests import (
    KeyCreate,
    KeyList,
    KeyRevoke,
    KeysReply,
    PossibleSpendReply,
    PossibleSpendRequest,
    TenantCreate,
    TenantList,
    TenantsReply,
    UsageReply,
    UsageRequest,
)
from collegium_contracts.scope import AllTenants
from collegium_contracts.state import TenantRecord
from collegium_runtime.platform import Platform
from collegium_settings import Secret, TenantSettings
from collegium_settings.settings import TenantCacheSettings
from collegium_telemetry.tracing import setup
from collegium_testing.eventually import eventually
from collegium_testing.otlp import OtlpReceiver

FIRST_KEY = "sk-clg-acmekey00001-" + "a" * 48
ACME = TenantSettings(id="acme", tier="pro", api_key=Secret(FIRST_KEY))
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


async def refused(asking: Awaitable[Any]) -> tuple[str, str | None]:
    with pytest.raises(RequestRefusedError) as refusal:
        await asking
    return refusal.value.code, refusal.value.param


async def test_events_are_booked_archived_and_reported(world: Any) -> None:
    await world.billing(ACME)
    make, task = world.make, world.make.task("a", tags={"team": "x"})
    await world.publish(make.started(task))
    await world.publish(make.settled(task, [make.call(cost=5)], charge=6))
    await eventually(lambda: world.count("billing.tasks"))

    question = UsageRequest(
        tenant="acme", from_ms=make.now_ms, to_ms=make.now_ms + DAY_MS, group_by=["tenant", "tag", "day"]
    )
    answer = await world.ask(s.SVC_BILLING_USAGE, question, UsageReply)
    assert [row.group for row in answer.rows] == [{"tenant": "acme", "tag": "team=x", "day": "2026-01-01"}]
    assert answer.rows[0].figures == answer.totals
    assert (answer.totals.cost_usd, answer.totals.charged_usd) == (picos_to_usd(5), picos_to_usd(6))
    assert await Store(world.pool).possible_spend(AllTenants("a test"), make.now_ms, make.now_ms + 1) == []
    await eventually(lambda: world.count("archive.events"))


async def test_a_call_without_an_end_is_listed_as_possible_spend(world: Any) -> None:
    await world.billing(ACME)
    make = world.make
    lost, other = make.task("a"), make.task("b", tenant="other")
    for started in (make.started(lost, delivery=2), make.started(other)):
        await world.publish(started)
    await eventually(lambda: world.count("billing.starts"))
    window = {"from_ms": make.now_ms, "to_ms": make.now_ms + DAY_MS}

    async def both() -> bool:
        everybody = PossibleSpendRequest(tenant=None, **window)
        reply = await world.ask(s.SVC_BILLING_POSSIBLE_SPEND, everybody, PossibleSpendReply)
        return len(reply.rows) == 2

    await eventually(both)
    question = PossibleSpendRequest(tenant="acme", **window)
    answer = await world.ask(s.SVC_BILLING_POSSIBLE_SPEND, question, PossibleSpendReply)
    assert [(row.task_id, row.attempt, row.delivery) for row in answer.rows] == [(lost.id, 1, 2)]
    assert (answer.rows[0].started_at_ms, answer.is_cut) == (make.now_ms, False)
    backwards = PossibleSpendRequest(tenant="acme", from_ms=2, to_ms=1)
    asking = world.ask(s.SVC_BILLING_POSSIBLE_SPEND, backwards, PossibleSpendReply)
    assert await refused(asking) == ("invalid_value", "from")


async def test_what_was_committed_and_not_acknowledged_comes_again_and_changes_nothing(
    world: Any, rng: random.Random
) -> None:
    make = world.make
    history = [event for number in range(30) for event in make.a_history(number, rng)]
    for event in history:
        await world.publish(event)
    platform = await world.platform()
    fold = Fold(Store(world.pool), platform.dead_letters, platform.tracing, platform.metrics)
    committed: list[int] = []
    again: list[int] = []
    forever = asyncio.Event()

    async def dies_after_its_commit(batch: Sequence[Event]) -> None:
        await fold.handle(batch)
        committed.extend(event.sequence for event in batch)
        await forever.wait()

    async def lives(batch: Sequence[Event]) -> None:
        await fold.handle(batch)
        again.extend(event.sequence for event in batch)

    first = event_loop(platform, dies_after_its_commit)
    first.start()
    await eventually(lambda: committed)
    await first.stop()

    second = event_loop(platform, lives)
    second.start()
    await eventually(lambda: set(again) >= set(range(1, len(history) + 1)))
    await second.stop()

    assert set(committed) <= set(again), "what was committed without an acknowledgement has to come again"
    assert await world.count("archive.events") == len(history)
    booked_picos = sum(int(row.cost_picos) for row in book(history).attempts if row.model == "m1")
    counted_usd = platform.metrics.registry.get_sample_value("collegium_cost_usd_total", {"model": "m1"})
    found = await books_of(world.pool)
    await world.pool.execute("TRUNCATE billing.starts, billing.attempts, billing.tasks")
    await Store(world.pool).book(book(history), [])
    assert found == await books_of(world.pool)
    assert counted_usd == pytest.approx(booked_picos / 10**12)


def event_loop(platform: Platform, handle: Callable[[Sequence[Event]], Awaitable[None]]) -> EventLoop[JourneyMessage]:
    return EventLoop(
        platform.connection,
        consumers.consumer("billing"),
        codec.journey,
        handle,
        platform.dead_letters,
        max_batch=20,
    )


async def books_of(pool: asyncpg.Pool) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table: [
            tuple(value for name, value in row.items() if not name.startswith("earlier_"))
            for row in await pool.fetch(f"SELECT * FROM {table} ORDER BY 1, 2, 3")
        ]
        for table in ("billing.starts", "billing.attempts", "billing.tasks")
    }


@pytest.mark.parametrize("fault", [{"duration_ms": 2**63}, {"cost": -5}])
async def test_an_event_that_cannot_be_booked_is_buried_and_the_rest_goes_on(world: Any, fault: dict[str, int]) -> None:
    make = world.make
    await world.publish(make.started(make.task("a")))
    await world.publish(make.settled(make.task("b"), [make.call(**fault)]))
    await world.publish(make.settled(make.task("c"), [make.call()]))
    await world.worker.publish("task.settled.acme.d", b"\xff no message", message_id="")
    await world.billing()

    await eventually(lambda: world.count("billing.tasks"))
    unbookable = await eventually(lambda: dead_letter(world, "acme"))
    assert (unbookable.cause, unbookable.subject) == ("unbookable", s.task_settled("acme", make.task("b").id))
    assert not any(str(value) in unbookable.detail for value in fault.values())
    undecodable = await eventually(lambda: dead_letter(world, ""))
    assert (undecodable.cause, undecodable.payload) == ("undecodable_message", b"\xff no message")
    assert await world.count("archive.events") == 2
    assert await world.count("billing.starts") == 1


async def dead_letter(world: Any, tenant: str) -> DeadLetter | None:
    stored = await DirectReader(world.gateway).last(s.DEAD, s.dead("billing", tenant))
    if stored is None:
        return None
    letter = codec.journey.decode(stored.payload)
    assert isinstance(letter, DeadLetter)
    return letter


async def test_tenants_and_keys_of_the_configuration_are_made_once_and_never_overwritten(world: Any) -> None:
    app = await world.billing(ACME)
    assert all(app.readiness().values())
    record = await world.record("acme")
    assert record.tier == "pro"
    assert [(key.id, key.secret_sha256, key.revoked) for key in record.keys] == [
        ("acmekey00001", keys.parse(FIRST_KEY, "test").secret_sha256, False)
    ]
    await app.stop()

    other = "sk-clg-acmekey00002-" + "b" * 48
    await world.billing(TenantSettings(id="acme", tier="free", api_key=Secret(other)))
    assert await world.record("acme") == record


async def test_gateways_learn_who_may_see_old_answers(world: Any) -> None:
    await world.billing(ACME, TenantSettings(id="globex", cache=TenantCacheSettings(stale=True)))
    assert [(await world.record(tenant)).stale_answers for tenant in ("acme", "globex")] == [False, True]


async def test_the_operator_has_the_key_of_the_file_also_on_a_new_database(world: Any) -> None:
    await (await world.billing()).stop()
    path = world.data_dir / "admin.key"
    made = keys.parse(path.read_text().strip(), "test")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    await world.pool.execute("TRUNCATE billing.tenants CASCADE")
    await world.billing()
    record = await world.record("operator")
    assert record.tier == "enterprise"
    assert [(key.id, key.secret_sha256, set(key.scopes)) for key in record.keys] == [
        (made.public_id, made.secret_sha256, set(keys.OPERATOR_SCOPES))
    ]


async def test_a_configured_key_of_somebody_else_stops_the_start(world: Any) -> None:
    thief = TenantSettings(id="thief", api_key=Secret(FIRST_KEY))
    with pytest.raises(KeyConflictError, match="thief"):
        await world.billing(ACME, thief)
    assert await world.count("billing.tenants") == 2


async def test_a_record_that_differs_is_published_again_at_start(world: Any) -> None:
    await (await world.billing(ACME)).stop()
    standing = await world.record("acme")
    bucket = Bucket(world.gateway, s.KV_TENANTS)
    await bucket.put("acme", codec.encode(TenantRecord(id="acme", tier="free")))
    await world.billing(ACME)
    assert await world.record("acme") == standing


async def test_keys_are_made_listed_and_revoked_and_gateways_follow(world: Any) -> None:
    await world.billing(ACME)
    seen: dict[str, bool] = {}

    def follow(entry: Entry) -> None:
        record = codec.state.decode(entry.value)
        assert isinstance(record, TenantRecord)
        seen.update({key.id: key.revoked for key in record.keys})

    watch = Bucket(world.gateway, s.KV_TENANTS).watch(follow)
    await watch.start()
    made = await world.ask(
        s.SVC_BILLING_KEY_CREATE, KeyCreate(tenant="acme", project="default", scopes=["chat"], name="n"), KeysReply
    )
    api_key = keys.parse(made.secret_key, "test")
    (row,) = made.keys
    assert (row.id, row.project, row.scopes, row.name) == (api_key.public_id, "default", ["chat"], "n")
    await eventually(lambda: seen.get(row.id) is False)

    gone = await world.ask(s.SVC_BILLING_KEY_REVOKE, KeyRevoke(key_id=row.id), KeysReply)
    assert gone.keys[0].revoked_at_ms is not None
    await eventually(lambda: seen.get(row.id) is True)
    again = await world.ask(s.SVC_BILLING_KEY_REVOKE, KeyRevoke(key_id=row.id), KeysReply)
    assert again == gone
    listed = await world.ask(s.SVC_BILLING_KEY_LIST, KeyList(tenant="acme"), KeysReply)
    assert {key.id for key in listed.keys} == {"acmekey00001", row.id}
    assert listed.secret_key is None
    await watch.stop()


async def test_tenants_are_made_and_listed(world: Any) -> None:
    await world.billing(ACME)
    made = await world.ask(s.SVC_BILLING_TENANT_CREATE, TenantCreate(tenant="new-one", tier="free"), TenantsReply)
    assert [(row.id, row.tier, row.keys) for row in made.tenants] == [("new-one", "free", 0)]
    assert (await world.record("new-one")).keys == []
    listed = await world.ask(s.SVC_BILLING_TENANT_LIST, TenantList(), TenantsReply)
    assert [(row.id, row.keys) for row in listed.tenants] == [("acme", 1), ("new-one", 0), ("operator", 1)]


async def test_bad_questions_are_refused_with_code_and_field(world: Any) -> None:
    await world.billing(ACME)

    def create(**fields: Any) -> Awaitable[Any]:
        question = KeyCreate(**({"tenant": "acme", "scopes": ["chat"]} | fields))
        return world.ask(s.SVC_BILLING_KEY_CREATE, question, KeysReply)

    assert await refused(create(tenant="absent")) == ("not_found", "tenant")
    assert await refused(create(tenant="Not An Id")) == ("invalid_value", "tenant")
    assert await refused(create(scopes=[])) == ("invalid_value", "scopes")
    assert await refused(create(project="")) == ("invalid_value", "project")
    assert await refused(create(name="\x00")) == ("invalid_value", "name")
    tenant = s.SVC_BILLING_TENANT_CREATE
    assert await refused(world.ask(tenant, TenantCreate(tenant="acme"), TenantsReply)) == ("already_exists", "tenant")
    assert await refused(world.ask(tenant, TenantCreate(tenant="x", tier="gold"), TenantsReply)) == (
        "invalid_value",
        "tier",
    )
    revoke = s.SVC_BILLING_KEY_REVOKE
    assert await refused(world.ask(revoke, KeyRevoke(key_id="absent000"), KeysReply)) == ("not_found", "key_id")
    assert await refused(world.ask(revoke, KeyRevoke(key_id="\x00"), KeysReply)) == ("invalid_value", "key_id")
    assert await refused(world.ask(s.SVC_BILLING_KEY_LIST, KeyList(tenant="absent"), KeysReply)) == (
        "not_found",
        "tenant",
    )
    usage = UsageRequest(tenant=None, from_ms=0, to_ms=1, group_by=["secret"])
    assert await refused(world.ask(s.SVC_BILLING_USAGE, usage, UsageReply)) == ("invalid_value", "group_by")
    wrong_kind = world.ask(s.SVC_BILLING_USAGE, TenantList(), UsageReply)
    assert await refused(wrong_kind) == ("invalid_value", None)


async def test_two_replicas_may_start_at_once(world: Any) -> None:
    apps = await asyncio.gather(*(world.billing(ACME) for _ in range(2)))
    assert all(all(app.readiness().values()) for app in apps)
    assert len((await world.record("acme")).keys) == 1
    assert len((await world.record("operator")).keys) == 1


async def test_sampled_events_have_a_span_and_others_none(world: Any) -> None:
    make = world.make
    with OtlpReceiver() as receiver:
        tracing = setup("billing", otlp_endpoint=receiver.endpoint, sample_ratio=1.0)
        app = await world.billing(tracing=tracing)
        await world.publish(make.started(make.task("a")), f"00-{TRACE}-{PARENT}-00")
        await world.publish(make.settled(make.task("a"), [make.call()]), f"00-{TRACE}-{PARENT}-01")
        await eventually(lambda: world.count("billing.tasks"))
        await app.stop()
        await asyncio.to_thread(tracing.shutdown)
        (span,) = receiver.trace(TRACE)

    assert (span.name, span.parent_span_id) == (SPAN_BOOK, PARENT)
    assert span.attributes["messaging.destination.name"] == "task.settled.<tenant>.<task>"
