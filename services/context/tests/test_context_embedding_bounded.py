"""An embedder that is away, as those have it whose client waits: refused in time, and asked again by one alone."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from collegium_context.embedding import process as processes
from collegium_context.embedding.bounded import Bounded
from collegium_context.embedding.interface import Counted, EmbedderUnavailableError
from collegium_context.embedding.process import EmbedderProcess
from collegium_contracts.scope import Scope


class Embedder:
    """Answers, refuses, or hangs."""

    model = "some"
    dimensions = 2

    def __init__(self) -> None:
        self.mood = "answers"
        self.asked = 0
        self.released = asyncio.Event()

    async def embed_counted(self, texts: Sequence[str], *, scope: Scope | None = None) -> Counted:
        self.asked += 1
        if self.mood == "refuses":
            raise EmbedderUnavailableError("down")
        if self.mood == "hangs":
            await self.released.wait()
        return Counted(np.ones((len(texts), 2), np.float32), [1] * len(texts))

    async def embed(self, texts: Sequence[str], *, scope: Scope | None = None) -> Any:
        return (await self.embed_counted(texts, scope=scope)).vectors

    async def close(self) -> None:
        raise AssertionError("it is others' too")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_what_is_away_is_asked_once_a_moment_and_is_back_when_it_answers():
    behind, clock = Embedder(), Clock()
    bounded = Bounded(behind, seconds=30, pause_seconds=1, clock=clock)
    assert (await bounded.embed(["a", "b"])).shape == (2, 2)
    behind.mood = "refuses"
    with pytest.raises(EmbedderUnavailableError, match="down"):
        await bounded.embed(["a"])
    for _ in range(5):
        with pytest.raises(EmbedderUnavailableError, match="a moment ago"):
            await bounded.embed(["a"])
    assert behind.asked == 2
    clock.now += 1.5
    behind.mood = "hangs"
    finding_out = asyncio.create_task(bounded.embed_counted(["a"]))
    await asyncio.sleep(0)
    for _ in range(5):
        with pytest.raises(EmbedderUnavailableError, match="a moment ago"):
            await bounded.embed(["a"])
    assert behind.asked == 3, "one finds out for all"
    behind.released.set()
    assert (await finding_out).tokens == [1]
    behind.mood = "answers"
    assert len(await bounded.embed(["a"])) == 1, "at once, and for everybody"
    await bounded.close()


async def test_what_hangs_is_refused_in_time():
    behind = Embedder()
    behind.mood = "hangs"
    with pytest.raises(EmbedderUnavailableError, match=r"within 0\.05 s"):
        await Bounded(behind, seconds=0.05).embed(["a"])


async def test_a_process_that_hangs_is_ended_and_another_one_answers(monkeypatch: pytest.MonkeyPatch):
    process = EmbedderProcess(1)
    try:
        before = await process.encode(["a cat"])
        pid = process.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        monkeypatch.setattr(processes, "RUN_SECONDS", 0.2)
        with pytest.raises(EmbedderUnavailableError, match="ended"):
            await process.encode(["a cat"])
        monkeypatch.undo()
        again = await process.encode(["a cat"])
        assert process.pid != pid
        assert np.array_equal(before.vectors, again.vectors)
    finally:
        await process.close()
