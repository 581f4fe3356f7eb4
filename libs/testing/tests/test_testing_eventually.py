import asyncio
import functools
import itertools

import pytest
from collegium_testing import eventually, eventually_sync


async def test_returns_the_first_truthy_value() -> None:
    values = iter([0, None, "", "here"])
    assert await eventually(lambda: next(values), every_seconds=0) == "here"


async def test_waits_for_an_async_condition() -> None:
    values = iter([False, 7])

    async def look() -> int:
        return next(values)

    assert await eventually(look, every_seconds=0) == 7


async def test_a_function_of_assertions_holds_when_it_no_longer_raises() -> None:
    tries = itertools.count()

    def check() -> None:
        assert next(tries) == 3, "not the third try"

    async def check_async() -> None:
        check()

    await eventually(check, every_seconds=0)
    tries = itertools.count(2)
    await eventually(check_async, every_seconds=0)
    tries = itertools.count()
    await eventually(functools.partial(check), every_seconds=0)


async def test_a_lookup_that_finds_nothing_yet_is_not_taken_for_success() -> None:
    found: dict[str, int] = {}

    def look() -> int | None:
        if len(found) > 1:
            return None
        return found.get("a")

    for condition in (look, lambda: found.get("a"), functools.partial(found.get, "a")):
        with pytest.raises(AssertionError, match="last value: None"):
            await eventually(condition, deadline_seconds=0.01, every_seconds=0)


async def test_says_the_last_assertion_at_the_deadline() -> None:
    def check() -> None:
        assert len("one") == 2, "one is not two"

    with pytest.raises(
        AssertionError, match=r"check did not hold within 0\.01 s \(\d+ tries\).*one is not two"
    ) as caught:
        await eventually(check, deadline_seconds=0.01, every_seconds=0.001)
    assert isinstance(caught.value.__cause__, AssertionError)


async def test_other_errors_end_the_wait_at_once() -> None:
    with pytest.raises(ZeroDivisionError):
        await eventually(lambda: 1 // 0)


async def test_an_async_condition_that_hangs_is_ended_at_the_deadline() -> None:
    import asyncio

    with pytest.raises(AssertionError, match="it never answered"):
        await eventually(asyncio.Event().wait, deadline_seconds=0.02)


async def test_a_timeout_of_the_condition_itself_is_passed_on() -> None:
    def look() -> bool:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await eventually(look)


def test_the_sync_twin_does_the_same() -> None:
    values = iter([None, 5])
    assert eventually_sync(lambda: next(values), every_seconds=0) == 5
    with pytest.raises(AssertionError, match="last value: False"):
        eventually_sync(lambda: False, deadline_seconds=0.01, every_seconds=0.001)


async def test_none_from_a_conditional_expression_means_not_yet():
    found: list[int] = []

    async def first() -> int | None:
        return found[0] if found else None

    task = asyncio.get_running_loop().call_later(0.05, found.append, 7)
    assert await eventually(first, deadline_seconds=5) == 7
    task.cancel()
