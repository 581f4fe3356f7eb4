"""What every vector store does, whichever engine stands behind it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from collegium_context.vectors.interface import CollectionSpec, Equals, Point, VectorStore, Where
from collegium_context.vectors.opening import open_store
from collegium_contracts.scope import Scope

ACME, OTHER = Scope("acme"), Scope("other")
SPEC = CollectionSpec(name="chunks", dimensions=8, keyword_fields=("kind",), integer_fields=("page",))


def uid(number: int) -> str:
    return str(uuid.UUID(int=number))


def unit(number: int, dimensions: int = 8) -> Any:
    vector = np.random.default_rng(number).normal(size=dimensions).astype(np.float32)
    return vector / np.linalg.norm(vector)


class VectorStoreContract:
    async def test_points_are_found_by_vector_and_by_words(self, store: VectorStore) -> None:
        await store.ensure(SPEC)
        points = [
            Point(uid(n), unit(n), f"word{n} common", {"kind": "a" if n % 2 else "b", "page": n}) for n in range(1, 40)
        ]
        await store.upsert(ACME, "chunks", points)
        looked = await store.look(ACME, "chunks", vector=unit(7), words="word9", limit=5)
        assert looked.dense[0].id == uid(7)
        assert looked.dense[0].score == pytest.approx(1.0, abs=1e-4)
        assert [hit.id for hit in looked.words] == [uid(9)]
        assert looked.words[0].payload == {"kind": "a", "page": 9}
        assert await store.count(ACME, "chunks") == 39
        assert await store.count(ACME, "chunks", Where(must=(Equals("kind", ("a",)),))) == 20

    async def test_no_tenant_touches_another(self, store: VectorStore) -> None:
        await store.ensure(SPEC)
        await store.upsert(ACME, "chunks", [Point(uid(1), unit(1), "secret acme")])
        await store.upsert(OTHER, "chunks", [Point(uid(1), unit(2), "secret other")])
        for scope, number in ((ACME, 1), (OTHER, 2)):
            looked = await store.look(scope, "chunks", vector=unit(1), words="secret acme other", with_vectors=True)
            assert [hit.id for hit in looked.dense] == [hit.id for hit in looked.words] == [uid(1)]
            assert looked.dense[0].vector == pytest.approx(unit(number), abs=1e-5)
        await store.delete(OTHER, "chunks", ids=[uid(1)])
        assert (await store.count(ACME, "chunks"), await store.count(OTHER, "chunks")) == (1, 0)


@pytest.fixture
async def embedded(platforms: Any) -> AsyncIterator[VectorStore]:
    store = await open_store(await platforms())
    yield store
    await store.close()


class TestEmbedded(VectorStoreContract):
    @pytest.fixture
    def store(self, embedded: VectorStore) -> VectorStore:
        return embedded
