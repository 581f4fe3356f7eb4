"""Scenarios: brokers that go away, and networks that delay, lose and part."""

from __future__ import annotations

import asyncio
import time

import aiohttp
from collegium_contracts import subjects as s
from collegium_contracts.consumers import work_consumer
from collegium_testing.faults.broker import OwnBroker
from collegium_testing.faults.checker import Expected
from collegium_testing.faults.cluster import NatsCluster
from collegium_testing.faults.proxy import TcpProxy

from tests.chaos.stage import Stage

IN_FLIGHT = Expected(killed_in_flight=True)
NOTHING_IN_FLIGHT = Expected()
ACK_WAIT_SECONDS = work_consumer("general").ack_wait_seconds
PUBLISH_BUDGET_SECONDS = 15
LEADER_AND_LEASE_SECONDS = 10 + ACK_WAIT_SECONDS


async def broker_away(stage: Stage, *, graceful: bool) -> None:
    """Takes the broker away: probes say so, the door answers 503 in time, and all goes on when it is back."""
    broker = await stage.stack.enter_async_context(OwnBroker(stage.folder / "broker"))
    await stage.up(nats=broker.url)
    await stage.work()
    await stage.calls_running()
    stage.fault("broker stopped" if graceful else "kill -9 of the broker")
    await (broker.stop() if graceful else broker.kill())
    before = len(stage.load.accepted)
    await stage.probes_are(ready=False)
    await _refused_in_time(stage)
    assert len(stage.load.accepted) == before, "nothing is accepted without a broker"
    await broker.start()
    stage.note("broker started again")
    await stage.probes_are(ready=True)
    await stage.work(10)
    await stage.recovered()
    collected = await stage.checked(IN_FLIGHT)
    half = collected.terminal.keys() - collected.accepted
    assert not half, f"what was refused with 503 must not run: {half}"


async def _refused_in_time(stage: Stage) -> None:
    """Both doors answer 503 with Retry-After within the publish budget, and a little."""
    headers = {"Authorization": f"Bearer {stage.keys['chaos']}"}
    bodies = {
        "/v1/tasks": {"input": "lost"},
        "/v1/chat/completions": {"model": "auto", "messages": [{"role": "user", "content": "lost"}]},
    }
    async with aiohttp.ClientSession(stage.http, headers=headers) as session:

        async def refused(path: str) -> None:
            began = time.monotonic()
            async with session.post(path, json=bodies[path]) as response:
                text = await response.text()
                assert response.status == 503, (path, text)
                assert int(response.headers["Retry-After"]) >= 1
            took = time.monotonic() - began
            assert took < PUBLISH_BUDGET_SECONDS + 3, f"{path} took {took:.1f} s"
            stage.note(f"{path} answered 503 after {took:.1f} s")

        await asyncio.gather(*map(refused, bodies))


async def leader(stage: Stage) -> None:
    """Kills, under load, the server that leads a stream of a cluster of three."""
    cluster = await stage.stack.enter_async_context(NatsCluster(stage.folder / "cluster"))
    await cluster.declare()
    await stage.up(nats=cluster.url)
    stream = stage.chance.choice([s.INGRESS, s.WORK, s.EVENTS])
    number = await cluster.leader(stream)
    await stage.work(30)
    await stage.calls_running()
    stage.fault(f"kill -9 of n{number}, which leads {stream}")
    cluster.kill(number)
    new = await stage.work(10)
    service_seconds = await stage.recovered(new)
    # What was on its way to a worker when the leader died comes again when its lease ends.
    all_seconds = await stage.recovered()
    assert all_seconds < LEADER_AND_LEASE_SECONDS, f"all that was held took {all_seconds:.1f} s"
    stage.recovery_seconds = service_seconds
    await cluster.restart(number)
    stage.note(f"n{number} is back")
    await stage.checked(IN_FLIGHT)


async def partition(stage: Stage, *, way: str) -> None:
    """Parts one of two workers from the broker, in one direction, for longer than its leases last."""
    await stage.up(without=["worker-pool"])
    proxy = await _proxied_worker(stage)
    await stage.work(30)
    await stage.calls_running()
    await stage.serve("worker-pool")
    stage.fault(f"the {way} way between the first worker and the broker is held")
    (proxy.up if way == "up" else proxy.down).held = True
    await stage.until_seconds_after_the_fault(ACK_WAIT_SECONDS + 8)
    proxy.heal()
    stage.note("healed")
    await stage.recovered()
    await stage.checked(IN_FLIGHT)


async def cut_connection(stage: Stage) -> None:
    """Cuts the only worker's connection again and again while it works."""
    await stage.up(without=["worker-pool"])
    proxy = await _proxied_worker(stage)
    await stage.work(40)
    await stage.calls_running()
    stage.fault("connection of the worker reset, five times")
    for _ in range(5):
        proxy.reset_all()
        await asyncio.sleep(stage.chance.uniform(0.2, 0.8))
    await stage.recovered()
    await stage.checked(IN_FLIGHT)


async def slow_network(stage: Stage) -> None:
    """Puts 500 ms of latency, jitter and loss between the only worker and the broker."""
    await stage.up(without=["worker-pool"])
    proxy = await _proxied_worker(stage)
    stage.fault("500 ms of latency, 100 ms of jitter, 2 % loss between the worker and the broker")
    for way in (proxy.up, proxy.down):
        way.latency_ms, way.jitter_ms, way.loss, way.stall_ms = 500, 100, 0.02, 800
    await stage.work(40)
    await stage.recovered()
    await stage.checked(NOTHING_IN_FLIGHT)
    proxy.heal()


async def _proxied_worker(stage: Stage) -> TcpProxy:
    address = stage.sources().runtime().nats
    host, port = address.removeprefix("nats://").split(":")
    proxy = await stage.stack.enter_async_context(TcpProxy(host, int(port), seed=stage.seed))
    await stage.serve("worker-pool", COLLEGIUM_NATS__URL=f"nats://127.0.0.1:{proxy.port}")
    return proxy


async def many_reconnect(stage: Stage) -> None:
    """Two hundred clients that follow tasks lose their connections at once and come back at once."""
    await stage.up()
    host, port = stage.http.removeprefix("http://").split(":")
    proxy = await stage.stack.enter_async_context(TcpProxy(host, int(port), seed=stage.seed))
    ids = await stage.work(40)
    followers = [asyncio.create_task(_follow(stage, proxy.port, stage.chance.choice(ids))) for _ in range(200)]
    await stage.calls_running()
    stage.fault("200 event streams reset at once")
    proxy.reset_all()
    endings = await asyncio.gather(*followers)
    assert all(number == 1 for number in endings), "every client sees one end, whatever it missed"
    await stage.recovered()
    await stage.checked(NOTHING_IN_FLIGHT)


async def _follow(stage: Stage, port: int, task_id: str) -> int:
    """Follows a task's events over reconnects; returns how many ends it saw."""
    headers = {"Authorization": f"Bearer {stage.keys['chaos']}"}
    last = ""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
        while True:
            ends = 0
            resume = {"Last-Event-ID": last} if last else {}
            try:
                async with session.get(f"/v1/tasks/{task_id}/events", headers=resume) as response:
                    if response.status == 503:
                        await asyncio.sleep(0.2)
                        continue
                    assert response.status == 200, await response.text()
                    async for line in response.content:
                        if line.startswith(b"id:"):
                            last = line[3:].strip().decode()
                        ends += line.startswith(b"event: done")
            except (aiohttp.ClientError, OSError):
                continue
            if ends:
                return ends
