"""The bundled embedder for many callers, who share its process and, where their texts are few, its runs.

The first text goes at once; what comes while all threads work is collected and goes together. Whoever has a few texts
goes before those who have many, and those take turns, so that a question does not wait for an import. One rule: what
waits is bounded, and beyond it callers are refused at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from collegium_settings.embeddings import BUNDLED_DIMENSIONS, BUNDLED_EMBEDDER

from collegium_context.embedding.bundled import RUN_TOKENS, guessed_tokens, runs
from collegium_context.embedding.interface import Counted, EmbedderUnavailableError

BATCH_TEXTS_MAX: Final = 128
QUEUE_TEXTS_MAX: Final = 32_768
FEW_TEXTS: Final = 8
# Runs of few texts in a row, while others have many: then one of those.
FEW_IN_A_ROW: Final = 4


class Encoder(Protocol):
    """What embeds one run of texts."""

    async def encode(self, texts: Sequence[str]) -> Counted:
        """Returns their vectors; raises :class:`EmbedderUnavailableError`."""
        ...

    async def close(self) -> None:
        """Ends it."""
        ...


class _Call:
    """One caller's texts."""

    def __init__(self, texts: Sequence[str], done: asyncio.Future[None]) -> None:
        self.texts = texts
        self.done = done
        self.vectors = np.empty((len(texts), BUNDLED_DIMENSIONS), dtype=np.float32)
        self.tokens = [0] * len(texts)
        self.left = len(texts)
        self.begun = 0
        self.runs: deque[list[int]] = deque()

    def next_run(self) -> list[int]:
        """Returns the next texts, by index: those of about one length together, out of the next BATCH_TEXTS_MAX."""
        if not self.runs:
            batch = self.texts[self.begun : self.begun + BATCH_TEXTS_MAX]
            self.runs.extend([self.begun + index for index in run] for run in runs(batch))
            self.begun += len(batch)
        return self.runs.popleft()

    @property
    def is_begun(self) -> bool:
        """Whether nothing of it waits any more."""
        return not self.runs and self.begun == len(self.texts)


_Run = list[tuple[_Call, int]]


class Batches:
    """Makes runs of what callers ask, and keeps ``threads`` of them in hand."""

    def __init__(self, encoder: Encoder, threads: int) -> None:
        self._encoder = encoder
        self._free = threads
        self._few: deque[tuple[_Call, int]] = deque()
        self._many: deque[_Call] = deque()
        self._few_in_a_row = 0
        self._calls: set[_Call] = set()
        self._working: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def model(self) -> str:
        """The name of the model."""
        return BUNDLED_EMBEDDER

    @property
    def dimensions(self) -> int:
        """384."""
        return BUNDLED_DIMENSIONS

    @property
    def waiting(self) -> int:
        """How many texts are not embedded yet."""
        return sum(call.left for call in self._calls)

    async def compute(self, texts: Sequence[str]) -> Counted:
        """Returns vectors and tokens; raises :class:`EmbedderUnavailableError`, also where too many texts wait."""
        if self._closed:
            raise EmbedderUnavailableError("the embedder is stopping")
        waiting = self.waiting
        if waiting and waiting + len(texts) > QUEUE_TEXTS_MAX:
            raise EmbedderUnavailableError(f"{waiting} texts wait to be embedded already; ask again")
        call = _Call(texts, asyncio.get_running_loop().create_future())
        if not texts:
            return Counted(call.vectors, [])
        self._calls.add(call)
        if len(texts) <= FEW_TEXTS:
            self._few.extend((call, index) for index in range(len(texts)))
        else:
            self._many.append(call)
        self._begin()
        try:
            await call.done
        finally:
            # Whoever gives up leaves no work behind.
            call.done.cancel()
            self._calls.discard(call)
        return Counted(call.vectors, call.tokens)

    async def close(self) -> None:
        """Ends the process; who waits is refused."""
        self._closed = True
        for call in self._calls:
            if not call.done.done():
                call.done.set_exception(EmbedderUnavailableError("the embedder is stopping"))
        await self._encoder.close()
        await asyncio.gather(*self._working, return_exceptions=True)

    def _begin(self) -> None:
        while self._free and not self._closed and (run := self._next()):
            self._free -= 1
            task = asyncio.create_task(self._work(run))
            self._working.add(task)
            task.add_done_callback(self._working.discard)

    def _next(self) -> _Run:
        while self._many and (self._many[0].done.done() or self._many[0].is_begun):
            self._many.popleft()
        while self._few and self._few[0][0].done.done():
            self._few.popleft()
        if self._few and (not self._many or self._few_in_a_row < FEW_IN_A_ROW):
            self._few_in_a_row += 1
            return self._few_together()
        self._few_in_a_row = 0
        if not self._many:
            return []
        call = self._many.popleft()
        run = call.next_run()
        if not call.is_begun:
            self._many.append(call)
        return [(call, index) for index in run]

    def _few_together(self) -> _Run:
        run: _Run = []
        longest = 0
        while self._few:
            call, index = self._few[0]
            longest = max(longest, guessed_tokens(call.texts[index]))
            if run and longest * (len(run) + 1) > RUN_TOKENS:
                break
            self._few.popleft()
            if not call.done.done():
                run.append((call, index))
        return run

    async def _work(self, run: _Run) -> None:
        error: EmbedderUnavailableError | None = None
        try:
            counted = await self._encoder.encode([call.texts[index] for call, index in run])
            for place, (call, index) in enumerate(run):
                call.vectors[index] = counted.vectors[place]
                call.tokens[index] = counted.tokens[place]
                call.left -= 1
        except EmbedderUnavailableError as failed:
            error = failed
        except Exception as failed:  # whoever waits must hear of it
            error = EmbedderUnavailableError(f"the bundled embedder failed: {type(failed).__name__}")
        finally:
            self._free += 1
        for call, _ in run:
            if call.done.done():
                continue
            if error is not None:
                call.done.set_exception(error)
            elif not call.left:
                call.done.set_result(None)
        self._begin()
