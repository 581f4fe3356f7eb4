"""Group commits: what many producers submit is stored by one transaction.

One rule: ``submit`` returns after the commit that holds its item, so an acknowledgement after it is safe.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

from collegium_store.errors import ClosedError, is_poison

T = TypeVar("T")


class _Waiting:
    """One caller: its future, how many of its items are not decided, and the first error among them."""

    __slots__ = ("error", "future", "left")

    def __init__(self, left: int) -> None:
        self.left = left
        self.error: BaseException | None = None
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def decide(self, error: BaseException | None) -> None:
        self.left -= 1
        self.error = self.error or error
        if self.left or self.future.done():
            return
        if self.error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(self.error)


class _Entry(NamedTuple, Generic[T]):
    item: T
    waiting: _Waiting


class GroupCommit(Generic[T]):
    """Collects items and flushes them together, in the order of submission, one flush at a time.

    A flush begins when ``max_items`` wait, or ``max_wait_seconds`` after the first of them came. ``flush`` stores all
    of what it is given or nothing. When it fails for a row's value (``poison``), the batch is halved until the bad item
    stands alone: only its submitter gets the error. Every other error goes to all submitters of the batch.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[T]], Awaitable[None]],
        *,
        max_items: int = 500,
        max_wait_seconds: float = 0.05,
        max_pending: int = 10_000,
        poison: Callable[[BaseException], bool] = is_poison,
    ) -> None:
        self._flush = flush
        self._max_items = max_items
        self._max_wait_seconds = max_wait_seconds
        # Beyond it producers wait, so that a slow database slows them down instead of filling the memory.
        self._max_pending = max_pending
        self._poison = poison
        self._pending: deque[_Entry[T]] = deque()
        self._room: deque[asyncio.Future[None]] = deque()
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def pending(self) -> int:
        """How many items wait for their flush to begin."""
        return len(self._pending)

    async def submit(self, item: T) -> None:
        """Returns when the item is committed; raises what its flush raised, or ClosedError.

        A caller that is cancelled leaves its item in the batch.
        """
        await self.submit_many((item,))

    async def submit_many(self, items: Sequence[T]) -> None:
        """Returns when all items are committed; raises the first error among them, when all are decided."""
        if not items:
            return
        waiting = _Waiting(len(items))
        try:
            for item in items:
                while len(self._pending) >= self._max_pending and not self._closed:
                    await self._wait_for_room()
                self._add(_Entry(item, waiting))
        except BaseException:
            # Nobody will ask for the result of those that were added.
            waiting.future.cancel()
            raise
        await waiting.future

    async def close(self) -> None:
        """Takes nothing new, and returns when everything submitted is decided."""
        self._closed = True
        self._arrived.set()
        self._full.set()
        self._let_in()
        if self._task is not None:
            await asyncio.shield(self._task)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _add(self, entry: _Entry[T]) -> None:
        if self._closed:
            raise ClosedError("the group commit is closed; submit before close()")
        self._pending.append(entry)
        self._arrived.set()
        if len(self._pending) >= self._max_items:
            self._full.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="group-commit")

    async def _wait_for_room(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._room.append(future)
        try:
            await future
        except asyncio.CancelledError:
            # The room that this one was given goes to the next.
            self._let_in()
            raise

    def _let_in(self) -> None:
        """Wakes as many of those who wait as there is room for, all of them after the close."""
        room = len(self._room) if self._closed else self._max_pending - len(self._pending)
        while self._room and room > 0:
            future = self._room.popleft()
            if not future.done():
                future.set_result(None)
                room -= 1

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if not self._full.is_set():
                try:
                    async with asyncio.timeout(self._max_wait_seconds):
                        await self._full.wait()
                except TimeoutError:
                    pass  # a small batch
            batch = [self._pending.popleft() for _ in range(min(self._max_items, len(self._pending)))]
            self._mark()
            self._let_in()
            await self._store(batch)
            if self._closed and not self._pending:
                return

    def _mark(self) -> None:
        if not self._pending and not self._closed:
            self._arrived.clear()
        if len(self._pending) < self._max_items and not self._closed:
            self._full.clear()

    async def _store(self, batch: list[_Entry[T]]) -> None:
        """Flushes a batch, by halves where a row's value is refused."""
        waiting = [batch] if batch else []
        while waiting:
            part = waiting.pop()
            error: BaseException | None = None
            try:
                await self._flush([entry.item for entry in part])
            except Exception as caught:  # whatever it is, the submitters are told and the next batch goes on
                error = caught
            if error is not None and len(part) > 1 and self._poison(error):
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
                continue
            for entry in part:
                entry.waiting.decide(error)
