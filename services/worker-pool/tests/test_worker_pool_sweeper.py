"""The backstop on a real broker: what was delivered for the last time and never answered is ended, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from collegium_bus import topology
from collegium_bus.delivery import Delivery
from collegium_bus.pull import PullRequests
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.consumers import work_consumer
from collegium_contracts.messages import RunAttempt, TaskFailed
from collegium_telemetry import names
from collegium_testing import eventually
from collegium_testing.platform import RunningPlatform
from collegium_worker_pool.running import sweeper
from collegium_worker_pool.running.sweeper import stuck
from hypothesis import given
from hypothesis import strategies as st

SEQUENCES = st.sets(st.integers(1, 30))


@given(SEQUENCES, SEQUENCES, st.integers(0, 5), SEQUENCES)
def test_nothing_is_stuck_that_a_worker_may_hold(seen, before, in_hand, expired):
    found = set(stuck(seen, before, in_hand, expired))
    assert found <= seen & before
    if in_hand:
        assert found <= expired
    else:
        assert found == seen & before


@pytest.fixture
async def platform(clean_nats_url: str, tmp_path: Path) -> AsyncIterator[RunningPlatform]:
    async with RunningPlatform(clean_nats_url, folder=tmp_path, services=()) as running:
        body = {
            "stream_name": s.WORK,
            "config": topology.consumer_config(
                msgspec.structs.replace(work_consumer("general"), ack_wait_seconds=0.6, max_deliver=2)
            ),
            "action": "update",
        }
        raw = await running.connection.api(f"CONSUMER.CREATE.{s.WORK}.pool-general", msgspec.json.encode(body))
        assert "error" not in msgspec.json.decode(raw)
        yield running


async def hide(platform: RunningPlatform, *runs: RunAttempt | bytes) -> None:
    """Takes messages as often as the consumer gives them and answers for none, as killed workers do."""
    for number, run in enumerate(runs):
        tenant = run.task.tenant if isinstance(run, RunAttempt) else "acme"
        await platform.send(s.work("general", "normal"), run, message_id=f"hide-{number}", tenant=tenant)
    taken: list[int] = []
    pulls = PullRequests(
        platform.connection,
        s.WORK,
        "pool-general",
        lambda *raw: taken.append(Delivery(platform.connection, *raw).delivered),
        on_lost=lambda _reason: None,
    )
    pulls.start()
    pulls.want(len(runs) * 2 + 1)
    await eventually(lambda: taken.count(2) == len(runs))

    async def hidden() -> bool:
        info = msgspec.json.decode(await platform.connection.api(f"CONSUMER.INFO.{s.WORK}.pool-general"))
        return info["num_ack_pending"] == info["num_pending"] == 0

    await eventually(hidden)
    pulls.stop()
    assert await platform.standing(s.WORK) == len(runs)


def mine(run: Callable[..., RunAttempt], number: int, **fields) -> RunAttempt:
    return run(id=ids.task_id(number, bytes(10)), created_at_ms=1, **{"deadline_ms": 2**45} | fields)


async def all_ended(platform: RunningPlatform, runs: list[RunAttempt]) -> None:
    for one in runs:
        settled = await platform.settled(one.task)
        assert isinstance(settled, TaskFailed)
        assert settled.error.code == "attempts_exhausted"

    async def empty() -> bool:
        return await platform.standing(s.WORK) == 0

    await eventually(empty)
    letters = [one for one in await platform.dead_letters() if one.cause == "never_answered"]
    assert sorted(letter.known.task_id for letter in letters) == sorted(one.task.id for one in runs)
    assert {letter.payload for letter in letters} == {codec.encode(one) for one in runs}
    assert {(letter.stream, letter.known.consumer, letter.delivery) for letter in letters} == {
        (s.WORK, "pool-general", 2)
    }
    assert platform.sim.counts().totals.completed == 0


async def test_an_advisory_ends_its_task_buries_the_message_and_removes_it(platform, run):
    runs = [mine(run, number) for number in range(3)]
    await hide(platform, *runs)
    assert await platform.standing(s.ADVISORIES) == 3
    await platform.start("worker-pool")
    await platform.start("worker-pool")
    await all_ended(platform, runs)


async def test_a_stuck_message_is_found_without_an_advisory(platform, run, monkeypatch):
    monkeypatch.setattr(sweeper.Sweeper.__init__, "__kwdefaults__", {"look_seconds": 0.1})
    runs = [mine(run, number) for number in range(2)]
    await hide(platform, *runs)
    await platform.connection.api(f"STREAM.PURGE.{s.ADVISORIES}")
    # As it stands once a worker's consumer is declared: the deliveries that hid the messages are history.
    hosted = await platform.start("worker-pool")
    values: list[float] = []

    def seen_stuck() -> bool:
        text = hosted.platform.metrics.render().decode()
        values.append(float(text.split(f'{names.METRIC_STUCK_MESSAGES}{{stream="WORK"}} ')[1].split()[0]))
        return 2.0 in values and values[-1] == 0.0

    await eventually(seen_stuck, every_seconds=0.002)
    for one in runs:
        assert isinstance(await platform.settled(one.task), TaskFailed)
    assert await platform.standing(s.WORK) == 0


async def test_bytes_that_are_no_attempt_are_swept_too(platform):
    await hide(platform, b"\xffno attempt")
    await platform.start("worker-pool")

    async def buried() -> bool:
        return {one.payload for one in await platform.dead_letters()} == {b"\xffno attempt"}

    await eventually(buried)


async def test_work_in_hand_is_left_alone_and_expired_work_beside_it_is_not(platform, run, monkeypatch):
    """With something in hand a look cannot tell which; only a deadline long past can."""
    monkeypatch.setattr(sweeper.Sweeper.__init__, "__kwdefaults__", {"look_seconds": 0.05})
    fresh, late = mine(run, 1), mine(run, 2, deadline_ms=1_000)
    await hide(platform, fresh, late)
    await platform.connection.api(f"STREAM.PURGE.{s.ADVISORIES}")
    await platform.send(s.work("general", "low"), mine(run, 3), message_id="held", tenant="acme")
    held: list[Delivery] = []
    pulls = PullRequests(
        platform.connection, s.WORK, "pool-general",
        lambda *raw: held.append(Delivery(platform.connection, *raw)), on_lost=lambda _reason: None,
    )  # fmt: skip
    pulls.start()
    pulls.want(1)
    await eventually(lambda: held)

    async def keep() -> None:
        while True:
            held[0].in_progress()
            await asyncio.sleep(0.05)

    holding = asyncio.create_task(keep())
    await platform.start("worker-pool")
    assert isinstance(await platform.settled(late.task), TaskFailed)

    async def buried() -> bool:
        return "never_answered" in [one.cause for one in await platform.dead_letters()]

    await eventually(buried)
    assert {one.known.task_id for one in await platform.dead_letters()} == {late.task.id}
    assert await platform.direct.last(s.EVENTS, s.task_settled("acme", fresh.task.id)) is None
    held[0].ack()
    holding.cancel()
    pulls.stop()
    assert isinstance(await platform.settled(fresh.task), TaskFailed)
