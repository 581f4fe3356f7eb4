"""What a model wrote, run for real: nothing that it does reaches further than its own process, and it ends in time."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from collegium_consensus.testing import child
from collegium_consensus.testing.child import Checked, Question, check
from collegium_consensus.testing.pool import CROWDED, PLACES, TENANT_PLACES, Pool
from collegium_contracts.code_tests import CodeTest
from collegium_testing import eventually

AT_MS = 1_767_225_600_000
TESTS = [CodeTest(call="f(2)", equals=4), CodeTest(call="f(-3)", equals=9), CodeTest(code="assert f(0) == 0")]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other tests is not to be taken for slow code."""
    monkeypatch.setattr(child, "CALL_SECONDS", 30.0)
    monkeypatch.setattr(child, "ANSWER_SECONDS", 60.0)


def fenced(code: str) -> str:
    return f"Here you are:\n```python\n{code}\n```\n"


def told(code: str, tests: list[CodeTest] | None = None) -> tuple[str, str, int]:
    checked = check(Question(1, fenced(code), tests or TESTS, AT_MS))
    return checked.state, checked.note, checked.passed


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("def f(x):\n    return x * x", ("passed", "", 3)),
        ("f = lambda x: x ** 2", ("passed", "", 3)),
        ("def f(x):\n    return abs(x) * 2", ("failed", "differs", 2)),
        ("def f(x):\n    return g(x)", ("failed", "raised", 0)),
        ("def f():\n    return 4", ("failed", "raised", 0)),
        ("def f(x) return x", ("failed", "syntax", 0)),
        ("def f(x):\n    return f(x + 1)", ("failed", "raised", 0)),
        ("raise SystemExit", ("failed", "raised", 0)),
        ("def f(x):\n    raise TimeoutError('too slow')", ("failed", "raised", 0)),
        ("def f(x):\n    return monty_hall(x)", ("failed", "raised", 0)),
        ("def f(x):\n    yield x", ("not_run", "lacks", 0)),
        ("import heapq\ndef f(x):\n    return x * x", ("not_run", "lacks", 0)),
        ("import socket\ndef f(x):\n    return x * x", ("not_run", "lacks", 0)),
        ("def f(x):\n    return open('/etc/passwd').read()", ("not_run", "lacks", 0)),
        ("import os\ndef f(x):\n    return os.listdir('/')", ("not_run", "lacks", 0)),
        (
            "class A:\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return A()",
            ("failed", "differs", 1),
        ),
        ("x = 'a'\nwhile True:\n    x = x + x", ("failed", "memory", 0)),
        ("def f(x):\n    return [0] * 10**12", ("failed", "memory", 0)),
        ("def f(x):\n    return 10 ** 10 ** 10", ("failed", "memory", 0)),
        ("def f(x):\n    r = []\n    for i in range(50_000):\n        r = [r]\n    return r", ("failed", "differs", 0)),
    ],
)
def test_an_answer_passes_fails_or_could_not_be_run(code: str, wanted: tuple[str, str, int]) -> None:
    assert told(code) == wanted


def test_an_endless_loop_ends_and_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "CALL_SECONDS", 0.1)
    monkeypatch.setattr(child, "STARVED_SECONDS", 0.0)
    assert told("def f(x):\n    while True:\n        pass") == ("failed", "time", 0)
    assert told("while True:\n    pass") == ("failed", "time", 0)


def test_what_was_kept_waiting_is_not_called_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "CALL_SECONDS", 0.1)
    monkeypatch.setattr(child, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(child, "STARVED_SECONDS", 1_000.0)
    assert told("def f(x):\n    while True:\n        pass") == ("not_run", "busy", 0)


def test_answers_of_the_same_behaviour_share_it_and_each_test_begins_anew() -> None:
    def of(code: str) -> bytes:
        return check(Question(1, fenced(code), TESTS, AT_MS)).behaviour

    assert of("def f(x):\n    return x + 2") == of("def f(x):\n    y = 2\n    return y + x") != of("def f(x): return 1")
    counted = "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)"
    assert told(counted, [CodeTest(call="f(1)", equals=1), CodeTest(call="f(2)", equals=1)]) == ("passed", "", 2)


def test_time_and_chance_are_the_same_for_everybody() -> None:
    code = "import random, datetime\ndef f():\n    return [random.random(), datetime.datetime.now().isoformat()]"
    tests = [CodeTest(call="f()[1]", equals="2026-01-01T00:00:00")]
    assert told(code, tests) == ("passed", "", 1)
    tests = [CodeTest(call="f()", equals=0)]
    assert len({check(Question(1, fenced(code), tests, AT_MS)).behaviour for _ in range(2)}) == 1


def test_what_is_too_long_is_not_run_and_what_is_no_code_fails() -> None:
    assert check(Question(1, "x" * 1_000_000, TESTS, AT_MS)).note == "long"
    assert check(Question(1, "I would rather not.", TESTS, AT_MS)).note == "no_code"


async def run(pool: Pool, text: str) -> Checked:
    with pool.place("acme") as turn:
        assert turn is not None
        return await pool.check(turn, text, TESTS, AT_MS, lambda: False)


async def test_a_pool_outlives_its_processes_and_keeps_its_keys_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLEGIUM_SECRET_OF_A_TEST", "x")
    pool = Pool(processes=1)
    try:
        text = fenced("def f(x):\n    return x * x")
        assert (await run(pool, text)).state == "passed"
        [one] = pool._children
        process = one._process
        assert process is not None
        assert b"COLLEGIUM" not in Path(f"/proc/{process.pid}/environ").read_bytes()  # noqa: ASYNC240 - of the kernel
        # It hears nothing any more, so that it is surely busy when it is ended.
        os.kill(process.pid, signal.SIGSTOP)
        slow = asyncio.create_task(run(pool, text))
        await eventually(lambda: process.runs and one.is_busy)
        os.killpg(process.pid, signal.SIGKILL)
        checked = await slow
        assert (checked.state, checked.note) == ("not_run", "crashed")
        assert (await run(pool, text)).state == "passed"
    finally:
        await pool.close()


async def test_a_tenant_has_few_places_and_only_one_where_many_want_one() -> None:
    pool = Pool()
    with ExitStack() as held:

        def takes(tenant: str) -> bool:
            return held.enter_context(pool.place(tenant)) is not None

        assert [takes("acme") for _ in range(TENANT_PLACES + 2)] == [True] * TENANT_PLACES + [False] * 2
        assert [takes("globex"), takes("globex")] == [True, True]
        others = [f"t{number}" for number in range(PLACES)]
        first = [takes(tenant) for tenant in others]
        assert first == [True] * (PLACES - TENANT_PLACES - 2) + [False] * (TENANT_PLACES + 2)
        assert not takes("acme")
    with ExitStack() as held:
        crowd = [takes(f"t{number}") for number in range(CROWDED)]
        assert (all(crowd), takes("t1"), takes("acme"), takes("acme")) == (True, False, True, False)
    with pool.place("acme") as turn:
        assert turn is not None
    assert not pool._turns
    await pool.close()


async def test_an_answer_whose_turn_comes_too_late_is_not_run() -> None:
    pool, times = Pool(processes=1), [False]
    with pool.place("acme") as turn:
        assert turn is not None
        async with turn.lock:
            waiting = asyncio.create_task(pool.check(turn, "", TESTS, AT_MS, lambda: times[0]))
            await asyncio.sleep(0)
            times[0] = True
        assert (await waiting).note == "late"
    assert pool._children[0]._process is None
    await pool.close()
