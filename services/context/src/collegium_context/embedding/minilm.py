"""The bundled embedder for many callers: their texts share runs, in threads beside the event loop.

The first text goes at once; what comes while all threads work is collected and goes together. One rule: what waits is
bounded, and beyond it callers are refused at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from collegium_context.embedding.bundled import DIMENSIONS, MODEL, Counted, MiniLm, runs
from collegium_context.embedding.interface import EmbedderUnavailableError, Vectors

BATCH_TEXTS_MAX = 128
QUEUE_TEXTS_MAX = 16_384
THREADS = 2


class _Waiting:
    """One text that waits for its vector."""

    __slots__ = ("future", "text")

    def __init__(self, text: str, future: asyncio.Future[tuple[np.ndarray, int]]) -> None:
        self.text = text
        self.future = future


class MiniLmEmbedder:
    """Embeds with the bundled model; start it with :meth:`open`."""

    def __init__(self, engine: MiniLm, threads: int = THREADS) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="embedding")
        self._free = threads
        self._waiting: deque[_Waiting] = deque()
        self._working: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, threads: int = THREADS) -> MiniLmEmbedder:
        """Loads and checks the model in a thread."""
        return cls(await asyncio.to_thread(MiniLm), threads)

    @property
    def model(self) -> str:
        """The name of the model."""
        return MODEL

    @property
    def dimensions(self) -> int:
        """384."""
        return DIMENSIONS

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Returns one vector a text; raises :class:`EmbedderUnavailableError` where too many texts wait."""
        return (await self.embed_counted(texts)).vectors

    async def embed_counted(self, texts: Sequence[str]) -> Counted:
        """Returns vectors and tokens, one a text."""
        if not texts:
            return Counted(np.zeros((0, DIMENSIONS), dtype=np.float32), [])
        if len(self._waiting) + len(texts) > QUEUE_TEXTS_MAX:
            raise EmbedderUnavailableError(f"{len(self._waiting)} texts wait to be embedded; ask again")
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(text, loop.create_future()) for text in texts]
        self._waiting.extend(waiting)
        self._begin()
        try:
            done = await asyncio.gather(*(one.future for one in waiting))
        finally:
            # Whoever gives up leaves no work behind.
            for one in waiting:
                one.future.cancel()
        return Counted(np.stack([vector for vector, _ in done]), [tokens for _, tokens in done])

    async def close(self) -> None:
        """Ends the threads; who waits is refused."""
        for one in self._waiting:
            if not one.future.done():
                one.future.set_exception(EmbedderUnavailableError("the embedder is stopping"))
        self._waiting.clear()
        await asyncio.gather(*self._working, return_exceptions=True)
        await asyncio.to_thread(self._pool.shutdown)

    def _begin(self) -> None:
        while self._free and self._waiting:
            batch = self._take()
            if not batch:
                return
            self._free -= 1
            task = asyncio.create_task(self._work(batch))
            self._working.add(task)
            task.add_done_callback(self._working.discard)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < BATCH_TEXTS_MAX:
            one = self._waiting.popleft()
            if not one.future.done():
                batch.append(one)
        return batch

    async def _work(self, batch: list[_Waiting]) -> None:
        try:
            loop = asyncio.get_running_loop()
            for run in runs([one.text for one in batch]):
                members = [batch[index] for index in run if not batch[index].future.done()]
                if members:
                    counted = await loop.run_in_executor(self._pool, self._engine.encode, [one.text for one in members])
                    for one, vector, tokens in zip(members, counted.vectors, counted.tokens, strict=True):
                        if not one.future.done():
                            one.future.set_result((vector, tokens))
        except Exception as error:
            for one in batch:
                if not one.future.done():
                    one.future.set_exception(
                        EmbedderUnavailableError(f"the bundled embedder failed: {type(error).__name__}")
                    )
        finally:
            self._free += 1
            self._begin()
