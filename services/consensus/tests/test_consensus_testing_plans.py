"""Plans with tests on a real broker: an answer counts from when it was tested, once, whoever is killed in between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest
from collegium_consensus.app import build
from collegium_consensus.testing import testers
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.code_tests import CodeTest, encode_tests
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import (
    AttemptAsked,
    AttemptTested,
    Sampling,
    TaskDispatched,
    TaskRef,
    TaskSubmitted,
)
from collegium_runtime.platform import Platform
from collegium_testing import eventually

TESTS = [CodeTest(call="f(2)", equals=4), CodeTest(code="assert f(3) == 9")]
RIGHT = "```python\ndef f(x):\n    return x * x\n```"
ALSO_RIGHT = "```python\nf = lambda n: n ** 2\n```"
WRONG = "```python\ndef f(x):\n    return x + 2\n```"
LACKS = "```python\nimport heapq\ndef f(x):\n    return x * x\n```"


@asynccontextmanager
async def judging(platform: Platform) -> AsyncIterator[None]:
    app = build(platform)
    await app.start()
    try:
        yield
    finally:
        await app.stop()


@asynccontextmanager
async def idle_testers(platform: Platform) -> AsyncIterator[testers.Testers]:
    """Gives testers that have not started yet."""
    tester = testers.Testers(platform)
    try:
        yield tester
    finally:
        await tester.stop()


async def begin(platform: Platform, task: TaskRef, of: int, *, tests: bool = True) -> None:
    """Tells that a plan began, as the router does before it sends its first attempt."""
    submitted = TaskSubmitted(
        task=task,
        prompt=Envelope("identity", b"", b"[]"),
        sampling=Sampling(answer="code"),
        prompt_bytes=2,
        tests=Envelope("identity", b"", encode_tests(TESTS)) if tests else None,
    )
    message = TaskDispatched(task=task, plan=task.plan, models=["m1"], at_ms=1, submitted=submitted, of=of)
    await platform.publisher.publish(
        s.task_changed(task.tenant, task.id), codec.encode(message), message_id=f"{task.id}.dispatched"
    )


async def message_on(platform: Platform, subject: str) -> Any:
    async def standing() -> Any:
        return await platform.direct.last(s.EVENTS, subject)

    return codec.journey.decode((await eventually(standing, deadline_seconds=60)).payload)


async def result_of(platform: Platform, task: TaskRef, number: int) -> AttemptTested:
    return await message_on(platform, s.attempt_tested(task.tenant, task.id, number))


async def settled(platform: Platform, task: TaskRef) -> Any:
    return await message_on(platform, s.task_settled(task.tenant, task.id))


async def test_a_panel_asks_one_by_one_until_an_answer_passes(platforms: Any, make: Any, end_attempt: Any) -> None:
    platform, task = await platforms(), make.task(tests=2)
    await begin(platform, task, 3)
    async with judging(platform):
        await end_attempt(platform, make.answered(1, WRONG, task=task))
        asked = await message_on(platform, s.attempt_asked(task.tenant, task.id, 2))
        assert isinstance(asked, AttemptAsked)
        assert (asked.reason, asked.confidence) == ("tests", 0.05)
        await end_attempt(platform, make.answered(2, RIGHT, task=task))
        verdict = await settled(platform, task)
    one, other = await result_of(platform, task, 1), await result_of(platform, task, 2)
    assert (one.state, one.passed, one.of, one.note) == ("failed", 1, 2, "differs")
    assert (other.state, other.passed, other.of, other.note) == ("passed", 2, 2, "")
    assert (verdict.model, verdict.stop_reason, verdict.confidence) == ("m2", "completed", pytest.approx(0.8333))
    said = verdict.evidence.said
    assert [(each.tested, each.passed, each.is_given) for each in said] == [("failed", 1, False), ("passed", 2, True)]
    assert await platform.direct.last(s.EVENTS, s.attempt_asked(task.tenant, task.id, 3)) is None


async def test_other_words_for_the_same_are_the_same_answer(platforms: Any, make: Any, end_attempt: Any) -> None:
    platform, task = await platforms(), make.task(tests=2)
    await begin(platform, task, 3)
    for number, text in ((1, RIGHT), (2, ALSO_RIGHT)):
        await end_attempt(platform, make.answered(number, text, task=task))
        behaviour = b"hash"
        told = AttemptTested(
            task=task,
            attempt=make.attempt(number),
            state="failed",
            passed=1,
            of=2,
            at_ms=1,
            note="differs",
            behaviour=Envelope("identity", b"", behaviour),
        )
        subject = s.attempt_tested(task.tenant, task.id, number)
        await platform.publisher.publish(subject, codec.encode(told), message_id=f"{number}", create_once=True)
    await end_attempt(platform, make.failed(3, task=task))
    async with judging(platform):
        verdict = await settled(platform, task)
    # What stood before is what counts, though running these would have said that they pass.
    assert (verdict.stop_reason, verdict.confidence) == ("tests_failed", 0.05)
    assert [each.camp for each in verdict.evidence.said] == [1, 1, 0]


async def test_whoever_was_killed_after_an_answer_left_its_tests_to_the_next(
    platforms: Any, make: Any, end_attempt: Any
) -> None:
    platform, task = await platforms(), make.task(tests=2, plan="single")
    await begin(platform, task, 1)
    await end_attempt(platform, make.answered(1, WRONG, of=1, task=task, plan="single"))
    async with judging(await platforms()), judging(await platforms()):
        verdict = await settled(platform, task)
    assert (verdict.plan, verdict.stop_reason) == ("single", "tests_failed")
    assert (await result_of(platform, task, 1)).state == "failed"


@pytest.mark.parametrize(("text", "has_tests", "note"), [(LACKS, True, "lacks"), (RIGHT, False, "crashed")])
async def test_what_could_not_be_run_is_handed_out_and_says_so(
    platforms: Any, make: Any, end_attempt: Any, text: str, has_tests: bool, note: str
) -> None:
    platform, task = await platforms(), make.task(tests=2, plan="single")
    await begin(platform, task, 1, tests=has_tests)
    await end_attempt(platform, make.answered(1, text, of=1, task=task, plan="single"))
    async with judging(platform):
        verdict = await settled(platform, task)
    assert (verdict.stop_reason, (await result_of(platform, task, 1)).note) == ("tests_not_run", note)


async def test_an_answer_whose_time_is_over_is_not_run(platforms: Any, make: Any, end_attempt: Any) -> None:
    task = make.task(tests=2)
    platform = await platforms(now_ms=lambda: task.deadline_ms + 10)
    await begin(platform, task, 3)
    await end_attempt(platform, make.answered(1, RIGHT, task=task))
    async with judging(platform):
        verdict = await settled(platform, task)
    assert (verdict.stop_reason, verdict.model) == ("deadline", "m1")
    assert (await result_of(platform, task, 1)).note == "late"


async def test_however_many_answers_of_a_tenant_come_at_once_each_is_run(
    platforms: Any, make: Any, end_attempt: Any
) -> None:
    platform = await platforms()
    tasks = [make.task(str(number), tests=2, plan="single") for number in range(20)]
    for task in tasks:
        await begin(platform, task, 1)
        await end_attempt(platform, make.answered(1, RIGHT, of=1, task=task, plan="single"))
    async with idle_testers(platform) as tester:
        tester.start()
        results = [await result_of(platform, task, 1) for task in tasks]
    assert [(one.state, one.note) for one in results] == [("passed", "")] * 20


@pytest.mark.parametrize(("is_late", "note"), [(False, ""), (True, "late")])
async def test_what_finds_no_place_comes_again_until_its_time_is_over(
    platforms: Any, make: Any, end_attempt: Any, is_late: bool, note: str
) -> None:
    task, clock = make.task(tests=2), [make.now_ms]
    platform = await platforms(now_ms=lambda: clock[0])
    await begin(platform, task, 3)
    await end_attempt(platform, make.answered(1, RIGHT, task=task))
    async with idle_testers(platform) as tester:
        with ExitStack() as held:
            while held.enter_context(tester._pool.place(task.tenant)) is not None:
                pass
            tester.start()
            await eventually(lambda: deliveries_are(platform, 3), deadline_seconds=60)
            assert await platform.direct.last(s.EVENTS, s.attempt_tested(task.tenant, task.id, 1)) is None
            if is_late:
                clock[0] = task.deadline_ms
                assert (await result_of(platform, task, 1)).note == note
        assert (await result_of(platform, task, 1)).note == note


async def deliveries_are(platform: Platform, count: int) -> bool:
    told = msgspec.json.decode(await platform.connection.api("CONSUMER.INFO.EVENTS.testers"))
    return told["delivered"]["consumer_seq"] >= count


async def test_an_end_that_names_no_tests_is_not_read(platforms: Any, make: Any, end_attempt: Any) -> None:
    platform = await platforms()
    first, second = make.task("1", tests=2), make.task("2", tests=2)
    for task in (first, second):
        await begin(platform, task, 3)
    await end_attempt(platform, make.answered(1, RIGHT, task=first), note="")
    await end_attempt(platform, make.answered(1, RIGHT, task=second))
    async with idle_testers(platform) as tester:
        tester.start()
        await result_of(platform, second, 1)
        await eventually(lambda: tester._loop.running == 0, deadline_seconds=60)
        assert await platform.direct.last(s.EVENTS, s.attempt_tested(first.tenant, first.id, 1)) is None


async def test_an_answer_that_nobody_tested_is_given_when_time_is_over(
    platforms: Any, make: Any, end_attempt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testers.Testers, "start", lambda _self: None)
    task, clock = make.task(tests=2), [make.now_ms]
    platform = await platforms(now_ms=lambda: clock[0])
    await begin(platform, task, 3)
    await end_attempt(platform, make.answered(1, RIGHT, task=task))
    app = build(platform)
    await app.start()
    await eventually(lambda: app.watched, deadline_seconds=60)
    clock[0] = task.deadline_ms + 1_000
    verdict = await settled(platform, task)
    await app.stop()
    assert (verdict.stop_reason, verdict.model) == ("deadline", "m1")
    assert [(each.tested, each.is_given) for each in verdict.evidence.said] == [("not_run", True)]
