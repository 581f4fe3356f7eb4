"""Callbacks in PostgreSQL: whatever order events come in, whoever claims, however often."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import msgspec
import pytest
import yarl
from collegium_contracts import codec
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.messages import Message, TaskAccepted, TaskDispatched
from collegium_contracts.scope import Scope
from collegium_gateway.readmodel.rows import TaskRow, fold
from collegium_gateway.readmodel.store import TaskStore
from collegium_gateway.webhooks.store import Claim, WebhookStore, url_of
from collegium_gateway.webhooks.values import changes_of, export_body, in_force, is_export
from collegium_store import open_pool

KEYRING = IdentityKeyring()
URL = "https://example.org/hook"


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await open_pool(database_url, application_name="gateway-test", max_size=8)
    yield pool
    await pool.close()


@pytest.fixture
def tasks(pool: asyncpg.Pool) -> TaskStore:
    return TaskStore(pool)


@pytest.fixture
def store(pool: asyncpg.Pool) -> WebhookStore:
    return WebhookStore(pool, KEYRING)


def task_id(number: int) -> str:
    return f"tsk_{number:026d}"


async def project(tasks: TaskStore, *messages: Message) -> None:
    """Does with a batch of events what the projection does."""
    rows: dict[str, TaskRow] = {}
    fold(rows, ((one, codec.encode(one), "") for one in messages))
    await tasks.upsert(list(rows.values()), changes_of(messages))


@pytest.fixture(scope="session")
def story(task: Any, settled: Any) -> Any:
    """The events of a task with a callback, in the order they were made."""

    def story(number: int, tenant: str = "acme", receiver: str = "r") -> list[Message]:
        ref = task(id=task_id(number), tenant=tenant, callback=True)
        sealed = KEYRING.seal(tenant, URL.encode())
        return [
            TaskAccepted(task=ref, at_ms=1, callback=sealed, callback_receiver=receiver),
            TaskDispatched(task=ref, plan="single", models=["m"], at_ms=2),
            settled("completed", ref),
        ]

    return story


async def state(store: WebhookStore, number: int = 1, tenant: str = "acme") -> str | None:
    row = await store.get(tenant, task_id(number))
    return row.state if row is not None else None


async def claim(store: WebhookStore, *numbers: int) -> list[Claim]:
    return await store.claim([task_id(number) for number in numbers], 60_000)


async def make_due(pool: asyncpg.Pool) -> None:
    """Lets the time of every next try come."""
    await pool.execute("UPDATE gateway.webhooks SET next_try_at_ms = 0 WHERE state = 'due'")


async def due(store: WebhookStore, *, tenants: Sequence[str] = (), receivers: Sequence[str] = ()) -> list[str]:
    found, last = await store.due("", list(tenants), list(receivers), receivers=100, per_receiver=4)
    assert last == ""
    return sorted(one.task_id for one in found)


async def test_a_callback_waits_for_its_tasks_end(store: WebhookStore, tasks: TaskStore, story: Any):
    accepted, dispatched, ended = story(1)
    await project(tasks, accepted)
    row = await store.get("acme", task_id(1))
    assert row is not None
    assert (row.state, row.attempts, row.next_try_at_ms) == ("waiting", 0, None)
    assert url_of(KEYRING, "acme", row.callback) == URL
    await project(tasks, dispatched)
    assert (await state(store), await due(store)) == ("waiting", [])
    await project(tasks, ended)
    assert (await state(store), await due(store)) == ("due", [task_id(1)])


async def test_any_order_and_any_doubling_ends_in_due(store: WebhookStore, tasks: TaskStore, story: Any, rng: Any):
    for number in range(30):
        events = story(number)
        told = [*events, *rng.choices(events, k=3)]
        rng.shuffle(told)
        while told:
            size = rng.randint(1, 3)
            await project(tasks, *told[:size])
            told = told[size:]
        assert await state(store, number) == "due"


async def test_two_gateways_that_tell_of_both_at_once_miss_nothing(store: WebhookStore, tasks: TaskStore, story: Any):
    """Each batch alone changes nothing of the other's; whichever commits second has to see the first."""
    for number in range(40):
        accepted, _, ended = story(number)
        await asyncio.gather(project(tasks, accepted), project(tasks, ended))
    assert [await state(store, number) for number in range(40)] == ["due"] * 40


async def test_a_delivered_callback_stays_delivered_when_events_come_again(
    store: WebhookStore, tasks: TaskStore, story: Any
):
    await project(tasks, *story(1))
    (held,) = await claim(store, 1)
    await store.finish(held, "delivered", status=200)
    await project(tasks, *story(1))
    row = await store.get("acme", task_id(1))
    assert row is not None
    assert (row.state, row.attempts, row.last_status, row.next_try_at_ms) == ("delivered", 1, 200, None)
    assert await due(store) == []


async def test_a_batch_without_callbacks_leaves_their_table_alone(
    store: WebhookStore, tasks: TaskStore, pool: asyncpg.Pool, task: Any, settled: Any
):
    await pool.execute("ALTER TABLE gateway.webhooks RENAME TO webhooks_away")
    await project(tasks, TaskAccepted(task=task(), at_ms=1), settled("completed"))
    assert await tasks.get(Scope("acme"), task().id) is not None


async def test_rows_and_callbacks_are_written_together_or_not_at_all(tasks: TaskStore, pool: asyncpg.Pool, story: Any):
    await pool.execute("ALTER TABLE gateway.webhooks RENAME TO webhooks_away")
    with pytest.raises(asyncpg.UndefinedTableError):
        await project(tasks, *story(1))
    assert await tasks.get(Scope("acme"), task_id(1)) is None


async def test_a_callback_belongs_to_its_tenant(store: WebhookStore, tasks: TaskStore, story: Any):
    await project(tasks, *story(1))
    assert await store.get("globex", task_id(1)) is None


async def test_one_of_many_gets_each_callback(store: WebhookStore, tasks: TaskStore, story: Any):
    for number in range(20):
        await project(tasks, *story(number))
    claims = await asyncio.gather(*(claim(store, *range(20)) for _ in range(8)))
    assert sorted(one.task_id for held in claims for one in held) == [task_id(number) for number in range(20)]
    assert await due(store) == []


async def test_what_another_takes_at_this_moment_is_left_out_and_not_waited_for(
    store: WebhookStore, tasks: TaskStore, pool: asyncpg.Pool, story: Any
):
    await project(tasks, *story(1), *story(2))
    async with pool.acquire() as other, other.transaction():
        await other.execute("UPDATE gateway.webhooks SET attempts = attempts + 1 WHERE task_id = $1", task_id(1))
        async with asyncio.timeout(30):
            assert [one.task_id for one in await claim(store, 1, 2)] == [task_id(2)]


async def test_a_lease_that_ended_is_anothers_and_its_holder_changes_nothing(
    store: WebhookStore, tasks: TaskStore, pool: asyncpg.Pool, story: Any
):
    await project(tasks, *story(1))
    (late,) = await claim(store, 1)
    assert await claim(store, 1) == []
    await make_due(pool)
    (held,) = await claim(store, 1)
    assert (late.attempts, held.attempts) == (1, 2)
    await store.finish(late, "failed", status=500)
    await store.hand_back([late])
    assert (await state(store), await due(store)) == ("due", [])
    await store.finish(held, "delivered", status=200)
    await store.finish(late, "due", status=500, retry_after_ms=0)
    assert await state(store) == "delivered"


async def test_a_refused_try_comes_again_in_its_time(store: WebhookStore, tasks: TaskStore, story: Any):
    await project(tasks, *story(1))
    (held,) = await claim(store, 1)
    await store.finish(held, "due", status=503, error="status", retry_after_ms=5_000)
    row = await store.get("acme", task_id(1))
    assert row is not None
    assert (row.state, row.last_status, row.last_error) == ("due", 503, "status")
    assert row.next_try_at_ms is not None
    assert 4_000 < row.next_try_at_ms - held.now_ms < 20_000
    assert await due(store) == []


async def test_what_is_handed_back_is_due_at_once(store: WebhookStore, tasks: TaskStore, story: Any):
    await project(tasks, *story(1), *story(2))
    held = await claim(store, 1, 2)
    await store.hand_back(held)
    assert await due(store) == [task_id(1), task_id(2)]


async def test_time_is_counted_from_the_first_try(
    store: WebhookStore, tasks: TaskStore, pool: asyncpg.Pool, story: Any
):
    await project(tasks, *story(1))
    (first,) = await claim(store, 1)
    assert first.tried_for_ms < 1_000
    await pool.execute("UPDATE gateway.webhooks SET next_try_at_ms = 0, first_try_at_ms = first_try_at_ms - 3600000")
    (second,) = await claim(store, 1)
    assert 3_600_000 <= second.tried_for_ms < 3_660_000


async def test_a_backlog_hides_neither_another_tenant_nor_another_receiver(
    store: WebhookStore, tasks: TaskStore, story: Any
):
    for number in range(50):
        await project(tasks, *story(number, receiver="slow"))
    await project(tasks, *story(100, receiver="quick"))
    await project(tasks, *story(200, tenant="globex", receiver="a"))
    await project(tasks, *story(300, tenant="initech", receiver="z"))
    assert await due(store) == [*(task_id(number) for number in range(4)), task_id(100), task_id(200), task_id(300)]
    assert await due(store, receivers=["slow"]) == [task_id(100), task_id(200), task_id(300)]
    assert await due(store, tenants=["acme"]) == [task_id(200), task_id(300)]
    assert await due(store, tenants=["acme", "globex", "initech"]) == []


async def test_a_look_goes_on_where_the_last_one_ended(store: WebhookStore, tasks: TaskStore, story: Any):
    for number in range(10):
        await project(tasks, *story(number, receiver=f"r{number}"))
    after, seen = "", list[list[str]]()
    for _ in range(5):
        found, after = await store.due(after, [], ["r1"], receivers=3, per_receiver=4)
        seen.append(sorted(one.receiver for one in found))
    assert seen == [["r0", "r2"], ["r3", "r4", "r5"], ["r6", "r7", "r8"], ["r9"], ["r0", "r2"]]
    assert await store.due("r9", [], [], receivers=3, per_receiver=4) == ([], "")


async def test_a_tenants_first_key_is_made_once(store: WebhookStore):
    keys = [random.randbytes(32) for _ in range(8)]
    made = await asyncio.gather(*(store.secrets("acme", key, 1) for key in keys))
    assert len({one.keys[0].key for one in made}) == 1
    assert (await store.secrets("globex", b"g", 1)).keys[0].key == b"g"


async def test_rotations_at_once_each_count(store: WebhookStore, pool: asyncpg.Pool):
    keys = [random.randbytes(32) for _ in range(3)]
    await asyncio.gather(*(store.rotate("acme", key, 1, 60) for key in keys))
    kept = await store.secrets("acme", b"never", 1)
    assert {one.key for one in in_force(kept, 1)} == set(keys)
    stored = await pool.fetchval("SELECT keys FROM gateway.webhook_secrets WHERE tenant = 'acme'")
    assert msgspec.msgpack.decode(stored, type=Envelope).key_id == "identity"


async def test_an_exports_callback_is_due_at_once_and_goes_with_the_next_one(store: WebhookStore, pool: asyncpg.Pool):
    url = yarl.URL("https://hooks.example.org/x")
    for name in ("exp_1", "exp_1", "exp_2"):
        await store.open_at_once("acme", name, url)
        await pool.execute("UPDATE gateway.webhooks SET state = 'delivered' WHERE task_id = 'exp_1'")
    rows = await pool.fetch("SELECT task_id, tenant, state FROM gateway.webhooks WHERE task_id LIKE 'exp%'")
    assert [tuple(row) for row in rows] == [("exp_2", "acme", "due")]


def test_an_exports_message_holds_its_manifest_and_no_line():
    body = msgspec.json.decode(export_body({"id": "exp_1", "made_ms": 0, "rows": 3}, "claim-1"))
    assert (body["type"], body["data"]["id"], body["data"]["manifest"]["rows"]) == ("distill.ready", "claim-1", 3)
    assert is_export("exp_1")
    assert not is_export("tsk_1")
