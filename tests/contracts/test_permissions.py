"""Each service's broker user may do what the journey needs and is refused everything else, by a real broker."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import NamedTuple

import nkeys
import pytest
import pytest_asyncio
from collegium_bus import topology
from collegium_bus.ask import ask
from collegium_bus.claims import ClaimStore
from collegium_bus.connection import Connection, connect
from collegium_bus.dead import DeadLetters, Original
from collegium_bus.delivery import Delivery
from collegium_bus.direct import DirectReader
from collegium_bus.errors import NotPermittedError
from collegium_bus.ingress import IngressShard
from collegium_bus.kv import Bucket
from collegium_bus.letters import LetterBox, LetterFilter
from collegium_bus.ordered import OrderedReader
from collegium_bus.publisher import Publisher
from collegium_bus.pull import PullRequests
from collegium_bus.shell import Answering
from collegium_bus.wire import publish_command
from collegium_contracts import ids
from collegium_contracts import subjects as s
from collegium_contracts.consumers import CONSUMERS, work_consumer
from collegium_contracts.errors import TaskError
from collegium_contracts.journey import ASKS, BUCKETS, HOPS, SERVICES, STREAMS
from collegium_contracts.messages import TaskFailed, TaskRef
from collegium_contracts.money import Usage
from collegium_contracts.permissions import (
    BILLING_ERASES,
    BILLING_PURGES,
    CONTEXT_PURGES,
    DIRECT_READERS,
    EVOLUTION_PURGES,
    GATEWAY_PURGES,
    ORDERED_READERS,
    REMOVERS,
    ROUTER_PURGES,
    permissions,
)
from collegium_contracts.requests import TenantList, TenantsReply
from collegium_servers import NatsConfig, NatsUser, nats, render_config
from collegium_testing import eventually

OPERATOR = "operator"
TASK = "tsk_" + "7" * 26
DURABLES = [*CONSUMERS, work_consumer("general")]
LARGE = bytes(range(256)) * 1_200


class Broker(NamedTuple):
    url: str
    seeds: dict[str, str]


class Session:
    """A connected user that counts what the broker refused it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.publisher = Publisher(connection)
        self.refusals: list[str] = []

    async def note(self, error: Exception) -> None:
        self.refusals.append(str(error).lower())

    async def refused(self, subjects: list[str]) -> set[str]:
        """Publishes to every subject without waiting for an answer and returns those that were refused.

        Past the client's own checks, as whoever took a service over would.
        """
        for subject in subjects:
            self.connection.client.send(publish_command(subject, f"{self.connection.inbox}.r.0", None, b"{}"))
        await self.settled()
        return {one for one in subjects if any(f'publish to "{one.lower()}"' in text for text in self.refusals)}

    async def refused_to_hear(self, subjects: list[str]) -> set[str]:
        for subject in subjects:
            self.connection.client.subscribe_raw(subject, lambda *_: None)
        await self.settled()
        return {one for one in subjects if any(f'subscription to "{one.lower()}"' in text for text in self.refusals)}

    async def settled(self) -> None:
        """Two round trips: refusals come before the answer to the first."""
        await self.connection.flush()
        await self.connection.flush()


def user(name: str) -> tuple[str, str]:
    raw = hashlib.sha256(name.encode()).digest()
    seed = nkeys.encode_seed(raw, nkeys.PREFIX_BYTE_USER)
    return seed.decode(), nkeys.from_seed(bytearray(seed)).public_key.decode()


def rights(name: str) -> NatsUser:
    public = user(name)[1]
    if name == OPERATOR:
        return NatsUser(public, (">",), (">",))
    given = permissions(name)
    return NatsUser(public, given.publish, given.subscribe, deny_publish=given.deny_publish)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, server_background) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("guarded")
    names = (OPERATOR, *SERVICES)
    text = render_config(NatsConfig(folder / "store", users=tuple(rights(name) for name in names)))
    server = server_background.run(nats.start(folder, config_text=text))
    seeds = {name: user(name)[0] for name in names}

    async def declare() -> None:
        connection = await connect(server.url, OPERATOR, nkey_seed=seeds[OPERATOR])
        await topology.apply(connection, await topology.plan(connection, pools=["general"]))
        await connection.close()

    server_background.run(declare())
    yield Broker(server.url, seeds)
    server_background.run(server.stop())


Login = Callable[[str], Awaitable[Session]]


@pytest_asyncio.fixture
async def login(broker: Broker) -> AsyncIterator[Login]:
    sessions: list[Session] = []

    async def open_session(name: str) -> Session:
        connection = await connect(broker.url, name, nkey_seed=broker.seeds[name])
        session = Session(connection)
        connection.client._error_cb = session.note
        sessions.append(session)
        return session

    yield open_session
    for session in sessions:
        await session.connection.close()


def concrete(template: str, service: str) -> str:
    """A subject of a hop as this service would write it."""
    values = {
        "<priority>": "normal", "<shard>": "1", "<tenant>": "acme", "<pool>": "general", "<task>": TASK,
        "<n>": "1", "<delivery>": "1", "<replica>": "gw1", "<service>": service,
        "<durable>": "billing", "<letter>": "1", "<subject>": f"task.settled.acme.{TASK}",
        "<schedule>": "sch_1", "<try>": "1", "<worker>": "w1",
    }  # fmt: skip
    for placeholder, value in values.items():
        template = template.replace(placeholder, value)
    return template


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_publishes_its_hops_and_is_refused_all_others(login: Login, service: str):
    session = await login(service)
    subjects = {concrete(hop.subject, service): service in hop.senders for hop in HOPS}
    other = next(one for one in SERVICES if one != service)
    subjects[s.dead(other, "acme")] = False
    for asked in ASKS:
        subjects[asked.subject.replace(">", "anything")] = service in asked.asker
    for bucket in BUCKETS:
        subjects[f"$KV.{bucket.name}.some.key"] = service in bucket.writers
    assert await session.refused(list(subjects)) == {subject for subject, may in subjects.items() if not may}


async def test_whoever_may_not_publish_is_told_at_once_and_for_good(broker: Broker):
    connection = await connect(broker.url, "evolution", nkey_seed=broker.seeds["evolution"])
    refused = f"task.settled.acme.{TASK}"
    async with asyncio.timeout(10):
        with pytest.raises(NotPermittedError, match="may not publish"):
            await Publisher(connection).publish(refused, b"x", message_id="a", budget_seconds=60)
        stored = await Publisher(connection).publish(s.audit("acme"), b"x", message_id="b", budget_seconds=60)
    assert stored.stream == s.AUDIT
    await connection.close()


@pytest.mark.parametrize("service", SERVICES)
async def test_no_service_changes_what_stands(login: Login, service: str):
    session = await login(service)
    every = [*(stream.name for stream in STREAMS), *(f"KV_{bucket.name}" for bucket in BUCKETS)]
    forbidden = [
        f"$JS.API.STREAM.{verb}.{stream}"
        for stream in [*every, f"OBJ_{s.CLAIMS_BUCKET}", f"OBJ_{s.UPLOADS_BUCKET}"]
        for verb in ("CREATE", "UPDATE", "DELETE", "RESTORE", "MSG.DELETE")
        if (service, stream, verb) != ("router", s.INGRESS, "MSG.DELETE")
        if (verb, REMOVERS.get(service)) != ("MSG.DELETE", stream)
        if (service, stream, verb) != ("gateway", f"KV_{s.KV_DATAKEYS}", "MSG.DELETE")
    ]
    every += [f"OBJ_{s.CLAIMS_BUCKET}", f"OBJ_{s.UPLOADS_BUCKET}"]
    # Made under the name of a durable, a reader's consumer would be that durable, with other filters or lost places.
    forbidden += [f"$JS.API.CONSUMER.CREATE.{one.stream}.{one.durable}" for one in DURABLES]
    forbidden += [f"$JS.API.CONSUMER.CREATE.{one.stream}.{one.durable}.{s.TASK_SETTLED_ALL}" for one in DURABLES]
    purged = {("router", stream) for stream in ROUTER_PURGES}
    purged |= {("billing", stream) for stream in (*BILLING_PURGES, *BILLING_ERASES)} | {
        ("gateway", stream) for stream in GATEWAY_PURGES
    }
    purged |= {("context", stream) for stream in CONTEXT_PURGES}
    purged |= {("evolution", stream) for stream in EVOLUTION_PURGES}
    forbidden += [f"$JS.API.STREAM.PURGE.{stream}" for stream in every if (service, stream) not in purged]
    forbidden += [f"$JS.API.CONSUMER.DELETE.{one.stream}.{one.durable}" for one in DURABLES]
    forbidden += [f"$JS.API.CONSUMER.DURABLE.CREATE.{one.stream}.{one.durable}" for one in DURABLES]
    forbidden += [f"$JS.API.CONSUMER.CREATE.{s.WORK}.mine", "$JS.API.ACCOUNT.PURGE.X", "$SYS.REQ.SERVER.PING"]
    assert await session.refused(forbidden) == set(forbidden)


@pytest.mark.parametrize("service", SERVICES)
async def test_no_service_takes_or_answers_for_the_messages_of_another(login: Login, service: str):
    session = await login(service)
    others = [one for one in DURABLES if one.service != service]
    forbidden = [f"$JS.ACK.{one.stream}.{one.durable}.1.1.1.1.0" for one in others]
    forbidden += [f"$JS.API.CONSUMER.MSG.NEXT.{one.stream}.{one.durable}" for one in others]
    assert await session.refused(forbidden) == set(forbidden)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_hears_its_own_inbox_and_core_hops_and_nothing_else(login: Login, service: str):
    session = await login(service)
    subjects = {f"_INBOX.{other}.>": other == service for other in SERVICES}
    subjects |= {">": False, "_INBOX.>": False, "$JS.ACK.>": False, "$KV.>": False}
    for hop in HOPS:
        subjects[hop.filter] = hop.stream is None and service in hop.receivers
    for asked in ASKS:
        subjects[asked.subject] = service == asked.answerer
    assert await session.refused_to_hear(list(subjects)) == {subject for subject, may in subjects.items() if not may}


@pytest.mark.parametrize("declared", DURABLES, ids=lambda one: one.durable)
async def test_a_service_pulls_its_durable_and_acknowledges(login: Login, declared):
    operator, session = await login(OPERATOR), await login(declared.service)
    await topology.verify(session.connection, declared.service, pools=["general"])
    subject = {
        s.WORK: s.work("general", "normal"),
        s.EVENTS: s.again(declared.durable, 1, s.task_settled("acme", f"{TASK}-{declared.durable}")),
        s.ADVISORIES: s.MAX_DELIVERIES_ALL.replace(">", "WORK.pool-other"),
        s.SCHEDULE: s.schedule_due(0),
        s.LEDGER: s.ledger_journal(0),
    }[declared.stream]
    own = await operator.publisher.publish(subject, b"x", message_id=f"pull-{declared.durable}")
    taken: list[Delivery] = []
    pulls = PullRequests(
        session.connection,
        declared.stream,
        declared.durable,
        lambda *raw: taken.append(Delivery(session.connection, *raw)),
        on_lost=lambda _reason: None,
    )
    pulls.start()
    pulls.want(1_000)
    await eventually(lambda: own.sequence in [one.sequence for one in taken])
    assert all([await one.ack_sync() for one in taken])
    pulls.stop()
    assert session.refusals == []


@pytest.mark.parametrize(
    ("service", "stream"), [(service, stream) for service, streams in ORDERED_READERS.items() for stream in streams]
)
async def test_a_service_reads_its_streams_in_order(login: Login, service: str, stream: str):
    operator, session = await login(OPERATOR), await login(service)
    subject = {
        s.EVENTS: s.cancel("acme", TASK),
        s.INGRESS: s.task_submitted("low", 2, "acme"),
        s.AUDIT: s.audit("acme"),
        s.LEDGER: s.ledger_snapshot(1),
    }[stream]
    ack = await operator.publisher.publish(subject, b"x", message_id=f"ordered-{service}")
    seen: list[int] = []
    reader = OrderedReader(session.connection, stream, [subject], lambda one: seen.append(one.sequence))
    reader.start()
    await eventually(lambda: ack.sequence in seen)
    await reader.stop()
    assert session.refusals == []


async def test_the_router_removes_what_it_dispatched(login: Login):
    operator, router = await login(OPERATOR), await login("router")
    subject = s.task_submitted("high", 5, "purged")
    await operator.publisher.publish(subject, b"x", message_id="purged")
    shard = IngressShard(router.connection, 5, lambda one: shard.finish(one.subject, one.sequence))
    shard.start()

    async def gone() -> bool:
        return await DirectReader(operator.connection).last(s.INGRESS, subject) is None

    await eventually(gone)
    await shard.stop()
    assert router.refusals == []


async def test_the_gateway_reads_and_removes_letters(login: Login):
    operator, gateway = await login(OPERATOR), await login("gateway")
    letter = Original("work.general.low", b"odd", {})
    assert await DeadLetters(operator.publisher, "worker-pool").bury(letter, "undecodable_message", "odd")
    box = LetterBox(gateway.connection)
    page = await box.page(LetterFilter(service="worker-pool"))
    assert [one.content.payload for one in page.letters if one.content is not None][-1] == b"odd"
    assert await box.remove(page.letters[-1].sequence)
    assert await box.get(page.letters[-1].sequence) is None
    assert gateway.refusals == []


@pytest.mark.parametrize("service", ["router", "worker-pool", "consensus"])
async def test_a_settler_keeps_what_a_failed_task_was_made_from(login: Login, service: str):
    operator, session = await login(OPERATOR), await login(service)
    task = TaskRef(id=ids.retry_id(service, TASK), tenant=f"of-{service}", created_at_ms=1, deadline_ms=2, model="m")
    settled = TaskFailed(
        task=task, plan="single", stop_reason="failed", usage=Usage(), attempts=[], settled_at_ms=3,
        error=TaskError(code="upstream_error", message="no"),
    )  # fmt: skip
    assert await DeadLetters(session.publisher, service).keep_failed(settled, Original("x", b"x", {}))
    page = await LetterBox(operator.connection).page(LetterFilter(tenant=task.tenant))
    assert [(one.service, one.tenant) for one in page.letters] == [(service, task.tenant)]
    assert session.refusals == []


async def test_the_worker_pool_reads_and_removes_single_work(login: Login):
    operator, pool = await login(OPERATOR), await login("worker-pool")
    ack = await operator.publisher.publish(s.work("other", "low"), b"x", message_id="swept")
    assert (await DirectReader(pool.connection).at(s.WORK, ack.sequence)).payload == b"x"
    reply = await pool.connection.api(f"STREAM.MSG.DELETE.{s.WORK}", b'{"seq":%d}' % ack.sequence)
    assert b'"success":true' in reply.replace(b" ", b"")
    assert b"work.other.low" not in await pool.connection.api(f"STREAM.INFO.{s.WORK}", b'{"subjects_filter":"work.>"}')
    assert pool.refusals == []


@pytest.mark.parametrize("bucket", BUCKETS, ids=lambda one: one.name)
async def test_a_bucket_is_written_by_its_writers_and_watched_by_its_readers(login: Login, bucket):
    for writer in bucket.writers:
        session = await login(writer)
        await Bucket(session.connection, bucket.name).put(f"k-{writer}", b"v")
        assert session.refusals == []
    for reader in bucket.readers:
        session = await login(reader)
        seen: dict[str, bytes] = {}
        watch = Bucket(session.connection, bucket.name).watch(lambda one, seen=seen: seen.update({one.key: one.value}))
        await watch.start()
        assert {f"k-{writer}" for writer in bucket.writers} <= set(seen)
        assert await Bucket(session.connection, bucket.name).get(f"k-{bucket.writers[0]}") is not None
        await watch.stop()
        assert session.refusals == []


@pytest.mark.parametrize("service", DIRECT_READERS)
async def test_a_service_looks_up_single_messages(login: Login, service: str):
    operator, session = await login(OPERATOR), await login(service)
    events = s.EVENTS in DIRECT_READERS[service]
    subject = s.task_settled("acme", "tsk_" + "6" * 26) if events else s.ledger_snapshot(2)
    ack = await operator.publisher.publish(subject, b"x", message_id=f"direct-{service}")
    assert (await DirectReader(session.connection).last(ack.stream, subject)).payload == b"x"
    assert session.refusals == []


async def test_a_question_reaches_billing_and_its_answer_the_gateway(login: Login):
    gateway, billing = await login("gateway"), await login("billing")

    async def tenants(_question, _traceparent):
        return TenantsReply(tenants=[])

    answering = Answering(billing.connection, {s.SVC_BILLING_TENANT_LIST: tenants})
    await answering.start()
    assert await ask(gateway.connection, s.SVC_BILLING_TENANT_LIST, TenantList(), TenantsReply) == TenantsReply(
        tenants=[]
    )
    await answering.stop()
    assert (gateway.refusals, billing.refusals) == ([], [])


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_buries_what_is_large_and_redeems_claims(login: Login, service: str):
    """A letter holds its original verbatim, so every service may have to put a large one aside."""
    operator, session = await login(OPERATOR), await login(service)
    subject = s.task_settled("acme", f"{TASK}-large-{service}").encode()
    original = Delivery(session.connection, subject, b"$JS.ACK.EVENTS.x.1.5.1.1.0", LARGE, None)
    assert await DeadLetters(session.publisher, service).bury(original, "undecodable_message", "too odd")
    assert LARGE in (await DirectReader(operator.connection).last(s.DEAD, s.dead(service, ""))).payload
    claim = await ClaimStore(operator.connection).put(LARGE)
    assert await ClaimStore(session.connection).get(claim) == LARGE
    assert session.refusals == []
