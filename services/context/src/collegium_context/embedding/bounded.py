"""An embedder as those have it whose client waits for an answer: soon, or not at all.

An endpoint that is away is tried for half a minute and more before it is given up, and a search that waited for it
would answer nobody. One rule: after a failure nobody waits for it for a moment, then one asks for all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from collegium_contracts.scope import Scope

from collegium_context.embedding.interface import Counted, Embedder, EmbedderUnavailableError, Vectors

# Longer than the bundled embedder takes to start on a machine that is busy.
QUESTION_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 1.0
R = TypeVar("R")


class Bounded:
    """An :class:`Embedder` before another one; what takes longer than ``seconds`` is refused.

    While it is away, one question every ``pause_seconds`` finds out whether it is back, and the others are refused at
    once.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        seconds: float = QUESTION_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._embedder = embedder
        self._seconds = seconds
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._is_away = False
        self._ask_at = 0.0

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._embedder.model

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""
        return self._embedder.dimensions

    async def embed(self, texts: Sequence[str], *, scope: Scope | None = None) -> Vectors:
        """Returns one vector a text, in order; raises EmbedderUnavailableError in time."""
        return await self._within(lambda: self._embedder.embed(texts, scope=scope))

    async def embed_counted(self, texts: Sequence[str], *, scope: Scope | None = None) -> Counted:
        """Returns vectors and tokens, one a text, in order; raises EmbedderUnavailableError in time."""
        return await self._within(lambda: self._embedder.embed_counted(texts, scope=scope))

    async def close(self) -> None:
        """Lets the embedder behind it be: it is others' too."""

    async def _within(self, asking: Callable[[], Awaitable[R]]) -> R:
        if self._is_away:
            if self._clock() < self._ask_at:
                raise EmbedderUnavailableError(f"embedder {self.model} failed a moment ago; ask again")
            self._ask_at = self._clock() + max(self._seconds, self._pause_seconds)
        try:
            async with asyncio.timeout(self._seconds):
                done = await asking()
        except TimeoutError:
            self._failed()
            raise EmbedderUnavailableError(f"embedder {self.model} gave no vector within {self._seconds:g} s") from None
        except EmbedderUnavailableError:
            self._failed()
            raise
        self._is_away = False
        return done

    def _failed(self) -> None:
        self._is_away = True
        self._ask_at = self._clock() + self._pause_seconds
