"""Batches: who goes first, what goes together, what is refused, and that nobody's vectors are another's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from collegium_context.embedding import Counted, EmbedderUnavailableError
from collegium_context.embedding.bundled import RUN_TOKENS, guessed_tokens, runs
from collegium_context.embedding.minilm import FEW_TEXTS, QUEUE_TEXTS_MAX, Batches
from hypothesis import given
from hypothesis import strategies as st


class SlowEncoder:
    """Embeds when it is told to; a text's vector begins with its length."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        self.closed = False

    async def encode(self, texts: Sequence[str]) -> Counted:
        self.seen.append(list(texts))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        vectors = np.zeros((len(texts), 384), dtype=np.float32)
        vectors[:, 0] = [len(text) for text in texts]
        return Counted(vectors, [len(text) for text in texts])

    async def close(self) -> None:
        self.closed = True
        self.gate.set()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_first_text_goes_at_once_and_the_next_go_together():
    encoder = SlowEncoder()
    batches = Batches(encoder, 1)
    asked = [asyncio.create_task(batches.compute([text])) for text in ("a", "bb", "ccc", "dddd")]
    await settle()
    assert encoder.seen == [["a"]]
    assert batches.waiting == 4
    encoder.gate.set()
    found = await asyncio.gather(*asked)
    assert encoder.seen == [["a"], ["bb", "ccc", "dddd"]]
    assert [(one.tokens, one.vectors[0, 0]) for one in found] == [([1], 1), ([2], 2), ([3], 3), ([4], 4)]
    assert batches.waiting == 0


async def test_a_few_texts_go_before_many_and_many_take_turns():
    encoder = SlowEncoder()
    batches = Batches(encoder, 1)
    many = [asyncio.create_task(batches.compute([name * 2_000] * 12)) for name in "xy"]
    await settle()
    few = asyncio.create_task(batches.compute(["question"]))
    await settle()
    encoder.gate.set()
    assert (await few).tokens == [8]
    await asyncio.gather(*many)
    assert [one[0][0] for one in encoder.seen[:6]] == ["x", "q", "x", "y", "x", "y"]


async def test_many_are_not_held_up_for_ever_by_those_who_have_few():
    encoder = SlowEncoder()
    encoder.gate.set()
    batches = Batches(encoder, 1)
    many = asyncio.create_task(batches.compute(["m" * 2_000] * (FEW_TEXTS + 1)))
    while not many.done():
        await batches.compute(["few"])
    assert encoder.seen.count(["few"]) < 10 * (FEW_TEXTS + 1)


async def test_who_gives_up_leaves_no_work_behind():
    encoder = SlowEncoder()
    batches = Batches(encoder, 1)
    first = asyncio.create_task(batches.compute(["first"]))
    left = asyncio.create_task(batches.compute(["m" * 2_000] * 100))
    await settle()
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    assert batches.waiting == 1
    encoder.gate.set()
    await first
    await batches.compute(["last"])
    assert encoder.seen == [["first"], ["last"]]


async def test_what_waits_is_bounded_and_beyond_it_refused_at_once():
    encoder = SlowEncoder()
    batches = Batches(encoder, 1)
    first = asyncio.create_task(batches.compute(["a"] * QUEUE_TEXTS_MAX))
    await settle()
    with pytest.raises(EmbedderUnavailableError, match="wait"):
        await batches.compute(["b"])
    encoder.gate.set()
    await first
    assert (await batches.compute(["b"])).tokens == [1]


async def test_a_failure_is_told_to_those_whose_texts_it_concerns():
    encoder = SlowEncoder()
    batches = Batches(encoder, 1)
    encoder.error = EmbedderUnavailableError("it ended")
    encoder.gate.set()
    with pytest.raises(EmbedderUnavailableError, match="it ended"):
        await batches.compute(["a"])
    encoder.error = None
    assert (await batches.compute(["a"])).tokens == [1]


async def test_at_the_end_who_waits_is_refused():
    encoder = SlowEncoder()
    batches = Batches(encoder, 1)
    asked = [asyncio.create_task(batches.compute([text])) for text in "ab"]
    await settle()
    await batches.close()
    refused = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(one, EmbedderUnavailableError) for one in refused)
    assert encoder.closed
    with pytest.raises(EmbedderUnavailableError):
        await batches.compute(["c"])


@given(st.lists(st.text(max_size=600), max_size=60))
def test_runs_hold_every_text_once_and_are_bounded(texts: list[str]):
    made = runs(texts)
    assert sorted(index for run in made for index in run) == list(range(len(texts)))
    for run in made:
        longest = max(guessed_tokens(texts[index]) for index in run)
        assert len(run) == 1 or longest * len(run) <= RUN_TOKENS
