"""Waiting for a condition instead of sleeping.

Here: `eventually` for coroutines and its twin `eventually_sync`. Not here: timeouts of the product.
The one rule: a wait that fails says what it last saw.
"""

import asyncio
import dis
import functools
import inspect
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

T = TypeVar("T")

_UNSET = object()


class NeverTrueError(AssertionError):
    """The condition was still false, or still raising, at the deadline; the cause is the last failed assertion."""


async def eventually(
    condition: Callable[[], T | Awaitable[T]],
    *,
    deadline_seconds: float = 60,
    every_seconds: float = 0.02,
) -> T:
    """Calls the condition until it holds, and returns its value.

    A condition is a plain or async callable. It holds when it returns something truthy. A function made only of
    assertions (no `return` with a value) holds when it no longer raises AssertionError; for all others None means
    not yet. Any other exception ends the wait at once. The condition is always called at least once, and an async
    one may not outlast the deadline.

    Raises:
        NeverTrueError: at the deadline, with the last assertion or the last value seen.
    """
    wait = _Wait(condition, deadline_seconds)
    while True:
        try:
            value = condition()
            if inspect.isawaitable(value):
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + wait.left_seconds()):
                    value = await value
            if wait.holds(value):
                return cast("T", value)
        except AssertionError as failure:
            wait.saw_failure(failure)
        except TimeoutError as timeout:
            if wait.left_seconds() > 0:
                raise
            raise wait.error() from timeout
        wait.check()
        await asyncio.sleep(every_seconds)


def eventually_sync(
    condition: Callable[[], T],
    *,
    deadline_seconds: float = 60,
    every_seconds: float = 0.02,
) -> T:
    """Does what `eventually` does, in a thread without an event loop."""
    wait = _Wait(condition, deadline_seconds)
    while True:
        try:
            value = condition()
            if wait.holds(value):
                return value
        except AssertionError as failure:
            wait.saw_failure(failure)
        wait.check()
        time.sleep(every_seconds)


class _Wait:
    """What one wait has seen so far, and how long it may still go on."""

    def __init__(self, condition: Callable[[], object], deadline_seconds: float) -> None:
        self._condition = condition
        self._deadline_seconds = deadline_seconds
        self._ends_at = time.monotonic() + deadline_seconds
        self._only_asserts = _only_asserts(condition)
        self._tries = 0
        self._value: object = _UNSET
        self._failure: AssertionError | None = None

    def left_seconds(self) -> float:
        return self._ends_at - time.monotonic()

    def holds(self, value: object) -> bool:
        self._tries += 1
        self._value, self._failure = value, None
        return bool(value) or (value is None and self._only_asserts)

    def saw_failure(self, failure: AssertionError) -> None:
        self._tries += 1
        self._failure = failure

    def check(self) -> None:
        if self.left_seconds() <= 0:
            raise self.error() from self._failure

    def error(self) -> NeverTrueError:
        name = getattr(self._condition, "__qualname__", repr(self._condition))
        if self._failure is not None:
            seen = f"last assertion: {self._failure or 'an assertion without a message'}"
        elif self._value is _UNSET:
            seen = "it never answered"
        else:
            seen = f"last value: {self._value!r}"
        return NeverTrueError(f"{name} did not hold within {self._deadline_seconds:g} s ({self._tries} tries); {seen}")


def _only_asserts(condition: Callable[[], object]) -> bool:
    """Tells a function that can only return None from a lookup that returned None because nothing is there yet."""
    inner = condition.func if isinstance(condition, functools.partial) else condition
    code = getattr(inner, "__code__", None)
    if code is None or inner.__name__ == "<lambda>":
        return False
    steps = [step for step in dis.get_instructions(code) if step.opname not in {"CACHE", "NOP"}]
    for before, step in itertools.pairwise(steps):
        # The two values of a conditional expression meet at one return.
        if step.opname == "RETURN_VALUE" and step.is_jump_target:
            return False
        value = before if step.opname == "RETURN_VALUE" else step
        if step.opname in {"RETURN_VALUE", "RETURN_CONST"} and (
            value.argval is not None or "CONST" not in value.opname
        ):
            return False
    return True
