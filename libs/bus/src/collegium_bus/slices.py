"""Long work on many items, with turns for everybody else of the same loop in between.

One rule: who works through a batch holds the loop for one slice of it at a time, because the same process answers
others, who wait for milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, TypeVar

T = TypeVar("T")
# An event takes some 10 to 50 microseconds to decode or to book.
SLICE: Final = 32


async def in_slices(items: Sequence[T], size: int = SLICE) -> AsyncIterator[Sequence[T]]:
    """Yields the items, ``size`` at a time and in order; between two slices the loop takes a turn."""
    for start in range(0, len(items), size):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + size]
