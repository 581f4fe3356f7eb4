"""The process that runs what a model wrote: an answer and its tests on standard input, what came of them on its output.

The interpreter is Monty, a Python of its own in Rust: it has no files, no network, no processes and no clock but the
one that it is given, whatever the code does. It runs in a process of its own for each answer, so that nothing is left
of one for the next, with bounds on time and memory of its own and, beside these, of this process. One rule: what is
kept here is no connection, no key and no words but those of the answer that is run.
"""

from __future__ import annotations

import datetime
import os
import resource
import sys
import time
from typing import Any, Final, NamedTuple

import msgspec
from collegium_children.frames import bodies, put
from collegium_contracts.code_tests import CodeTest, TestNote, TestState

from collegium_consensus.testing.blame import blame
from collegium_consensus.testing.extraction import code_of, parsed
from collegium_consensus.testing.values import behaviour, equals, plain

# One call, and one answer with all its tests; a right answer takes milliseconds.
CALL_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 10.0
# What took its time with less of a processor than this was not slow, but kept waiting.
STARVED_SECONDS: Final = 1.0
# What the code's own values may take; the process as a whole some times as much.
HEAP_BYTES_MAX: Final = 128 * 1024 * 1024
ADDRESS_BYTES_MAX: Final = 2 * 1024 * 1024 * 1024
CPU_SECONDS_MAX: Final = 120
OPEN_FILES_MAX: Final = 64
DEPTH_MAX: Final = 1_000
# Names that are asked of nobody; each costs a round trip.
SUSPENSIONS_MAX: Final = 50
# After the interpreter should have stopped by itself its process is ended.
GRACE_SECONDS: Final = 0.5


class Question(msgspec.Struct, frozen=True, array_like=True):
    """An answer's text, the tests as they were sealed, and the time that the code is told (Unix ms)."""

    number: int
    text: str
    tests: list[CodeTest]
    at_ms: int


class Checked(msgspec.Struct, frozen=True, array_like=True):
    """What became of an answer; ``behaviour`` is empty where it was not run."""

    number: int
    state: TestState
    note: TestNote
    passed: int
    behaviour: bytes = b""


class _Result(NamedTuple):
    """One test: what came of it, why, what it gave, and whether the code itself did not load."""

    state: TestState
    note: TestNote
    given: Any = None
    is_code: bool = False


encode_question = msgspec.msgpack.Encoder().encode
decode_checked = msgspec.msgpack.Decoder(Checked).decode
_decode_question = msgspec.msgpack.Decoder(Question).decode
_encode_checked = msgspec.msgpack.Encoder().encode


def check(question: Question) -> Checked:
    """Runs an answer against its tests; each is run by itself, on code that was loaded anew."""
    code = code_of(question.text)
    if code is None:
        return Checked(question.number, "not_run", "long", 0)
    if not code:
        return Checked(question.number, "failed", "no_code", 0)
    results, cpu_seconds = _run(question, code, CALL_SECONDS)
    if results[-1].note == "time" and cpu_seconds < STARVED_SECONDS:
        # The machine had no time for it, which says nothing about the code: it is given all that an answer gets.
        results, cpu_seconds = _run(question, code, ANSWER_SECONDS)
        if results[-1].note == "time" and cpu_seconds < STARVED_SECONDS:
            return Checked(question.number, "not_run", "busy", 0)
    return _together(question, results)


def _run(question: Question, code: str, call_seconds: float) -> tuple[list[_Result], float]:
    """Returns what came of tests, up to the first that makes the others needless, and the processor time of all."""
    is_python = parsed(code) is not None
    results: list[_Result] = []
    used, ends_at = _used_seconds(), time.monotonic() + ANSWER_SECONDS
    with _interpreters(call_seconds) as pool:
        for test in question.tests:
            seconds = min(call_seconds, ends_at - time.monotonic())
            result = _tested(pool, code, test, question.at_ms, seconds, is_python=is_python)
            results.append(result)
            if result.is_code or result.note in ("time", "memory", "crashed"):
                break
    return results, _used_seconds() - used


def _used_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _together(question: Question, results: list[_Result]) -> Checked:
    passed = sum(1 for one in results if one.state == "passed")
    first = next((one for one in results if one.state == "failed"), None)
    first = first or next((one for one in results if one.state == "not_run"), None)
    if first is None:
        return Checked(question.number, "passed", "", passed, behaviour([True] * len(results)))
    if first.state == "not_run":
        return Checked(question.number, "not_run", first.note, passed)
    return Checked(question.number, "failed", first.note, passed, behaviour([one.given for one in results]))


def _interpreters(call_seconds: float) -> Any:
    # Loading it takes a fifth of a second and 10 MB, and no other process needs it.
    from pydantic_monty import Monty  # noqa: PLC0415

    return Monty(
        min_processes=1, max_processes=1, request_timeout=call_seconds + 1.0, feed_duration_limit_grace=GRACE_SECONDS
    )


def _tested(pool: Any, code: str, test: CodeTest, at_ms: int, seconds: float, *, is_python: bool) -> _Result:
    from pydantic_monty import CollectString, MontyCrashedError, MontyError  # noqa: PLC0415

    if seconds <= 0:
        return _Result("failed", "time")
    limits = {
        "max_feed_duration_secs": seconds,
        "max_memory": HEAP_BYTES_MAX,
        "max_recursion_depth": DEPTH_MAX,
        "max_suspensions": SUSPENSIONS_MAX,
    }
    # The same time and the same chance for every answer, and for one that is run again.
    policy = {
        "datetime": datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC),
        "timezone": "utc",
        "sleep": "zero",
        "random_start": {"seed": 0},
    }
    is_loaded, began = False, time.monotonic()
    try:
        with pool.checkout(limits=limits, os_policy=policy) as session:
            session.feed_run(code, print_callback=CollectString())
            is_loaded, began = True, time.monotonic()
            given = plain(session.feed_run(test.call.strip() or test.code, print_callback=CollectString()))
    except MontyCrashedError as error:
        timed_out = bool(getattr(error, "timed_out", False))
        return _Result("failed", "time") if timed_out else _Result("not_run", "crashed")
    except MontyError as error:
        kind, message = _exception(error)
        if is_loaded and test.code and kind == "AssertionError":
            return _Result("failed", "differs", f"\x00raised {kind}")
        is_over = time.monotonic() - began >= seconds
        state, note = blame(kind, message, is_python=is_python or is_loaded, is_over=is_over)
        return _Result(state, note, f"\x00raised {kind}", is_code=not is_loaded)
    if test.code or equals(given, plain(test.equals)):
        return _Result("passed", "", True)
    return _Result("failed", "differs", given)


def _exception(error: Any) -> tuple[str, str]:
    """Returns the type's name of what was raised inside, and its message."""
    inner = error.exception()
    told = str(error)
    name = type(inner).__name__
    # What Python has no type of its own for comes as a base of it, and is named in the text.
    said = told.partition(":")[0].strip()
    return (said if said.isidentifier() or ("." in said and " " not in said) else name), told


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES_MAX, ADDRESS_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES_MAX, OPEN_FILES_MAX))
    os.nice(5)
    for body in bodies(sys.stdin.buffer):
        put(sys.stdout.buffer, _encode_checked(check(_decode_question(body))))


if __name__ == "__main__":
    _main()
