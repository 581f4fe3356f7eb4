"""Snapshots taken while holds come and go: whoever takes over from one knows each capture once, and each hold."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from collegium_bus.holding import Holds
from collegium_contracts import subjects as s
from collegium_runtime.host import INSTANCE_VARIABLE
from collegium_testing.eventually import eventually

from services.billing.tests.test_billing_holds import SHARD, asking, introduce, kill, settled, shard_of, standing


@pytest.fixture(autouse=True)
def one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor starts a replica that died under its own name, which takes its leases at once."""
    monkeypatch.setenv(INSTANCE_VARIABLE, "billing-1")


@pytest.mark.parametrize("by_time", [False, True])
async def test_what_settles_while_a_record_is_stored_is_captured_once_by_the_next_owner(
    world: Any, monkeypatch: pytest.MonkeyPatch, by_time: bool
) -> None:
    """A snapshot becomes due while the broker takes its time, and the books are ahead of the journal."""
    monkeypatch.setattr("collegium_billing.holds.shard.SNAPSHOT_RECORDS", 10**6 if by_time else 3)
    monkeypatch.setattr("collegium_billing.holds.shard.SNAPSHOT_SECONDS", 0.0 if by_time else 10**6)
    monkeypatch.setattr("collegium_billing.holds.shard.TICK_SECONDS", 0.02 if by_time else 1.0)
    await introduce(world, 1_000)
    app = await world.billing()
    door, shard = Holds(world.gateway), shard_of(app)
    assert shard is not None
    assert not (await door.ask(asking(1))).code
    publish, journal = app._platform.publisher.publish, s.ledger_journal(SHARD)
    slow = asyncio.Event()

    def captured() -> int:
        (one,) = shard.book.standings("acme", 0)
        return one.captured_picos

    async def taking_its_time(subject: str, *args: Any, **fields: Any) -> Any:
        ack = await publish(subject, *args, **fields)
        if subject == journal and slow.is_set():
            slow.clear()
            await settled(world, 1, 7)
            await eventually(lambda: captured() == 7)
            # Longer than a tick where snapshots are due by time.
            await asyncio.sleep(0.1 if by_time else 0)
        return ack

    monkeypatch.setattr(app._platform.publisher, "publish", taking_its_time)
    slow.set()
    assert not (await door.ask(asking(2))).code
    before = shard._journal.sequence

    # The end of the first task comes after the snapshot; nothing more happens to the shard then.
    await eventually(lambda: shard._journal.sequence > before)
    await kill(app)
    await world.billing()

    async def known() -> bool:
        assert await standing(world) == (7, 10)
        return True

    await eventually(known)
