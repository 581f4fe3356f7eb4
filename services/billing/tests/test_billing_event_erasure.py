"""A tenant's events go once every consumer has done with them, not before, and nobody else's go."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from collegium_billing.identity import event_erasure
from collegium_billing.identity.event_erasure import READERS, erase_events
from collegium_bus import topology
from collegium_bus.connection import Connection, connect
from collegium_bus.delivery import Delivery
from collegium_bus.direct import DirectReader
from collegium_bus.errors import NoAnswerError
from collegium_bus.publisher import Publisher
from collegium_bus.pull import PullRequests
from collegium_bus.purging import read_up_to
from collegium_contracts import belongings
from collegium_contracts import subjects as s
from collegium_testing import eventually

TASK = "tsk_" + "0" * 26


@pytest.fixture
async def broker(clean_nats_url: str) -> AsyncIterator[Connection]:
    connection = await connect(clean_nats_url, "operator")
    await topology.apply(connection, await topology.plan(connection, pools=["general"]))
    yield connection
    await connection.close()


async def stand(broker: Connection, tenant: str) -> int:
    reader = DirectReader(broker)
    return sum([len(await reader.headers(s.EVENTS, one, limit=100)) for one in belongings.events_of(tenant)])


async def acknowledged(broker: Connection, durable: str, count: int) -> None:
    """Takes what waits for a consumer and acknowledges it."""
    taken: list[Delivery] = []
    pulls = PullRequests(
        broker, s.EVENTS, durable, lambda *raw: taken.append(Delivery(broker, *raw)), on_lost=lambda _reason: None
    )
    pulls.start()
    pulls.want(count)
    await eventually(lambda: len(taken) == count)
    assert all([await one.ack_sync() for one in taken])
    pulls.stop()


async def test_a_tenants_events_go_when_every_consumer_has_read_them_and_not_before(
    broker: Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(event_erasure, "LOOK_SECONDS", 0.01)
    publisher = Publisher(broker)
    for number, tenant in enumerate(("gone", "stays", "gone")):
        subject = s.task_settled(tenant, f"{TASK}{number}")
        await publisher.publish(subject, b"x", message_id=f"{number}", headers={s.H_TENANT: tenant})
    await publisher.publish(s.cancel("gone", TASK), b"x", message_id="c", headers={})
    readers = {"billing": 4, "inputs": 1, "read-model": 3, "turns": 3, "scoreboard": 3}
    assert set(readers) | {"verdicts", "testers"} == set(READERS)
    with pytest.raises(NoAnswerError):
        await erase_events(broker, "gone")
    assert await stand(broker, "gone") == 3, "nobody has read them"
    *most, last = readers.items()
    for durable, count in most:
        await acknowledged(broker, durable, count)
    with pytest.raises(NoAnswerError):
        await erase_events(broker, "gone")
    assert await stand(broker, "gone") == 3, f"{last[0]} has not read them"
    await acknowledged(broker, *last)
    assert await read_up_to(broker, s.EVENTS, READERS) == (4, 4)
    assert await erase_events(broker, "gone") == 3
    assert (await stand(broker, "gone"), await stand(broker, "stays")) == (0, 1)
    assert await erase_events(broker, "gone") == 0
