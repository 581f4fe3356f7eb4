"""Turns among tenants: one who brings more than can be embedded in minutes keeps nobody else's documents waiting."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_bus.ask import ask
from collegium_bus.connection import Connection
from collegium_context.app import build
from collegium_context.documents import child, indexing_store
from collegium_context.documents.chunking import Cut
from collegium_context.documents.indexing_store import IndexingStore
from collegium_context.documents.ingesting import STEP_CHUNKS
from collegium_context.documents.turns import REMEMBERED_MAX, Lane, Turns
from collegium_contracts import knowledge as k
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_runtime.platform import Platform
from collegium_telemetry import names
from collegium_testing import eventually

# A page of these is a chunk of some 200 letters, none of which the embedder can pass over.
SIGNS = "<>&;#%!?+*"


def sealed(value: Any) -> Envelope:
    return Envelope("identity", b"", value if isinstance(value, bytes) else msgspec.json.encode(value))


def manual(chance: random.Random) -> bytes:
    words = ["valve", "pump", "pipe", "filter", "gauge", "tank", "hose", "bolt", "seal", "motor"]
    parts = (" ".join(chance.choices(words, k=80)) for _ in range(24))
    return "\n\n".join(f"# Part {number}\n\n{part}." for number, part in enumerate(parts)).encode()


async def add(connection: Connection, tenant: str, document: str, content: bytes, kind: k.DocumentKind) -> None:
    question = k.DocumentAdd(
        tenant=tenant, document=document, content=sealed(content), meta=sealed(k.DocumentMeta()), kind=kind
    )
    await ask(connection, s.SVC_KNOWLEDGE_DOCUMENT_ADD, question, k.DocumentReply)


async def get(connection: Connection, tenant: str, document: str) -> k.DocumentRow:
    question = k.DocumentGet(tenant=tenant, document=document)
    return (await ask(connection, s.SVC_KNOWLEDGE_DOCUMENT_GET, question, k.DocumentReply)).document


async def settled(connection: Connection, tenant: str, document: str) -> k.DocumentRow:
    async def is_settled() -> bool:
        return (await get(connection, tenant, document)).state != "accepted"

    await eventually(is_settled)
    return await get(connection, tenant, document)


@pytest.fixture
async def running(platforms: Any) -> AsyncIterator[Platform]:
    """The platform of a running context."""
    platform = await platforms()
    app = build(platform)
    await app.start()
    yield platform
    await app.stop()


@pytest.fixture
def connection(running: Platform) -> Connection:
    """The way to a running context."""
    return running.connection


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    """The tables of context."""
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    yield pool
    await pool.close()


@pytest.mark.parametrize("size", [240_000, 60_000])
async def test_a_flood_of_documents_that_embed_for_minutes_keeps_no_other_tenant_waiting(
    connection: Connection, pool: asyncpg.Pool, rng: random.Random, size: int
) -> None:
    assert 60_000 < indexing_store.HEAVY_BYTES < 240_000
    floods = [f"flood{number}" for number in range(8)]
    for name in floods:
        await add(connection, "greedy", name, "".join(rng.choices(SIGNS, k=size)).encode(), "text")

    async def is_begun() -> bool:
        return await pool.fetchval("SELECT max(tries) FROM context.documents WHERE tenant = 'greedy'") > 0

    await eventually(is_begun)
    for name, content in (("manual", manual(rng)), ("note", b"A valve is bled before winter.")):
        await add(connection, "modest", name, content, "markdown")
    await add(connection, "modest", "garbage", b"%PDF-1.7\ngarbage", "pdf")
    row = await settled(connection, "modest", "manual")
    assert (row.state, row.chunks > 10) == ("indexed", True)
    assert (await settled(connection, "modest", "note")).state == "indexed"
    refused = await settled(connection, "modest", "garbage")
    assert refused.error is not None
    assert refused.error.code == "document_undecodable"
    waiting = [name for name in floods if (await get(connection, "greedy", name)).state == "accepted"]
    assert len(waiting) >= len(floods) - 2, "the others were served before the flood was"


async def test_what_says_one_thing_all_over_is_embedded_once_a_step(running: Platform) -> None:
    await add(running.connection, "greedy", "over", b"&lt;" * 1_000 * 200, "html")
    row = await settled(running.connection, "greedy", "over")
    assert (row.state, row.chunks) == ("indexed", 1_000)
    lines = running.metrics.render().decode().splitlines()
    (computed,) = [line.split()[-1] for line in lines if line.startswith(names.METRIC_EMBEDDED) and "computed" in line]
    assert float(computed) == -(-1_000 // STEP_CHUNKS)


async def test_a_document_that_is_read_for_longer_than_a_lease_is_neither_lost_nor_taken_twice(
    connection: Connection, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing_store, "LEASE_SECONDS", 0.6)
    began, go_on = asyncio.Semaphore(0), asyncio.Event()
    times: list[str] = []

    async def slowly(content: bytes, kind: str) -> Cut:
        times.append(kind)
        began.release()
        await go_on.wait()
        return child.cut(content, "markdown")

    monkeypatch.setattr(child, "read", slowly)
    await add(connection, "acme", "slow", manual(random.Random(1)), "markdown")
    await began.acquire()
    state = "SELECT due_at, tries FROM context.documents WHERE id = 'slow'"
    first = await pool.fetchrow(state)

    async def is_renewed() -> bool:
        row = await pool.fetchrow(state)
        return (row["due_at"] - first["due_at"]).total_seconds() > 3 * 0.6

    await eventually(is_renewed)
    go_on.set()
    assert (await settled(connection, "acme", "slow")).state == "indexed"
    assert (times, (await pool.fetchrow(state))["tries"]) == (["markdown"], 1)


async def test_what_was_removed_is_not_embedded_to_its_end(
    connection: Connection, pool: asyncpg.Pool, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, ended = Turns.end, asyncio.Event()

    def told(self: Turns, tenants: Iterable[str]) -> None:
        end(self, tenants)
        ended.set()

    monkeypatch.setattr(Turns, "end", told)
    await add(connection, "acme", "long", "".join(rng.choices(SIGNS, k=240_000)).encode(), "text")

    async def is_begun() -> bool:
        return await pool.fetchval("SELECT count(*) FROM context.loose_points") > 0

    await eventually(is_begun)
    question = k.DocumentDelete(tenant="acme", document="long")
    await ask(connection, s.SVC_KNOWLEDGE_DOCUMENT_DELETE, question, k.DocumentReply)
    async with asyncio.timeout(60):
        await ended.wait()
    assert await pool.fetchval("SELECT count(*) FROM context.loose_points") < 1_000, "it has 1,200 chunks"


async def test_one_who_always_has_more_gets_at_most_half_of_the_places_and_no_turn_before_others(
    pool: asyncpg.Pool,
) -> None:
    store = IndexingStore(pool)
    lane = Lane("heavy", places=4, documents_max=1, bytes_max=1)
    turns = Turns(lane.places)
    for tenant, count in (("greedy", 5), ("second", 3), ("third", 1)):
        for number in range(count):
            await _due(pool, tenant, f"{tenant}{number}")

    async def take() -> str:
        taken = await store.take(lane, shut_out=turns.shut_out, served=turns.served)
        if taken:
            turns.begin(one.tenant for one in taken)
        return "".join(one.tenant for one in taken)

    assert [await take() for _ in range(4)] == ["greedy", "second", "third", ""]
    await _due(pool, "fourth", "fourth0")
    assert await take() == "fourth", "the last place was kept for one who has none"
    for tenant in ("greedy", "second"):
        turns.end([tenant])
    assert await take() == "greedy", "its turn was longest ago"
    turns.end(["greedy"])
    assert await take() == "second", "greedy's was due before it"


async def _due(pool: asyncpg.Pool, tenant: str, document: str) -> None:
    await pool.execute(
        """
        INSERT INTO context.documents (tenant, id, project, kind, state, fingerprint, meta_key_id, meta_nonce, meta,
            source_key_id, source_nonce, source, source_bytes, created_at, updated_at, due_at)
        VALUES ($1, $2, 'default', 'pdf', 'accepted', '', '', '', '', '', '', '', 10, now(), now(), clock_timestamp())
        """,
        tenant,
        document,
    )


def test_half_of_the_places_are_for_tenants_who_have_none() -> None:
    turns = Turns(4)
    turns.begin(["a"])
    assert turns.shut_out == [], "three are free"
    turns.begin(["a"])
    assert turns.shut_out == ["a"]
    turns.begin(["b", "b"])
    turns.begin(["c"])
    assert (turns.has_place, turns.shut_out) == (False, ["a", "b", "c"])
    turns.end(["a"])
    assert (turns.has_place, turns.shut_out) == (True, ["a", "b", "c"]), "it has another"
    turns.end(["a"])
    turns.end(["b", "b"])
    assert (turns.shut_out, turns.served) == ([], ["a", "b", "c"])
    turns.begin(["a"])
    assert turns.served == ["b", "c", "a"]


def test_who_had_a_turn_long_ago_is_forgotten() -> None:
    turns = Turns(1)
    for number in range(REMEMBERED_MAX + 10):
        turns.begin([f"t{number}"])
        turns.end([f"t{number}"])
    assert (len(turns.served), turns.served[0], turns.shut_out) == (REMEMBERED_MAX, "t10", [])
