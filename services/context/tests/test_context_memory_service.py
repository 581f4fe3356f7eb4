"""Memory on a real database: what is found while vectors are away, and what both times say over many corrections."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import msgspec
import numpy as np
import pytest
from collegium_context.embedding.interface import EmbedderUnavailableError
from collegium_context.memory import memory_store, remembering
from collegium_context.memory.memory_store import MemoryStore, UnknownMemoryError
from collegium_context.memory.parts import MemoryParts
from collegium_context.memory.times import Span
from collegium_context.vectors.interface import Hit, Looked, StoreUnavailableError
from collegium_contracts import memory_requests as q
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.scope import Scope
from collegium_store import open_pool
from collegium_testing import eventually

ACME = Scope("acme")
KEYRING = IdentityKeyring()
NOW_MS = 1_767_225_600_000


class Embedder:
    """Embeds by the letters of a text, or not at all."""

    model = "letters"
    dimensions = 26

    def __init__(self) -> None:
        self.is_down = False

    async def embed(self, texts: Sequence[str], *, scope: Scope | None = None) -> Any:
        if self.is_down:
            raise EmbedderUnavailableError("down")
        rows = np.array([[text.lower().count(chr(97 + n)) + 0.01 for n in range(26)] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Vectors:
    """Points in a dictionary, or nowhere."""

    def __init__(self) -> None:
        self.is_down = False
        self.points: dict[tuple[str, str], Any] = {}

    def _up(self) -> None:
        if self.is_down:
            raise StoreUnavailableError("down")

    async def ensure(self, spec: Any) -> None:
        self._up()

    async def upsert(self, scope: Scope, collection: str, points: Any) -> None:
        self._up()
        self.points |= {(scope.tenant, point.id): point for point in points}

    async def delete(self, scope: Scope, collection: str, *, ids: Sequence[str] = (), where: Any = None) -> None:
        self._up()
        for one in ids:
            self.points.pop((scope.tenant, one), None)

    async def look(self, scope: Scope, collection: str, *, vector: Any = None, where: Any, **_: Any) -> Looked:
        self._up()
        if vector is None:
            return Looked()
        found = [
            Hit(point.id, float(point.vector @ vector))
            for (tenant, _), point in self.points.items()
            if tenant == scope.tenant and _passes(point.payload, where)
        ]
        return Looked(dense=tuple(sorted(found, key=lambda hit: -hit.score)[:10]))


def _passes(payload: Any, where: Any) -> bool:
    def has(one: Any) -> bool:
        value = payload[one.field]
        return bool(set(one.values) & set(value if isinstance(value, list) else [value]))

    return all(has(one) for one in where.must) and not any(has(one) for one in where.must_not)


class World:
    """Memory over a pool, with an embedder and a store that can be taken away."""

    def __init__(self, platform: Any, pool: asyncpg.Pool) -> None:
        self.embedder, self.vectors, self.pool = Embedder(), Vectors(), pool
        self.store = MemoryStore(pool)
        nobody: Any = None
        self.parts = MemoryParts(platform, pool, self.vectors, self.embedder, nobody)  # pyright: ignore[reportArgumentType]
        self._handlers = self.parts.handlers()

    async def ask(self, subject: str, question: Any) -> Any:
        reply = await self._handlers[subject](question, "")
        return msgspec.json.decode(reply.content.body)

    async def add(self, text: str, path: str = "web/ada", tenant: str = "acme", **more: Any) -> Any:
        content = KEYRING.seal(tenant, msgspec.json.encode(q.MemoryContent(text=text)))
        return await self.ask(s.SVC_MEMORY_ADD, q.MemoryAdd(tenant=tenant, path=path, content=content, **more))

    async def recall(self, text: str, path: str = "web/ada", **more: Any) -> Any:
        sealed = KEYRING.seal("acme", text.encode())
        return await self.ask(s.SVC_MEMORY_RECALL, q.MemoryRecall(tenant="acme", path=path, question=sealed, **more))


@pytest.fixture
async def world(platforms: Any, database_url: str) -> AsyncIterator[World]:
    pool = await open_pool(database_url, application_name="test")
    await pool.execute("TRUNCATE context.memories, context.memory_paths, context.memory_grants")
    world = World(await platforms(), pool)
    yield world
    await world.parts.stop()
    await pool.close()


def texts(answer: Any) -> list[str]:
    return [one["text"] for one in answer["data"]]


async def test_without_an_embedder_words_find_what_was_stored_before_and_meanwhile(world: World):
    await world.add("Ada prefers trains.")
    world.embedder.is_down = True
    made = await world.add("Trains leave at nine.")
    assert made["indexed"] is False
    answer = await world.recall("trains at nine")
    assert answer["degraded"] == ["embedder_unavailable"]
    assert texts(answer)[0] == "Trains leave at nine."
    world.embedder.is_down = False
    assert (await world.recall("trains"))["degraded"] == []
    await world.parts.start()

    async def indexed() -> bool:
        return await world.pool.fetchval("SELECT count(*) FROM context.memories WHERE is_pending") == 0

    await eventually(indexed)
    assert len(world.vectors.points) == 2


async def test_without_a_vector_store_the_table_answers_and_what_is_forgotten_goes_from_it_later(world: World):
    made = await world.add("Ada prefers trains.")
    await world.add("Grace likes ships.", "web/grace")
    world.vectors.is_down = True
    answer = await world.recall("who prefers trains or ships")
    assert (answer["degraded"], texts(answer)) == (["vector_store_unavailable"], ["Ada prefers trains."])
    await world.ask(s.SVC_MEMORY_FORGET, q.MemoryForget(tenant="acme", id=made["id"]))
    assert texts(await world.recall("trains")) == []
    world.vectors.is_down = False
    assert texts(await world.recall("trains")) == [], "its point stands still, and is not trusted"
    assert len(world.vectors.points) == 2
    await world.parts.start()

    async def removed() -> bool:
        return len(world.vectors.points) == 1

    await eventually(removed)


async def test_another_model_embeds_everything_anew(world: World):
    await world.add("Ada prefers trains.")
    world.embedder.model = "other letters"
    await world.parts.start()

    async def anew() -> bool:
        return await world.pool.fetchval("SELECT embedded_by FROM context.memories") == "other letters/26"

    await eventually(anew)


async def test_a_path_holds_so_many(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remembering, "PER_PATH_MAX", 2)
    for text in ("one", "two"):
        await world.add(text)
    with pytest.raises(Exception, match="holds 2 memories") as refused:
        await world.add("three")
    assert refused.value.code == "memory_full"  # pyright: ignore[reportAttributeAccessIssue]
    await world.add("three", "web/bob")
    assert (await world.add("one"))["refreshes"] == 1, "what is known takes no place"


async def test_both_times_over_many_corrections_are_those_of_a_naive_model(world: World):
    chance = random.Random(5)
    store, moments = world.store, 20
    first = memory_store.NewMemory(remembering.new_id("mem", 0), "", Envelope("identity", b"", b"0"), b"0")
    await store.add(ACME.at("bi"), first, Span(0, moments), 0, 100)
    days = [dict.fromkeys(range(moments), 0)]
    for known in range(1, 25):
        start = chance.randrange(moments)
        end = chance.randrange(start + 1, moments + 1)
        body = Envelope("identity", b"", str(known).encode())
        new = memory_store.NewMemory(remembering.new_id("mem", known), "", body, b"")
        kept = [remembering.new_id("mem", known) for _ in range(2)]
        await store.correct(ACME, first.id, new, start, end, known, kept)
        days.append({**days[-1], **dict.fromkeys(range(start, end), known)})
    ids = [one.id for one in await store.line(ACME, first.id)]
    for known, day in enumerate(days):
        for moment in range(moments):
            found = await store.seen(ACME, ids, moment, known)
            assert [int(one.body.body) for one in found if one.body] == [day[moment]], (known, moment)
    assert await store.seen(Scope("globex"), ids, 3, 20) == []
    with pytest.raises(UnknownMemoryError):
        await store.correct(Scope("globex"), first.id, first, 0, None, 99, ["a", "b"])


async def test_a_tenants_memories_are_its_own_in_every_question(world: World):
    made = await world.add("Ada prefers trains.")
    await world.add("Ada prefers trains.", tenant="globex")
    for question in (
        q.MemoryExplain(tenant="globex", id=made["id"]),
        q.MemoryForget(tenant="globex", id=made["id"]),
    ):
        subject = s.SVC_MEMORY_EXPLAIN if isinstance(question, q.MemoryExplain) else s.SVC_MEMORY_FORGET
        with pytest.raises(Exception, match="no memory"):
            await world.ask(subject, question)
    await world.ask(s.SVC_MEMORY_FORGET, q.MemoryForget(tenant="globex", path="/"))
    assert [one["id"] for one in (await world.recall("trains"))["data"]] == [made["id"]]
    with pytest.raises(Exception, match="not the id of a tenant"):
        await world.ask(s.SVC_MEMORY_PATH_LIST, q.MemoryPathList(tenant="*"))
