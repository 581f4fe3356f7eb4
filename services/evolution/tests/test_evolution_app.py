"""Evolution on a real broker and a real database: events in, the scoreboard out."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import asyncpg
import pytest
from collegium_bus.ask import ask
from collegium_bus.errors import RequestRefusedError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.evolution import CyclesAsk, CyclesReply, RankChangeAsk, RankHistoryReply, RankRollbackAsk
from collegium_contracts.experiment_requests import (
    ExperimentCreate,
    ExperimentsReply,
    FlagsReply,
    FlagSwitch,
    HoldoutSet,
)
from collegium_contracts.experiments import Change, Running
from collegium_contracts.messages import DeadLetter, Message
from collegium_contracts.policy_requests import PoliciesReply, PolicyRollback
from collegium_contracts.state import Scoreboard
from collegium_contracts.students import StudentSpawn, StudentsReply
from collegium_evolution.app import build
from collegium_runtime.platform import Platform
from collegium_telemetry.tracing import setup
from collegium_testing import eventually
from collegium_testing.otlp import OtlpReceiver

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def published(platform: Platform) -> Scoreboard | None:
    entry = await Bucket(platform.connection, s.KV_POLICY).get(s.SCOREBOARD_KEY)
    value = codec.state.decode(entry.value) if entry is not None else None
    assert value is None or isinstance(value, Scoreboard)
    return value


async def wait_calls(platform: Platform, calls: int) -> Scoreboard:
    async def there() -> Scoreboard | bool:
        board = await published(platform)
        if board is None or sum(score.calls for score in board.scores) < calls:
            return False
        return board

    board = await eventually(there)
    assert isinstance(board, Scoreboard)
    return board


async def test_two_replicas_publish_one_scoreboard(platforms: Any, make: Any, tell: Any, rng: random.Random) -> None:
    first, second = await platforms(), await platforms()
    apps = [build(first), build(second)]
    for app in apps:
        await app.start()
    messages: list[Any] = []
    for number in range(40):
        task = make.task(str(number), domain="maths" if number % 2 else "")
        if number % 4 == 0:
            calls = [make.call(place, model="big") for place in (1, 2, 3)]
            messages += [make.ended(task, call) for call in calls] + [make.settled(task, calls)]
        else:
            code = "upstream_error" if number % 10 == 1 else ""
            messages.append(make.settled(task, [make.call(model="small", error_code=code, duration_ms=200)]))
    rng.shuffle(messages)
    await asyncio.gather(*(tell(first, message) for message in messages))
    board = await wait_calls(first, 60)
    found = {(score.model, score.domain): (score.calls, score.succeeded) for score in board.scores}
    assert found == {("big", ""): (30, 30), ("small", "maths"): (20, 16), ("small", ""): (10, 10)}
    medians = {score.model: score.duration_ms_p50 for score in board.scores}
    assert medians == pytest.approx({"big": 100, "small": 200}, rel=0.05)
    assert all(app.readiness() == {"folding": True} for app in apps)
    for app in apps:
        await app.stop()


async def test_a_restart_goes_on_and_a_lost_scoreboard_is_published_anew(platforms: Any, make: Any, tell: Any) -> None:
    platform = await platforms()
    app = build(platform)
    await app.start()
    await tell(platform, make.settled(make.task("1"), [make.call()]))
    assert (await wait_calls(platform, 1)).folded_sequence == 1
    await app.stop()
    await tell(platform, make.settled(make.task("2"), [make.call()]))
    await platform.connection.api("STREAM.PURGE.KV_policy")
    successor = build(await platforms())
    await successor.start()
    board = await wait_calls(platform, 2)
    assert (board.scores[0].calls, board.folded_sequence) == (2, 2)
    await successor.stop()


async def test_a_corrupted_scoreboard_is_published_anew_and_told_of(platforms: Any, make: Any, tell: Any) -> None:
    platform = await platforms()
    await tell(platform, make.settled(make.task("1"), [make.call()]))
    await Bucket(platform.connection, s.KV_POLICY).put(s.SCOREBOARD_KEY, b"\xc1 no scoreboard")
    app = build(platform)
    await app.start()

    async def readable() -> bool:
        entry = await Bucket(platform.connection, s.KV_POLICY).get(s.SCOREBOARD_KEY)
        assert entry is not None
        value = codec.state.decode(entry.value) if entry.value[:1] != b"\xc1" else None
        return isinstance(value, Scoreboard) and bool(value.scores)

    await eventually(readable)
    assert b"collegium_policy_unreadable_total 1.0" in platform.metrics.render()
    await app.stop()


async def test_what_cannot_be_scored_is_dead_lettered_and_the_rest_is_folded(
    platforms: Any, make: Any, tell: Any
) -> None:
    platform = await platforms()
    await tell(platform, make.settled(make.task("1"), [make.call()]))
    await tell(platform, make.settled(make.task("2"), [make.call(duration_ms=2**63)]))
    await tell(platform, make.settled(make.task("3"), [make.call(model="nul\x00")]))
    await platform.publisher.publish(s.task_settled("acme", "garbage"), b"\xc1", message_id="garbage")
    await tell(platform, make.settled(make.task("4"), [make.call()]))
    app = build(platform)
    await app.start()
    board = await wait_calls(platform, 2)
    assert [(score.model, score.calls) for score in board.scores] == [("m", 2)]

    async def buried() -> bool:
        stored = await platform.direct.last(s.DEAD, s.DEAD_ALL)
        if stored is None or stored.sequence < 3:
            return False
        letter = codec.journey.decode(stored.payload)
        return isinstance(letter, DeadLetter) and letter.service == "evolution"

    await eventually(buried)
    await app.stop()


@pytest.mark.parametrize("tenant", ["*", ">", "a.b", "x y", "../../etc/passwd", "zz 1\r\nPUB audit.globex 5", "a\x00"])
async def test_whoever_asks_about_a_tenant_that_can_be_none_is_refused(
    platforms: Any, database_url: str, tenant: str
) -> None:
    platform = await platforms()
    app = build(platform)
    await app.start()
    change = Change(model="m")
    running = Running(id="", kind="model", control=change, candidate=change, tenant=tenant)
    questions: list[tuple[str, Message, type[Message]]] = [
        (s.SVC_EVOLUTION_RANKS, RankChangeAsk(model="m", rank="ta", domain="d", tenant=tenant), RankHistoryReply),
        (s.SVC_EVOLUTION_RANKS, RankRollbackAsk(model="m", domain="d", tenant=tenant), RankHistoryReply),
        (s.SVC_EVOLUTION_EXPERIMENTS, HoldoutSet(tenant=tenant, share=0.1, by="k"), FlagsReply),
        (s.SVC_EVOLUTION_EXPERIMENTS, FlagSwitch(tenant=tenant, name="", to="killed", by="k"), FlagsReply),
        (s.SVC_EVOLUTION_EXPERIMENTS, ExperimentCreate(running=running, name="e", by="k"), ExperimentsReply),
        (s.SVC_EVOLUTION_POLICIES, PolicyRollback(tenant=tenant, by="k"), PoliciesReply),
        (s.SVC_EVOLUTION_STUDENTS, StudentSpawn(tenant=tenant, domain="d", by="k", grants=[]), StudentsReply),
    ]
    for subject, question, expected in questions:
        with pytest.raises(RequestRefusedError) as refused:
            await ask(platform.connection, subject, question, expected)
        assert (refused.value.code, refused.value.param) == ("invalid_value", "tenant"), question
    looking = await asyncpg.connect(database_url)
    for table in ("rank_changes", "experiment_sets", "experiments", "students"):
        assert await looking.fetchval(f"SELECT count(*) FROM evolution.{table} WHERE tenant <> ''") == 0, table
    await looking.close()
    with pytest.raises(RequestRefusedError) as refused:
        await ask(platform.connection, s.SVC_EVOLUTION_CYCLES, CyclesAsk(id="a\x00"), CyclesReply)
    assert refused.value.code == "invalid_value"
    await app.stop()


async def test_sampled_hops_are_spans(platforms: Any, make: Any, tell: Any) -> None:
    with OtlpReceiver() as receiver:
        tracing = setup("evolution", otlp_endpoint=receiver.endpoint, sample_ratio=1.0)
        platform = await platforms(tracing)
        app = build(platform)
        await app.start()
        task = make.task("1")
        await tell(platform, make.settled(make.task("2"), [make.call()]), TRACEPARENT[:-2] + "00")
        await tell(platform, make.ended(task, make.call(1)), TRACEPARENT)
        await tell(platform, make.discarded(task, make.call(1, delivery=2), of=3), TRACEPARENT)
        await tell(platform, make.settled(task, [make.call(1), make.call(2)]), TRACEPARENT)
        await wait_calls(platform, 3)
        await app.stop()
        assert tracing.flush()
        assert {span.name for span in receiver.spans} == {"evolution fold"}
        assert sorted(span.attributes["messaging.destination.name"] for span in receiver.spans) == [
            "attempt.<tenant>.<task>.<n>.discarded.<delivery>",
            "attempt.<tenant>.<task>.<n>.ended",
            "task.settled.<tenant>.<task>",
        ]
        await tracing.aclose()
