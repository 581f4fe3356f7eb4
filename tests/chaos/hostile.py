"""Scenarios: full disks and streams, messages nobody understands, duplicates, wrong clocks, bad endpoints."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
from collegium_bus.connection import Connection
from collegium_bus.publisher import Publisher
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.content import ChatMessage, encode_content
from collegium_contracts.envelope import IdentityKeyring
from collegium_contracts.journey import HOPS
from collegium_contracts.messages import CancelRequested, Sampling, TaskRef, TaskSubmitted, TokenChunk
from collegium_runtime.platform import CLOCK_OFFSET_VARIABLE, unix_ms
from collegium_testing import Behaviour, Rule, eventually
from collegium_testing.faults import facts
from collegium_testing.faults.broker import OwnBroker
from collegium_testing.faults.checker import Expected
from collegium_testing.faults.disks import NoSmallDiskError, filled, small_disk

from tests.chaos.stage import CALL_MS, CONCURRENCY, Stage

NOTHING_IN_FLIGHT = Expected()
IN_FLIGHT = Expected(killed_in_flight=True)
ENDED = Expected(states=frozenset(("completed", "failed")))
DISK_BYTES = 48 * 1024 * 1024


async def full_disk(stage: Stage) -> None:
    """Fills the broker's disk under load; what is refused is refused with a code, and room makes it go on."""
    try:
        disk = stage.stack.enter_context(small_disk(stage.folder / "disk", size_bytes=DISK_BYTES))
    except NoSmallDiskError as error:
        stage.remark = f"by a stream's limit, because no file system may be mounted here: {error}"
        await _full_stream(stage)
        return
    broker = await stage.stack.enter_async_context(OwnBroker(stage.folder / "broker", store=disk / "store"))
    await stage.up(nats=broker.url)
    await stage.work(20)
    await stage.calls_running()
    with filled(disk):
        stage.fault("the broker's disk is full")
        statuses = await _until_refused(stage)
        stage.note(f"the door answered {statuses}")
    stage.note("there is room again")
    # A broker that could not write switches its streams off until it is started again.
    await broker.stop()
    await broker.start()
    stage.note("broker started again")
    await stage.work(10)
    await stage.recovered()
    await stage.checked(IN_FLIGHT)


async def _full_stream(stage: Stage) -> None:
    """Lets INGRESS hold a few large tasks only."""
    await stage.up()
    await stage.work(20)
    async with facts.operator(stage.sources()) as connection:
        await _reconfigure(connection, s.INGRESS, max_bytes=50_000)
        stage.fault("INGRESS holds 50 KB")
        stage.note(f"the door answered {await _until_refused(stage)}")
        await _reconfigure(connection, s.INGRESS, max_bytes=10_000_000)
    await stage.work(10)
    await stage.recovered()
    await stage.checked(NOTHING_IN_FLIGHT)


async def _until_refused(stage: Stage) -> list[int]:
    """Submits large tasks until one is refused; returns the statuses seen."""
    body = {"input": "x" * 100_000, "deadline_seconds": 300}
    statuses: list[int] = []
    headers = {"Authorization": f"Bearer {stage.keys['chaos']}"}
    async with aiohttp.ClientSession(stage.http, headers=headers) as session:
        while not statuses or statuses[-1] == 202:
            async with session.post("/v1/tasks", json=body) as response:
                statuses.append(response.status)
                if response.status == 202:
                    stage.load.accepted[response.headers["x-collegium-task-id"]] = 0.0
                else:
                    assert response.status in (429, 503), await response.text()
                    assert int(response.headers["Retry-After"]) >= 1
    return sorted(set(statuses))


async def stream_at_its_limit(stage: Stage) -> None:
    """Fills one tenant's share of INGRESS while no router takes from it: 429 for it, nothing for others."""
    # A gateway is ready once a router has published the roster.
    await stage.up(without=["router", "gateway"])
    router = await stage.serve("router")
    await stage.serve("gateway")
    router.kill()
    stage.services.remove(router)
    async with facts.operator(stage.sources()) as connection:
        await _reconfigure(connection, s.INGRESS, max_msgs_per_subject=20)
    stage.fault("20 tasks a tenant and priority fit INGRESS, and nobody takes them away")
    flood = asyncio.create_task(stage.load.submit(40))
    await eventually(lambda: stage.load.refused.get("429 tenant_queue_full", 0) >= 5)
    headers = {"Authorization": f"Bearer {stage.keys['other']}"}
    async with (
        aiohttp.ClientSession(stage.http, headers=headers) as session,
        session.post("/v1/tasks", json={"input": "of another tenant", "deadline_seconds": 300}) as response,
    ):
        assert response.status == 202, "another tenant is not affected"
    await stage.serve("router")
    await flood
    await stage.recovered()
    await stage.checked(NOTHING_IN_FLIGHT)


async def malformed_bytes(stage: Stage) -> None:
    """Puts bytes that are no message on every subject of the journey, and shapes that are the wrong message."""
    await stage.up()
    await stage.work(20)
    await stage.calls_running(least=2)
    stage.fault("malformed bytes on every subject")
    sent = 0
    async with facts.operator(stage.sources()) as connection:
        publisher = Publisher(connection)
        for hop in HOPS:
            if hop.filter == s.DEAD_ALL:
                continue
            for payload in (b"", b"\xff\x00garbage", b"{}", os.urandom(64), _another(hop.messages)):
                subject = _concrete(hop.filter)
                if hop.stream is None:
                    connection.publish(subject, payload)
                else:
                    await publisher.publish(subject, payload, message_id="", headers={s.H_TENANT: "chaos"})
                    sent += 1
    stage.note(f"{sent} stored messages that nobody can read")
    await stage.work(10)
    await stage.recovered()
    await stage.checked(NOTHING_IN_FLIGHT)
    async with facts.operator(stage.sources()) as connection:
        letters = await facts.read_all(connection, s.DEAD, [s.DEAD_ALL])
    buried = {letter.subject.split(".")[1] for letter in letters}
    assert {"router", "worker-pool", "billing"} <= buried, f"dead letters of {buried}"


def _concrete(subject_filter: str) -> str:
    """Returns a subject that a filter lets through, of a tenant and a task that look right."""
    tokens = subject_filter.replace("*", "1").split(".")
    if tokens[-1] == ">":
        tokens[-1:] = {"task": ["chaos", "tsk_broken"], "work": ["general", "normal"]}.get(
            tokens[0], ["chaos", "tsk_x"]
        )
    for known, subject_of in ((s.TASK_SUBMITTED_ALL, s.task_submitted), (s.TASK_MORE_ALL, s.task_more)):
        if subject_filter == known:
            return subject_of("normal", ids.shard_of("chaos"), "chaos")
    return ".".join(tokens)


def _another(messages: tuple[str, ...]) -> bytes:
    """Returns a well-formed message of a kind that may not stand there."""
    other = TokenChunk(
        task_id="tsk_x", attempt=1, delivery=1, number=1, text=IdentityKeyring().seal("chaos", b"x"), model="sim"
    )
    if "TokenChunk" in messages:
        return codec.encode(CancelRequested(task_id="tsk_x", tenant="chaos", at_ms=1))
    return codec.encode(other)


async def poison(stage: Stage) -> None:
    """Hands the workers attempts that fail in their handling every time; they end as dead letters."""
    await stage.up()
    async with facts.operator(stage.sources()) as connection:
        publisher = Publisher(connection)
        stage.fault("RunAttempt messages that name a claim that is not there")
        for number in range(5):
            headers = {s.H_TENANT: "chaos", s.H_CLAIM: f"missing-{number}"}
            await publisher.publish(s.work("general", "normal"), b"", message_id=f"poison-{number}", headers=headers)
        await stage.work(20)
        await stage.recovered()

        async def buried() -> bool:
            return len(await facts.read_all(connection, s.DEAD, [s.DEAD_ALL])) >= 5

        await eventually(buried, deadline_seconds=100, every_seconds=1)
    await stage.checked(NOTHING_IN_FLIGHT)


async def late_duplicates(stage: Stage) -> None:
    """Submits the same tasks again after the broker forgot their ids: while they run, and after they settled."""
    await stage.up()
    async with facts.operator(stage.sources()) as connection:
        for stream in (s.INGRESS, s.WORK, s.EVENTS):
            await _reconfigure(connection, stream, duplicate_window=100_000_000)
        publisher = Publisher(connection)
        tasks = [_submitted() for _ in range(CONCURRENCY)]
        stage.fault("every task submitted three times, beyond the duplicate window")
        for again in range(3):
            for submitted in tasks:
                subject = s.task_submitted("normal", ids.shard_of("chaos"), "chaos")
                message_id = f"{submitted.task.id}.{again}"
                await publisher.publish(subject, codec.encode(submitted), message_id=message_id)
                stage.load.accepted[submitted.task.id] = 0.0
            await asyncio.sleep(0.2)
        await stage.recovered()
        for submitted in tasks:
            subject = s.task_submitted("normal", ids.shard_of("chaos"), "chaos")
            await publisher.publish(subject, codec.encode(submitted), message_id=f"{submitted.task.id}.last")
        stage.note("and once more after all settled")
    await stage.checked(NOTHING_IN_FLIGHT)


def _submitted() -> TaskSubmitted:
    now = unix_ms()
    prompt = encode_content([ChatMessage(role="user", content="again and again")])
    task = TaskRef(
        id=ids.task_id(now, os.urandom(10)),
        tenant="chaos",
        created_at_ms=now,
        deadline_ms=now + 300_000,
        model="auto",
        surface="tasks",
        tier="pro",
    )
    return TaskSubmitted(
        task=task, prompt=IdentityKeyring().seal("chaos", prompt), sampling=Sampling(), prompt_bytes=len(prompt)
    )


async def wrong_clock(stage: Stage, *, service: str, seconds: int) -> None:
    """Runs one service with its clock ten minutes off; long deadlines hold, short ones end each task once."""
    # A gateway is ready once a router has published the roster, and billing the tenants.
    apart = [service] if service == "worker-pool" else list(dict.fromkeys([service, "gateway"]))
    await stage.up(without=apart)
    for name in apart:
        await stage.serve(name, **({CLOCK_OFFSET_VARIABLE: str(seconds)} if name == service else {}))
    stage.fault(f"the clock of {service} is off by {seconds} s")
    long_ones = await stage.load.submit(15, deadline_seconds=1500)
    await stage.load.submit(10, deadline_seconds=30)
    await stage.recovered()
    collected = await stage.checked(ENDED)
    for task_id in long_ones:
        assert collected.shown[task_id] == "completed", f"{task_id} had more time than the clock is off"


async def bad_upstream(stage: Stage, *, times: int | None) -> None:
    """Lets the endpoint refuse, fail, hang, break off and talk nonsense: for a while, or for ever."""
    await stage.up(model={"timeout_seconds": 3})
    troubles: Mapping[str, Behaviour] = {
        "busy": Behaviour(status=429, retry_after_seconds=1),
        "broken": Behaviour(status=500),
        "gone": Behaviour(status=503),
        "silent": Behaviour(hang=True),
        "half": Behaviour(cut_stream_after=1, answer="one two three", token_delay_ms=5),
        "garbage": Behaviour(garbage="json"),
        "page": Behaviour(garbage="html"),
    }
    rules = [Rule(behaviour, match=name, times=times) for name, behaviour in troubles.items()]
    stage.simulator.script(*rules, Rule(Behaviour(answer="done", delay_ms=CALL_MS)))
    stage.fault(f"the endpoint misbehaves in {len(troubles)} ways, {'for ever' if times is None else f'{times} times'}")
    asked: list[Any] = [stage.load.submit(3, input=f"{name} please", deadline_seconds=40) for name in troubles]
    await asyncio.gather(*asked, stage.load.submit(10))
    await stage.recovered()
    expected = Expected(
        states=frozenset(("completed", "failed")), estimates=True, failures_are_dead=stage.failures_are_dead
    )
    await stage.checked(expected)


async def _reconfigure(connection: Connection, stream: str, **fields: Any) -> None:
    """Changes a stream as an operator may."""
    info = msgspec.json.decode(await connection.api(f"STREAM.INFO.{stream}"))
    body = msgspec.json.encode(info["config"] | fields)
    reply = msgspec.json.decode(await connection.api(f"STREAM.UPDATE.{stream}", body))
    assert "error" not in reply, reply
