"""Trying again what failed for a passing reason.

One rule: only what may be done twice is retried, because a connection lost at the commit leaves the result unknown.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from collegium_store.errors import is_transient

T = TypeVar("T")

FIRST_PAUSE_SECONDS: Final = 0.02
LONGEST_PAUSE_SECONDS: Final = 2.0


async def retry_transient(
    work: Callable[[], Awaitable[T]],
    *,
    deadline_seconds: float,
    is_transient: Callable[[BaseException], bool] = is_transient,
    jitter: Callable[[], float] = random.random,
) -> T:
    """Runs ``work``, which must be harmless to repeat, until it succeeds; returns its result.

    Serialization failures, deadlocks and lost connections are tried again after a pause of full jitter that doubles up
    to LONGEST_PAUSE_SECONDS. Raises the last error when the next try would begin after ``deadline_seconds``, and any
    other error at once. A try that has begun is not cut off.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_seconds
    longest = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await work()
        except Exception as error:
            pause = jitter() * longest
            if not is_transient(error) or loop.time() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        longest = min(longest * 2, LONGEST_PAUSE_SECONDS)
