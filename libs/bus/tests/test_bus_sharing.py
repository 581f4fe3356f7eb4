"""Several at once: leases have one owner, questions one answerer, readers and declarations agree with what stands."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import msgspec
import pytest
from collegium_bus import topology
from collegium_bus.ask import ask
from collegium_bus.connection import connect
from collegium_bus.errors import BrokerUnavailableError, QueueFullError, RefusedError, TooLargeError, TopologyError
from collegium_bus.events import EventLoop
from collegium_bus.kv import Bucket
from collegium_bus.leases import LEASE_SECONDS, LeaseHolder
from collegium_bus.ordered import OrderedReader
from collegium_bus.publisher import _ApiError, _raise_refusal
from collegium_bus.shell import Answering
from collegium_bus.work import WorkLoop
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.consumers import CONSUMERS, consumer, work_consumer
from collegium_contracts.journey import STREAMS
from collegium_contracts.messages import CancelRequested
from collegium_contracts.requests import Refused, TenantList, TenantsReply
from collegium_testing import VirtualClock, eventually

NAMES = ["x", "y", "z"]


class Contender:
    """A lease holder whose clock is off by a fixed number of seconds, and the epochs it was given."""

    def __init__(self, bus, name: str, clock: VirtualClock, skew_seconds: float) -> None:
        self.gained: list[tuple[str, int]] = []
        self._now = lambda: clock.now() + skew_seconds
        self.holder = LeaseHolder(
            Bucket(bus.connection, s.KV_OWNERS),
            name,
            NAMES,
            on_gained=lambda what, epoch: self.gained.append((what, epoch)),
            on_lost=lambda _what: None,
            now=self._now,
        )

    def acting(self) -> set[str]:
        """The names it may act for by its own clock."""
        return {name for name, (lease, _) in self.holder._held.items() if lease.expires - 1.0 >= self._now()}


async def test_however_rounds_and_clocks_fall_no_two_act_for_one_name(bus, rng: random.Random):
    clock = VirtualClock(1_000_000.0)
    contenders = [Contender(bus, f"o{number}", clock, skew) for number, skew in enumerate((0.0, 600.0, -600.0))]
    owners: set[str] = set()
    for _ in range(60):
        awake = rng.sample(contenders, rng.randint(1, 3))
        await asyncio.gather(*(one.holder._round() for one in awake))
        acting = Counter(name for one in contenders for name in one.acting())
        assert all(count == 1 for count in acting.values()), acting
        owners.update(name for one in contenders for name, _ in one.gained)
        clock.advance(rng.choice([0.1, 1.0, 2.0, LEASE_SECONDS / 2, LEASE_SECONDS * 2]))
    epochs = Counter(epoch for one in contenders for epoch in one.gained)
    assert set(epochs.values()) == {1}, "an epoch of a name was given twice"
    assert owners == set(NAMES)
    assert len([one for one in contenders if one.gained]) > 1, "leases never changed hands: the test shows nothing"


async def test_a_watch_calls_the_newest_value_of_each_key(bus):
    bucket = Bucket(bus.connection, s.KV_MODELS)
    for number in range(20):
        await bucket.put(f"k{number % 4}", b"%d" % number)
    seen: dict[str, bytes] = {}
    calls = 0

    def note(entry) -> None:
        nonlocal calls
        calls += 1
        seen[entry.key] = entry.value

    watch = bucket.watch(note)
    await watch.start()
    assert (calls, seen) == (4, {"k0": b"16", "k1": b"17", "k2": b"18", "k3": b"19"})
    await asyncio.gather(*(bucket.put("k0", b"n%d" % number) for number in range(10)))
    newest = await bucket.get("k0")
    await eventually(lambda: seen["k0"] == newest.value)
    await watch.stop()


async def test_of_many_writers_with_one_revision_exactly_one_wins(bus):
    bucket = Bucket(bus.connection, s.KV_OWNERS)
    tried = await asyncio.gather(
        *(bucket.put("k", b"%d" % number, expected_revision=0) for number in range(12)), return_exceptions=True
    )
    won = [number for number, result in enumerate(tried) if isinstance(result, int)]
    assert len(won) == 1
    assert (await bucket.get("k")).value == b"%d" % won[0]
    assert all(isinstance(result, RefusedError) for result in tried if not isinstance(result, int))


async def test_replicas_share_the_questions_and_each_is_answered_once(bus):
    answered: Counter[str] = Counter()
    replicas = []
    for name in ("one", "two"):
        connection = await connect(bus.url, "billing")

        async def answer(_question, _traceparent, name=name):
            answered[name] += 1
            return TenantsReply(tenants=[])

        answering = Answering(connection, {s.SVC_BILLING_TENANT_LIST: answer})
        await answering.start()
        replicas.append((connection, answering))
    await asyncio.gather(
        *(ask(bus.connection, s.SVC_BILLING_TENANT_LIST, TenantList(), TenantsReply) for _ in range(60))
    )
    assert sum(answered.values()) == 60
    assert min(answered["one"], answered["two"]) > 5
    # One goes: the other answers everything.
    await replicas[0][1].stop()
    await replicas[0][0].close()
    await asyncio.gather(
        *(ask(bus.connection, s.SVC_BILLING_TENANT_LIST, TenantList(), TenantsReply) for _ in range(10))
    )
    assert sum(answered.values()) == 70
    await replicas[1][1].stop()
    await replicas[1][0].close()


async def test_a_question_that_is_no_message_is_refused_as_typed(bus):
    async def never(_question, _traceparent):
        raise AssertionError("an undecodable question was handed on")

    answering = Answering(bus.connection, {s.SVC_BILLING_TENANT_LIST: never})
    await answering.start()
    raw, _ = await bus.connection.request_raw(s.SVC_BILLING_TENANT_LIST, b"\xc1 garbage")
    refused = codec.reply.decode(raw)
    assert isinstance(refused, Refused)
    assert refused.code == "invalid_value"
    await answering.stop()


async def test_a_reader_sees_its_filters_alone_and_may_begin_with_the_newest_of_each_subject(bus):
    for number in range(6):
        message = CancelRequested(task_id=f"t{number % 2}", tenant="acme", at_ms=number)
        await bus.publisher.publish(s.cancel("acme", message.task_id), codec.encode(message), message_id=f"c{number}")
        await bus.publisher.publish(s.task_changed("acme", "t"), b"x", message_id=f"x{number}")
        await bus.publisher.publish(s.task_settled("acme", f"t{number}"), b"x", message_id=f"s{number}")
    newest: list[int] = []
    reader = OrderedReader(
        bus.connection, s.EVENTS, [s.CANCEL_ALL], lambda one: newest.append(one.sequence), last_per_subject=True
    )
    reader.start()
    await reader.caught_up.wait()
    both: list[str] = []
    filtered = OrderedReader(
        bus.connection, s.EVENTS, [s.CANCEL_ALL, s.TASK_CHANGED_ALL], lambda one: both.append(one.subject)
    )
    filtered.start()
    await filtered.caught_up.wait()
    assert newest == [13, 16]
    assert Counter(both) == {s.task_changed("acme", "t"): 6, s.cancel("acme", "t0"): 3, s.cancel("acme", "t1"): 3}
    await reader.stop()
    await filtered.stop()


async def test_a_batch_holds_no_more_than_it_may_and_keeps_the_order(bus):
    for number in range(25):
        message = CancelRequested(task_id=f"t{number}", tenant="acme", at_ms=number)
        await bus.publisher.publish(s.cancel("acme", message.task_id), codec.encode(message), message_id=f"m{number}")
    batches: list[list[int]] = []

    async def handle(batch) -> None:
        batches.append([event.message.at_ms for event in batch])

    loop = EventLoop(bus.connection, consumer("billing"), codec.journey, handle, bus.dead_letters, max_batch=10)
    loop.start()
    await eventually(lambda: sum(map(len, batches)) == 25)
    await loop.stop()
    assert max(map(len, batches)) <= 10
    assert [number for batch in batches for number in batch] == list(range(25))
    assert loop.folded_sequence == 25


async def test_no_more_is_taken_than_there_are_free_slots(bus):
    """What is taken holds a lease, so what waits must wait at the broker, where others can take it."""
    gate = asyncio.Event()
    hands = 0

    async def handle(delivery) -> None:
        nonlocal hands
        hands += 1
        await gate.wait()
        delivery.ack()

    for number in range(20):
        await bus.publisher.publish(s.work("general", "normal"), b"%d" % number, message_id=f"m{number}")
    loop = WorkLoop(bus.connection, work_consumer("general"), handle, bus.dead_letters, slots=4)
    loop.start()
    await eventually(lambda: hands == 4)
    await bus.connection.flush()
    info = msgspec.json.decode(await bus.connection.api(f"CONSUMER.INFO.{s.WORK}.pool-general"))
    assert (info["num_ack_pending"], info["num_waiting"], loop.running) == (4, 0, 4)
    gate.set()
    await eventually(lambda: hands == 20)
    await loop.drain(timeout_seconds=1)


async def test_what_is_sent_in_order_arrives_in_order_until_unsubscribed(bus):
    heard: list[int] = []
    sid = bus.connection.client.subscribe_raw("order", lambda _s, _r, payload, _h: heard.append(int(payload)))
    for number in range(2_000):
        bus.connection.publish("order", b"%d" % number)
    await bus.connection.flush()
    assert heard == list(range(2_000))
    bus.connection.client.unsubscribe_raw(sid)
    bus.connection.publish("order", b"-1")
    await bus.connection.flush()
    assert heard[-1] == 1_999


async def test_a_changed_consumer_is_planned_as_an_update_and_nothing_is_deleted(bus):
    declared = consumer("billing")
    changed = {**topology.consumer_config(declared), "ack_wait": 1_000_000_000, "filter_subjects": [s.CANCEL_ALL]}
    body = msgspec.json.encode({"stream_name": s.EVENTS, "config": changed, "action": "update"})
    await bus.connection.api(f"CONSUMER.CREATE.{s.EVENTS}.billing", body)
    changes = await topology.plan(bus.connection, pools=[])
    assert [(one.name, one.action, set(one.differs)) for one in changes] == [
        (f"{s.EVENTS}/billing", "update", {"ack_wait", "filter_subjects"})
    ]
    await topology.apply(bus.connection, changes)
    # The pool is no longer declared and stands all the same.
    assert await topology.plan(bus.connection, pools=[]) == []
    await topology.verify(bus.connection, "worker-pool", pools=["general"])


async def test_a_consumer_that_stands_is_not_asked_to_begin_elsewhere(bus):
    declared = consumer("testers")
    assert topology.consumer_config(declared)["deliver_policy"] == "new"
    changed = {**topology.consumer_config(declared), "deliver_policy": "all", "max_ack_pending": 256}
    body = msgspec.json.encode({"stream_name": s.EVENTS, "config": changed, "action": "create"})
    await bus.connection.api(f"CONSUMER.DELETE.{s.EVENTS}.testers")
    await bus.connection.api(f"CONSUMER.CREATE.{s.EVENTS}.testers", body)
    changes = await topology.plan(bus.connection, pools=["general"])
    assert [(one.name, one.differs) for one in changes] == [(f"{s.EVENTS}/testers", ("max_ack_pending",))]
    await topology.apply(bus.connection, changes)
    assert await topology.plan(bus.connection, pools=["general"]) == []


async def test_a_plan_for_an_empty_broker_creates_everything_before_it_is_used(clean_nats_url):
    connection = await connect(clean_nats_url, "operator")
    changes = await topology.plan(connection, pools=["general", "general"])
    assert {one.action for one in changes} == {"create"}
    kinds = [one.kind for one in changes]
    assert kinds == sorted(kinds, key=["stream", "consumer"].index)
    assert kinds.count("consumer") == len(CONSUMERS) + 1
    assert {stream.name for stream in STREAMS} <= {one.name for one in changes}
    with pytest.raises(TopologyError, match="EVENTS/billing does not stand"):
        await topology.verify(connection, "billing")
    await connection.close()


async def test_a_change_that_the_broker_refuses_is_told_in_its_words(bus):
    body = msgspec.json.encode({"name": s.WORK, "subjects": [s.TASK_SETTLED_ALL]})
    change = topology.Change("stream", "OTHER", "create", (), "STREAM.CREATE.OTHER", body)
    with pytest.raises(TopologyError, match=r"create stream OTHER: .+"):
        await topology.apply(bus.connection, [change])


async def test_a_wrong_address_is_told_at_once():
    async with asyncio.timeout(30):
        with pytest.raises(BrokerUnavailableError, match="cannot connect to the broker"):
            await connect("nats://127.0.0.1:1", "gateway")


@pytest.mark.parametrize(
    ("number", "expected"),
    [(10077, QueueFullError), (10047, QueueFullError), (10054, TooLargeError), (10060, RefusedError), (10008, None)],
)
def test_a_refusal_is_typed_by_the_brokers_number(number, expected):
    error = _ApiError(code=400, err_code=number, description="why")
    if expected is None:
        _raise_refusal("a.b", error)
        return
    with pytest.raises(expected, match=r"a\.b: why") as refused:
        _raise_refusal("a.b", error)
    assert (type(refused.value), refused.value.number) == (expected, number)
