"""Long work lets others have their turn."""

from __future__ import annotations

import asyncio

from collegium_bus.slices import in_slices


async def test_everything_comes_once_in_order_and_others_run_between_two_slices() -> None:
    seen: list[int] = []
    turns: list[int] = []

    async def other() -> None:
        while True:
            turns.append(len(seen))
            await asyncio.sleep(0)

    watching = asyncio.create_task(other())
    async for some in in_slices(range(10), 4):
        seen += some
    watching.cancel()
    assert seen == list(range(10))
    assert turns == [4, 8]


async def test_what_fits_one_slice_waits_for_nobody() -> None:
    turns: list[None] = []
    asyncio.get_running_loop().call_soon(turns.append, None)
    assert [list(some) async for some in in_slices([1, 2], 2)] == [[1, 2]]
    assert [some async for some in in_slices([], 2)] == []
    assert not turns
