"""What every vector store does, whichever engine stands behind it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from collegium_context.vectors.interface import (
    AnyOf,
    Between,
    CollectionSpec,
    Equals,
    InvalidQuestionError,
    Point,
    UnknownCollectionError,
    VectorStore,
    Where,
    WrongDimensionError,
)
from collegium_context.vectors.opening import open_store
from collegium_context.vectors.server import QdrantStore
from collegium_context.vectors.server_generations import discard, reindex, switch
from collegium_contracts.scope import Scope
from qdrant_client import AsyncQdrantClient

ACME, OTHER = Scope("acme"), Scope("other")
SPEC = CollectionSpec(name="chunks", dimensions=8, keyword_fields=("kind",), integer_fields=("page",))


def uid(number: int) -> str:
    return str(uuid.UUID(int=number))


def unit(number: int, dimensions: int = 8) -> Any:
    vector = np.random.default_rng(number).normal(size=dimensions).astype(np.float32)
    return vector / np.linalg.norm(vector)


def points(first: int, end: int, words: str = "word{n} common") -> list[Point]:
    return [
        Point(uid(n), unit(n), words.format(n=n), {"kind": "a" if n % 2 else "b", "page": n, "tags": ["x", f"t{n}"]})
        for n in range(first, end)
    ]


def equals(field: str, *values: str | int | bool) -> Where:
    return Where(must=(Equals(field, values),))


class VectorStoreContract:
    async def test_points_are_found_by_vector_and_by_words(self, store: VectorStore) -> None:
        await store.ensure(SPEC)
        await store.ensure(SPEC)
        await store.upsert(ACME, "chunks", points(1, 40))
        looked = await store.look(ACME, "chunks", vector=unit(7), words="word9", limit=5)
        assert (looked.dense[0].id, len(looked.dense)) == (uid(7), 5)
        assert looked.dense[0].score == pytest.approx(1.0, abs=1e-4)
        assert [hit.score for hit in looked.dense] == sorted((hit.score for hit in looked.dense), reverse=True)
        assert [hit.id for hit in looked.words] == [uid(9)]
        assert looked.words[0].payload == {"kind": "a", "page": 9, "tags": ["x", "t9"]}
        assert await store.count(ACME, "chunks") == 39

    async def test_filters_choose(self, store: VectorStore) -> None:
        await store.ensure(SPEC)
        await store.upsert(ACME, "chunks", points(1, 40))
        for where, expected in (
            (equals("kind", "a"), 20),
            (equals("page", 3, 4), 2),
            (equals("tags", "t5"), 1),
            (Where(must=(Between("page", 10, 19),)), 10),
            (Where(must=(Between("page", low=30),), must_not=(Equals("kind", ("a",)),)), 5),
            (equals("kind", "nothing"), 0),
            (Where(must=(Between("page", 10, 19, is_above=True, is_below=True),)), 8),
            (Where(must=(Between("page", low=38.5, is_above=True),)), 1),
            (Where(must_not=(Between("page", high=30),)), 9),
            (Where(must=(AnyOf((equals("page", 3), Where(must=(Between("page", low=38),)))),)), 3),
            (Where(must_not=(AnyOf((equals("kind", "a"), equals("page", 4))),)), 18),
            (Where(must=(AnyOf((Where(must_not=(Between("page", low=5),)),)),)), 4),
            (Where(must=(Between("kind", 0, 9),)), 0),
            (Where(must_not=(Between("nowhere", 0, 9), Equals("nowhere", ("x",)))), 39),
        ):
            assert await store.count(ACME, "chunks", where) == expected
            looked = await store.look(ACME, "chunks", vector=unit(1), words="common", where=where, limit=50)
            assert (len(looked.dense), len(looked.words)) == (expected, expected)

    async def test_no_tenant_touches_another(self, store: VectorStore) -> None:
        await store.ensure(SPEC)
        await store.upsert(ACME, "chunks", [Point(uid(1), unit(1), "secret acme")])
        await store.upsert(OTHER, "chunks", [Point(uid(1), unit(2), "secret other")])
        for scope, number in ((ACME, 1), (OTHER, 2)):
            looked = await store.look(scope, "chunks", vector=unit(1), words="secret acme other", with_vectors=True)
            assert [hit.id for hit in looked.dense] == [hit.id for hit in looked.words] == [uid(1)]
            assert looked.dense[0].vector == pytest.approx(unit(number), abs=1e-5)
        named = Where(must=(Equals("_tenant", ("acme",)),))
        assert (await store.look(OTHER, "chunks", vector=unit(1), where=named)).dense == ()
        await store.delete(OTHER, "chunks", ids=[uid(1)])
        assert (await store.count(ACME, "chunks"), await store.count(OTHER, "chunks")) == (1, 0)

    async def test_another_tenants_words_do_not_change_a_score(self, store: VectorStore) -> None:
        await store.ensure(SPEC)
        await store.upsert(ACME, "chunks", points(1, 20))
        before = (await store.look(ACME, "chunks", words="word3 common")).words
        await store.upsert(OTHER, "chunks", points(1, 60, "word3 common"))
        after = (await store.look(ACME, "chunks", words="word3 common")).words
        assert [(hit.id, pytest.approx(hit.score)) for hit in before] == [(hit.id, hit.score) for hit in after]
        assert before[0].id == uid(3)

    async def test_a_point_is_replaced_whole(self, store: VectorStore) -> None:
        await store.ensure(SPEC)
        await store.upsert(ACME, "chunks", points(1, 4))
        await store.upsert(ACME, "chunks", [Point(uid(2), unit(99), "changed", {"kind": "new"})])
        looked = await store.look(ACME, "chunks", vector=unit(99), words="word2", limit=1)
        assert (looked.dense[0].id, looked.dense[0].payload, looked.words) == (uid(2), {"kind": "new"}, ())
        assert await store.count(ACME, "chunks") == 3

    async def test_one_signal_alone_is_enough(self, store: VectorStore) -> None:
        await store.ensure(SPEC)
        await store.upsert(
            ACME, "chunks", [Point(uid(1), None, "only words"), Point(uid(2), unit(2)), Point(uid(3), None)]
        )
        looked = await store.look(ACME, "chunks", words="words", vector=unit(2))
        assert ([hit.id for hit in looked.dense], [hit.id for hit in looked.words]) == ([uid(2)], [uid(1)])
        assert (await store.look(ACME, "chunks", words="words")).dense == ()
        assert (await store.look(ACME, "chunks", vector=unit(2))).words == ()
        assert await store.look(ACME, "chunks") == await store.look(ACME, "chunks", words="the of and")
        assert await store.count(ACME, "chunks") == 3

    async def test_points_are_deleted_by_id_and_by_filter(self, store: VectorStore) -> None:
        await store.ensure(SPEC)
        for scope in (ACME, OTHER):
            await store.upsert(scope, "chunks", points(1, 40))
        await store.delete(ACME, "chunks", ids=[uid(1), uid(2), uid(777)])
        await store.delete(ACME, "chunks", where=equals("kind", "a"))
        assert await store.count(ACME, "chunks") == 18
        await store.delete(ACME, "chunks", where=Where())
        assert (await store.count(ACME, "chunks"), await store.count(OTHER, "chunks")) == (0, 39)

    async def test_a_forgotten_tenant_is_gone_and_nobody_else(self, store: VectorStore) -> None:
        for name in ("chunks", "memories"):
            await store.ensure(CollectionSpec(name=name, dimensions=8))
            for scope in (ACME, OTHER):
                await store.upsert(scope, name, points(1, 20))
        await store.forget(ACME)
        await store.forget(ACME)
        for name in ("chunks", "memories"):
            assert (await store.count(ACME, name), await store.count(OTHER, name)) == (0, 19)

    async def test_a_collection_that_is_dropped_is_gone_and_may_be_made_otherwise(self, store: VectorStore) -> None:
        for name in ("chunks", "memories"):
            await store.ensure(CollectionSpec(name=name, dimensions=8))
            await store.upsert(ACME, name, points(1, 20))
        assert await store.names() == ["chunks", "memories"]
        await store.drop("chunks")
        await store.drop("chunks")
        assert await store.names() == ["memories"]
        for call in (store.count(ACME, "chunks"), store.upsert(ACME, "chunks", points(1, 2))):
            with pytest.raises(UnknownCollectionError):
                await call
        await store.ensure(CollectionSpec(name="chunks", dimensions=4))
        await store.upsert(ACME, "chunks", [Point(uid(1), unit(1, 4))])
        assert (await store.count(ACME, "chunks"), await store.count(ACME, "memories")) == (1, 19)
        await store.forget(ACME)
        assert await store.count(ACME, "chunks") == 0

    async def test_questions_at_fault_are_refused(self, store: VectorStore) -> None:
        await store.ensure(SPEC)
        for call in (
            store.look(ACME, "nowhere", words="x"),
            store.upsert(ACME, "nowhere", points(1, 2)),
            store.count(ACME, "nowhere"),
            store.delete(ACME, "nowhere", ids=[uid(1)]),
        ):
            with pytest.raises(UnknownCollectionError):
                await call
        for call in (
            store.ensure(CollectionSpec(name="chunks", dimensions=9)),
            store.upsert(ACME, "chunks", [Point(uid(1), unit(1, 9))]),
            store.look(ACME, "chunks", vector=unit(1, 9)),
        ):
            with pytest.raises(WrongDimensionError):
                await call
        for call in (
            store.upsert(ACME, "chunks", [Point("not-a-uuid", unit(1))]),
            store.upsert(ACME, "chunks", [Point(uid(1), unit(1) * np.float32("nan"))]),
            store.upsert(ACME, "chunks", [Point(uid(1), unit(1), payload={"_tenant": "other"})]),
            store.look(ACME, "chunks", words="x", limit=0),
            store.look(ACME, "chunks", words="x", where=equals("kind")),
            store.count(ACME, "chunks", Where(must=(AnyOf(()),))),
        ):
            with pytest.raises(InvalidQuestionError):
                await call
        assert await store.count(ACME, "chunks") == 0

    async def test_many_at_once(self, store: VectorStore) -> None:
        await store.ensure(SPEC)
        await asyncio.gather(*(store.upsert(ACME, "chunks", points(n, n + 30)) for n in range(1, 301, 20)))
        assert await store.count(ACME, "chunks") == 310


@pytest.fixture
async def embedded(platforms: Any) -> AsyncIterator[VectorStore]:
    store = await open_store(await platforms())
    yield store
    await store.close()


class TestEmbedded(VectorStoreContract):
    @pytest.fixture
    def store(self, embedded: VectorStore) -> VectorStore:
        return embedded


class ServerContract(VectorStoreContract):
    async def test_generations_are_built_switched_and_rolled_back(self, store: QdrantStore) -> None:
        await store.ensure(SPEC)
        await store.upsert(ACME, "chunks", points(1, 700))
        made = await reindex(store, "chunks", quantized=True)
        assert (made, await store.serving("chunks")) == ("chunks.g2", "chunks.g1")
        await store.upsert(ACME, "chunks", points(700, 710))
        await store.delete(ACME, "chunks", ids=[uid(1)])
        assert await switch(store, "chunks", made) == "chunks.g1"
        assert await store.count(ACME, "chunks") == 708
        await store.upsert(ACME, "chunks", points(710, 720))
        await switch(store, "chunks", "chunks.g1")
        assert await store.count(ACME, "chunks") == 718
        await discard(store, "chunks", made)
        with pytest.raises(InvalidQuestionError):
            await switch(store, "chunks", made)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant:UserWarning")
class TestServerInLocalMode(ServerContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[VectorStore]:
        store = QdrantStore(AsyncQdrantClient(":memory:"), known_seconds=0.0)
        yield store
        await store.close()


def docker_answers() -> bool:
    program = shutil.which("docker")
    return program is not None and subprocess.run([program, "info"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not docker_answers(), reason="no Docker daemon answers here")
class TestServerInContainer(ServerContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[VectorStore]:
        from testcontainers.qdrant import QdrantContainer

        with QdrantContainer("qdrant/qdrant:v1.15.5") as container:
            url = f"http://{container.get_container_host_ip()}:{container.exposed_rest_port}"
            store = QdrantStore(AsyncQdrantClient(url=url), known_seconds=0.0)
            yield store
            await store.close()
