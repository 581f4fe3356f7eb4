"""The embedder's caches: found again by the same tenant alone, bounded, and the same vector either way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from collegium_context.embedding import Counted, EmbedderUnavailableError
from collegium_context.embedding.embedder import SLICE_TEXTS, CachedEmbedder, VectorMemory
from collegium_context.embedding.shelf import Kept
from collegium_contracts.scope import Scope

ACME, GLOBEX = Scope("acme"), Scope("globex")


class CountingEngine:
    model = "counting"
    dimensions = 8
    waiting = 0

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails = False

    async def compute(self, texts: Sequence[str]) -> Counted:
        if self.fails:
            raise EmbedderUnavailableError("down")
        self.asked += texts
        rows = [np.random.default_rng(abs(hash(text)) % 2**32).normal(size=8) for text in texts]
        vectors = np.array(rows, dtype=np.float32).reshape(len(texts), 8)
        return Counted(vectors, [len(text) for text in texts])

    async def close(self) -> None:
        pass


class Shelf:
    """A shelf in memory that two embedders share."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, bytes], Kept] = {}

    async def get(self, tenant: str, digests: Sequence[bytes]) -> dict[bytes, Kept]:
        return {one: self.kept[tenant, one] for one in digests if (tenant, one) in self.kept}

    def put(self, tenant: str, vectors: Mapping[bytes, Kept]) -> None:
        self.kept |= {(tenant, digest): kept for digest, kept in vectors.items()}


def embedder(engine: CountingEngine, shelf: Shelf | None = None, memory_bytes: int = 10**6) -> CachedEmbedder:
    return CachedEmbedder(engine, memory_bytes=memory_bytes, shelf=shelf)  # type: ignore[arg-type]


async def test_the_same_text_is_computed_once_and_has_the_same_vector():
    engine = CountingEngine()
    cached = embedder(engine)
    first = await cached.embed_counted(["a", "b", "a"], scope=ACME)
    again = await cached.embed_counted(["b", "a"], scope=ACME)
    assert engine.asked == ["a", "b"]
    assert np.array_equal(first.vectors[[1, 0]], again.vectors)
    assert np.array_equal(first.vectors[0], first.vectors[2])
    assert again.tokens == [1, 1]
    assert first.vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(first.vectors, axis=1), 1, atol=1e-6)
    assert np.array_equal(await cached.embed(["a"]), first.vectors[:1])


async def test_a_tenant_finds_nothing_of_another_and_without_a_scope_nothing_is_kept():
    engine, shelf = CountingEngine(), Shelf()
    cached = embedder(engine, shelf)
    await cached.embed(["secret"], scope=ACME)
    await cached.embed(["secret"], scope=GLOBEX)
    await cached.embed(["secret"])
    await cached.embed(["secret"])
    assert engine.asked == ["secret"] * 4
    assert {tenant for tenant, _ in shelf.kept} == {"acme", "globex"}


async def test_another_replica_finds_what_is_shared():
    engine, shelf = CountingEngine(), Shelf()
    first = await embedder(engine, shelf).embed(["a", "b"], scope=ACME)
    other = CountingEngine()
    again = await embedder(other, shelf).embed(["a", "c", "b"], scope=ACME)
    assert other.asked == ["c"]
    assert np.array_equal(again[[0, 2]], first)


async def test_an_erased_tenants_vectors_are_forgotten():
    engine = CountingEngine()
    cached = embedder(engine)
    await cached.embed(["a"], scope=ACME)
    await cached.embed(["a"], scope=GLOBEX)
    assert cached.forget("acme") == 1
    await cached.embed(["a"], scope=GLOBEX)
    assert engine.asked == ["a", "a"]


async def test_memory_is_bounded_and_keeps_what_was_used_last():
    memory = VectorMemory(1_000)
    for number in range(10):
        memory.put("acme", bytes([number]), Kept(1, b"x" * 50))
        memory.get("acme", b"\x00")
    assert memory.size_bytes <= 1_000
    assert memory.get("acme", b"\x00") is not None
    assert memory.get("acme", b"\x01") is None
    assert memory.get("acme", b"\x09") is not None
    memory.put("acme", b"\x09", Kept(1, b"y" * 50))
    assert memory.size_bytes == 3 * 300


async def test_many_texts_come_back_in_their_order():
    texts = [str(number) for number in range(2 * SLICE_TEXTS + 3)]
    engine = CountingEngine()
    found = await embedder(engine).embed_counted(texts, scope=ACME)
    assert found.tokens == [len(text) for text in texts]
    alone = await embedder(CountingEngine()).embed([texts[-1]])
    assert np.array_equal(found.vectors[-1:], alone)
    engine.fails = True
    with pytest.raises(EmbedderUnavailableError):
        await embedder(engine).embed(texts)


async def test_nothing_asked_is_nothing_answered():
    cached = embedder(CountingEngine())
    assert (await cached.embed([], scope=ACME)).shape == (0, 8)
    assert (await cached.embed([])).shape == (0, 8)
