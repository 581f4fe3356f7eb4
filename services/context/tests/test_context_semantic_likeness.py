"""The live semantic cache on real servers: who finds what, what is learned, what is forgotten."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import numpy as np
import pytest
from collegium_context.semantic.looking import Likeness
from collegium_context.semantic.policy import Limits
from collegium_context.semantic.shipped import shipped
from collegium_context.semantic.store import LikenessStore
from collegium_context.vectors.opening import open_store
from collegium_contracts.content import Answer, Choice, encode_content
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.money import Usage
from collegium_contracts.scope import AllTenants, Scope
from collegium_contracts.state import CachedAnswer
from collegium_store import open_pool

NOW_MS = 1_767_225_600_000
DIMENSIONS = 64
SETTING = b"s" * 32


class WordEmbedder:
    """Embeds a text as the sum of vectors of its words, so that rewordings are near."""

    model = "all-minilm-l6-v2"
    dimensions = DIMENSIONS

    async def embed(self, texts: Any, *, scope: Scope | None = None) -> Any:
        rows = np.array([self._one(text) for text in texts], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _one(self, text: str) -> Any:
        words = [word.strip("?.!,") for word in text.lower().split()]
        return sum(np.random.default_rng(sum(map(ord, word)) * 7 + len(word)).normal(size=DIMENSIONS) for word in words)


class Cache:
    """The cache with a clock and a version that tests move."""

    def __init__(self, pool: asyncpg.Pool, vectors: Any) -> None:
        self.now_ms = NOW_MS
        self.version = 0
        self.store = LikenessStore(pool)
        self.made = 0
        self.likeness = Likeness(
            self.store,
            vectors,
            WordEmbedder(),
            IdentityKeyring(),
            self._version,
            shipped(),
            Limits(alone=0.2, among=0.05, lone=0.2),
            lambda: self.now_ms,
            NeverExplores(),
        )

    async def _version(self, scope: Scope) -> int:
        return self.version

    async def keep(self, text: Any, answer: str, tenant: str = "acme", project: str = "default", **more: Any) -> Any:
        self.made += 1
        output = Envelope("identity", b"", encode_content(Answer([Choice(text=answer)])))
        kept = CachedAnswer(
            digest=self.made.to_bytes(32, "big"),
            tenant=tenant,
            task_id=f"tsk_{self.made:0>26}",
            stored_at_ms=self.now_ms,
            plan="single",
            stop_reason="completed",
            model="sim",
            rank="teacher",
            usage=Usage(),
            output=output,
        )
        expires = more.pop("expires_at_ms", self.now_ms + 60_000)
        setting = more.pop("setting", SETTING)
        explored = more.pop("explored", False)
        return await self.likeness.keep(tenant, project, setting, prompt(text), kept, expires, explored=explored)

    async def look(self, text: Any, tenant: str = "acme", project: str = "default", setting: bytes = SETTING) -> Any:
        looked = await self.likeness.look(tenant, project, setting, prompt(text))
        await self.likeness.settle()
        return looked


class NeverExplores(random.Random):
    def random(self) -> float:
        return 0.99


def prompt(text: Any) -> Envelope:
    turns = [{"role": "user", "content": text}] if isinstance(text, str) else text
    return Envelope("identity", b"", json.dumps(turns).encode())


@pytest.fixture
async def cache(platforms: Any, database_url: str) -> AsyncIterator[Cache]:
    platform = await platforms()
    pool = await open_pool(database_url, application_name="test")
    vectors = await open_store(platform)
    made = Cache(pool, vectors)
    await made.likeness.make()
    yield made
    await vectors.close()
    await pool.close()


KEPT, AGAIN = "How do I bake bread at home?", "How can I bake bread at home please?"


async def test_a_rewording_is_served_and_counted(cache: Cache):
    assert (await cache.look(KEPT)).decision == "call"
    assert await cache.keep(KEPT, "Mix and bake.") == (True, None)
    looked = await cache.look(AGAIN)
    assert (looked.decision, looked.entry.task_id) == ("serve", f"tsk_{1:0>26}")
    assert (await cache.store.stats(Scope("acme")))["served"] == 1
    assert (await cache.look("How do I bake a cake at sea?")).decision == "call"


@pytest.mark.parametrize(
    "other",
    [{"tenant": "globex"}, {"project": "elsewhere"}, {"setting": b"t" * 32}],
)
async def test_no_entry_is_found_outside_its_tenant_project_and_setting(cache: Cache, other: dict[str, Any]):
    await cache.keep(KEPT, "Mix and bake.")
    assert (await cache.look(KEPT, **other)).decision == "call"
    await cache.keep(KEPT, "Other.", **other)
    assert (await cache.look(AGAIN)).entry.task_id == f"tsk_{1:0>26}"
    assert (await cache.look(AGAIN, **other)).entry.task_id == f"tsk_{2:0>26}"
    await cache.store.forget(Scope(other.get("tenant", "nobody")))
    assert (await cache.look(AGAIN)).decision == "serve"


async def test_documents_that_change_and_time_that_passes_end_an_entry(cache: Cache):
    await cache.keep(KEPT, "Mix and bake.")
    cache.version = 1
    assert (await cache.look(AGAIN)).decision == "call"
    cache.version = 0
    cache.now_ms += 60_001
    assert (await cache.look(AGAIN)).decision == "call"
    gone = await cache.store.expired(AllTenants("test"), cache.now_ms)
    assert [tenant for tenant, _ in gone] == ["acme"]


async def test_an_answer_that_turns_out_to_be_another_stops_its_entry(cache: Cache):
    await cache.keep(KEPT, "Mix and bake.")
    kept, same = await cache.keep(AGAIN, "Call the baker, and pay 5.", explored=True)
    assert (kept, same) == (True, False)
    stats = await cache.store.stats(Scope("acme"))
    assert (stats["explored"], stats["explored_wrong"]) == (1, 1)
    looked = await cache.look("How could I bake bread at home?")
    assert looked.decision == "call"


async def test_the_same_answer_again_makes_a_group_and_no_doubt(cache: Cache):
    await cache.keep(KEPT, "Mix and bake.")
    assert await cache.keep(AGAIN, "mix and bake") == (True, True)
    assert (await cache.look("Please, how could I bake bread at home?")).decision == "serve"


async def test_who_says_it_was_wrong_is_heard(cache: Cache):
    await cache.keep(KEPT, "Mix and bake.")
    assert (await cache.look(AGAIN)).decision == "serve"
    assert await cache.likeness.say_wrong("acme", f"tsk_{1:0>26}")
    assert not await cache.likeness.say_wrong("globex", f"tsk_{1:0>26}")
    assert (await cache.look(AGAIN)).decision == "call"
    assert (await cache.store.stats(Scope("acme")))["said_wrong"] == 1


async def test_what_was_cleared_is_not_kept_by_who_comes_late(cache: Cache):
    await cache.keep(KEPT, "Mix and bake.")
    await cache.store.clear(Scope("acme"), cache.now_ms)
    assert not (await cache.keep("How do I fry an egg?", "Old news."))[0]
    cache.now_ms += 1
    assert (await cache.keep("How do I boil an egg?", "Boil it."))[0]


@pytest.mark.parametrize("text", ["What is my balance?", "What is the weather in Rome?"])
async def test_personal_and_present_questions_are_not_kept(cache: Cache, text: str):
    assert await cache.keep(text, "42") == (False, None)
    assert (await cache.look(text)).decision == "not_cached"
